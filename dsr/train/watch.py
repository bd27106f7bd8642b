"""A rank's eye on itself and outside: who it is, whether it gets on, its launcher lives, and it was asked to stop."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import threading
import time
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any, TextIO

from dsr.cluster import launchers
from dsr.run.last_words import LIMIT, STARTUP, delay, file_of
from dsr.run.launches import MARK, boot, lives

SECONDS = 1.0  # between two looks
_stop = False
_limit = 0.0  # seconds without progress until the watchdog bites; 0: there is none
_set, _deadline = 0.0, float("inf")  # when the watchdog was last set back, and when it bites
_words: TextIO | int = 2  # where it writes


def start(words: Path) -> None:
    """Learn the rank, and from now on end this process when its parent or its `dsr launch` is gone, or it hangs.

    A hang is no `beat` for the seconds in the variable LIMIT; until the first one STARTUP seconds are granted. Then the
    stacks of all threads go to `words`/rankN.txt (stderr where the run's folder is not visible), and a little later
    SIGALRM ends the process. Neither needs the interpreter, so that a hang that holds its lock is ended too.
    """
    global _limit, _words
    rank_environment(os.environ)
    _limit = limit()
    if words.parent.is_dir():
        words.mkdir(exist_ok=True)
        _words = file_of(words, int(os.environ.get("RANK", "0"))).open("w")
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    _set_back(max(_limit, STARTUP))
    looking = threading.Thread(target=_look, args=(os.getppid(), os.environ.get(MARK, "")), daemon=True)
    looking.start()


def limit() -> float:
    """The seconds without progress after which this rank ends."""
    return float(os.environ.get(LIMIT, STARTUP))


def beat() -> None:
    """Tell the watchdog that this rank got on. Cheap: it is set back at most twenty times in its time."""
    if _limit and time.monotonic() - _set > _limit / 20:
        _set_back(_limit * 1.05)


def _set_back(seconds: float) -> None:
    global _set, _deadline
    _set = time.monotonic()
    _deadline = _set + seconds
    faulthandler.dump_traceback_later(seconds, file=_words)
    signal.setitimer(signal.ITIMER_REAL, seconds + delay(_limit))


def leave(reason: str) -> None:
    """Have `dsr launch` read why this rank ends, which only rank 0 can say in status.json."""
    if not isinstance(_words, int):
        with contextlib.suppress(OSError):  # the disk may be full
            print(reason, file=_words, flush=True)


def let_the_other_end(seconds: float = 5.0) -> None:
    """Let the launcher see first which rank ended and made this one fail; it then asks this one to stop."""
    until = time.monotonic() + seconds
    while not _stop and time.monotonic() < until:
        time.sleep(0.05)


def listen() -> None:
    """From now on SIGTERM and SIGINT only set what `stop_requested` tells; before, they end the process."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _ask)


def stop_requested() -> bool:
    """Whether this rank was asked to stop. The ranks agree on it at an update's end, and save."""
    return _stop


def rank_environment(variables: MutableMapping[str, str]) -> None:
    """Set RANK, WORLD_SIZE, LOCAL_RANK and MASTER_ADDR where this rank's launcher calls them otherwise."""
    name = variables.get(launchers.VARIABLE)
    if name and "RANK" not in variables:
        for key, value in launchers.LAUNCHERS.make(name).rank(variables).items():
            variables.setdefault(key, value)


def _look(parent: int, launcher: str) -> None:
    rank = os.environ.get("RANK", "?")
    here = launcher.startswith(boot())  # else it is on another host, where its pid means nothing to us
    told = False
    while os.getppid() == parent and (not here or lives(launcher)):
        time.sleep(SECONDS)
        if not told and time.monotonic() > _deadline:
            told = True
            os.write(2, f"rank {rank}: no progress for {time.monotonic() - _set:.3g} s; ending\n".encode())
    gone = "its launcher" if os.getppid() != parent else "dsr launch"
    os.write(2, f"rank {rank}: {gone} is gone; ending\n".encode())
    os._exit(1)


def _ask(number: int, frame: Any) -> None:
    global _stop
    _stop = True
