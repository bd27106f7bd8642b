"""What a rank watches: its own progress, whether its launcher is alive, and requests to stop."""

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

SECONDS = 1.0  # between two checks of the launcher
_stop = False
_limit = 0.0  # seconds without progress until the watchdog bites; 0: no watchdog
_set, _deadline = 0.0, float("inf")  # when the watchdog was last reset, and when it bites
_words: TextIO | int = 2  # the file it writes to


def start(words: Path) -> None:
    """Determine the rank, and from now on end this process if its parent or its `dsr launch` is gone, or it hangs.

    It hangs if there is no `beat` for the seconds in the variable LIMIT, or for STARTUP seconds before the first one.
    Then the stacks of all threads go to `words`/rankN.txt (to stderr where the run's folder is not visible), and a
    little later SIGALRM ends the process. Neither needs the interpreter, so a hang that holds its lock is ended too.
    """
    global _limit, _words
    rank_environment(os.environ)
    _limit = limit()
    if words.parent.is_dir():
        words.mkdir(exist_ok=True)
        _words = file_of(words, int(os.environ.get("RANK", "0"))).open("w")
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    _reset(max(_limit, STARTUP))
    thread = threading.Thread(target=_look, args=(os.getppid(), os.environ.get(MARK, "")), daemon=True)
    thread.start()


def limit() -> float:
    """The seconds without progress after which this rank ends."""
    return float(os.environ.get(LIMIT, STARTUP))


def beat() -> None:
    """Report progress to the watchdog. Cheap: the watchdog is reset at most twenty times within its limit."""
    if _limit and time.monotonic() - _set > _limit / 20:
        _reset(_limit * 1.05)


def _reset(seconds: float) -> None:
    global _set, _deadline
    _set = time.monotonic()
    _deadline = _set + seconds
    faulthandler.dump_traceback_later(seconds, file=_words)
    signal.setitimer(signal.ITIMER_REAL, seconds + delay(_limit))


def leave(reason: str) -> None:
    """Leave the reason why this rank ends for `dsr launch`; only rank 0 can write it to status.json."""
    if not isinstance(_words, int):
        with contextlib.suppress(OSError):  # the disk may be full
            print(reason, file=_words, flush=True)


def let_the_other_end(seconds: float = 5.0) -> None:
    """Give the launcher time to see which rank ended first and made this one fail; it then asks this one to stop."""
    until = time.monotonic() + seconds
    while not _stop and time.monotonic() < until:
        time.sleep(0.05)


def listen() -> None:
    """From now on SIGTERM and SIGINT only set what `stop_requested` returns; before, they end the process."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _ask)


def stop_requested() -> bool:
    """Whether this rank was asked to stop. The ranks agree on it at the end of an update, and save."""
    return _stop


def rank_environment(variables: MutableMapping[str, str]) -> None:
    """Set RANK, WORLD_SIZE, LOCAL_RANK and MASTER_ADDR where this rank's launcher calls them otherwise."""
    name = variables.get(launchers.VARIABLE)
    if name and "RANK" not in variables:
        for key, value in launchers.LAUNCHERS.make(name).rank(variables).items():
            variables.setdefault(key, value)


def _look(parent: int, launcher: str) -> None:
    rank = os.environ.get("RANK", "?")
    here = launcher.startswith(boot())  # otherwise it is on another host, where its pid means nothing here
    announced = False
    while os.getppid() == parent and (not here or lives(launcher)):
        time.sleep(SECONDS)
        if not announced and time.monotonic() > _deadline:
            announced = True
            os.write(2, f"rank {rank}: no progress for {time.monotonic() - _set:.3g} s; ending\n".encode())
    gone = "its launcher" if os.getppid() != parent else "dsr launch"
    os.write(2, f"rank {rank}: {gone} is gone; ending\n".encode())
    os._exit(1)


def _ask(number: int, frame: Any) -> None:
    global _stop
    _stop = True
