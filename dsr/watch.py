"""A rank's eye on itself and outside: who it is, whether it gets on, its launcher lives, and it was asked to stop."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import re
import signal
import threading
import time
from collections.abc import MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    import psutil

MARK = "DSR_LAUNCH"  # the variable that names the `dsr launch` of every process of a run
SECONDS = 1.0  # between two looks
LIMIT = "DSR_WATCHDOG"  # the variable that holds the seconds without progress after which a rank ends
STARTUP = 600.0  # seconds that the way to the first update may always take

_RANK = {  # rank, ranks, rank on this host: what each launcher calls them; Slurm last, as others run under it
    "OpenMPI": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
    "MVAPICH": ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_LOCAL_RANK"),
    "Slurm": ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"),
}
_WAITING = ("torch/distributed/", "deepspeed/comm/", "dsr/reduce.py")  # where ranks wait for each other
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
        _words = _file(words, int(os.environ.get("RANK", "0"))).open("w")
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    _set_back(max(_limit, STARTUP))
    looking = threading.Thread(target=_look, args=(os.getppid(), os.environ.get(MARK, "")), daemon=True)
    looking.start()


def limit() -> float:
    """The seconds without progress after which this rank ends."""
    return float(os.environ.get(LIMIT, STARTUP))


def delay(limit: float) -> float:
    """Seconds between a rank's stack and its end: the other ranks' stacks come then too."""
    return min(limit, 20.0)


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


def is_there(words: Path) -> bool:
    """Whether some rank has left its reason, or its watchdog the stacks."""
    try:
        return any(file.stat().st_size for file in words.iterdir())
    except OSError:
        return False


def read(words: Path, ranks: int) -> tuple[str, str]:
    """What ranks left in `words`: the reason why one ended or who hangs, in one line, and the stacks of those."""
    texts = {rank: _text(_file(words, rank)) for rank in range(ranks)}
    dumps = {rank: text for rank, text in texts.items() if text.startswith("Timeout (")}
    if told := [f"rank {rank}: {text}" for rank, text in texts.items() if text and rank not in dumps]:
        return told[0], ""
    if not dumps:
        return "", ""
    places = {rank: _innermost(dump) for rank, dump in dumps.items()}
    waiting = [rank for rank, place in places.items() if any(part in place for part in _WAITING)]
    silent = [f"rank {rank} left no stack (is it stopped?)" for rank in texts if rank not in dumps]
    there = [f"rank {rank} hangs in {place}" for rank, place in places.items() if rank not in waiting]
    found = silent + there or ["every rank waits for another"]
    more = f", and {len(found) - 2} more" if len(found) > 2 else ""
    shown = [rank for rank in places if rank not in waiting] or waiting[:1]
    stacks = [f"rank {rank}, all threads, the innermost call first:\n{dumps[rank]}" for rank in shown[:2]]
    reason = f"no progress (dsr.watchdog.minutes): {'; '.join(found[:2])}{more}; all stacks are in {words}"
    return reason, "\n".join(stacks)


def _file(words: Path, rank: int) -> Path:
    return words / f"rank{rank}.txt"


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _innermost(dump: str) -> str:
    """ "FILE:LINE (FUNCTION)" of where the main thread is: faulthandler lists it last, its innermost call first."""
    frame = re.search(r'File "(.*)", line (\d+) in (.*)', dump[dump.rfind("hread 0x") :])
    return f"{frame[1]}:{frame[2]} ({frame[3]})" if frame else "a place unknown"


def listen() -> None:
    """From now on SIGTERM and SIGINT only set what `stop_requested` tells; before, they end the process."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _ask)


def stop_requested() -> bool:
    """Whether this rank was asked to stop. The ranks agree on it at an update's end, and save."""
    return _stop


def rank_environment(variables: MutableMapping[str, str]) -> None:
    """Set RANK, WORLD_SIZE, LOCAL_RANK and MASTER_ADDR where mpirun or srun started this rank."""
    if "RANK" in variables:
        return
    for names in _RANK.values():
        if names[0] in variables:
            variables.update(zip(("RANK", "WORLD_SIZE", "LOCAL_RANK"), (variables[n] for n in names), strict=True))
            break
    nodes = variables.get("SLURM_STEP_NODELIST") or variables.get("SLURM_JOB_NODELIST")
    if nodes:
        variables.setdefault("MASTER_ADDR", first_host(nodes))


def first_host(nodes: str) -> str:
    """The first host of a Slurm node list: "gpu[07-09,12],login" -> "gpu07"."""
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])+", nodes)
    return re.sub(r"\[(\w+)[^\]]*\]", r"\1", first.group() if first else nodes)


def mark(pid: int) -> str:
    """Name a process so that no other has the same name: boot, PID namespace, pid and start time."""
    return f"{_place()}:{pid}:{_started(pid)}"


def lives(launcher: str) -> bool:
    """Whether the `dsr launch` with this mark is a live process of this host."""
    return launcher.startswith(_place()) and mark(int(launcher.split(":")[2])) == launcher


def processes(launcher: str) -> list[psutil.Process]:
    """The live processes on this host that carry a launch's mark, wherever they hang in the tree."""
    import psutil

    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(MARK) == launcher:
                found.append(process)
    return found


def _look(parent: int, launcher: str) -> None:
    rank = os.environ.get("RANK", "?")
    here = launcher.startswith(_place())  # else it is on another host, where its pid means nothing to us
    told = False
    while os.getppid() == parent and (not here or lives(launcher)):
        time.sleep(SECONDS)
        if not told and time.monotonic() > _deadline:
            told = True
            os.write(2, f"rank {rank}: no progress for {time.monotonic() - _set:.3g} s; ending\n".encode())
    gone = "its launcher" if os.getppid() != parent else "dsr launch"
    os.write(2, f"rank {rank}: {gone} is gone; ending\n".encode())
    os._exit(1)


def _place() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}:{Path('/proc/self/ns/pid').stat().st_ino}"


def _started(pid: int) -> str:
    """The start time of a live process in clock ticks since boot; nothing where there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]


def _ask(number: int, frame: Any) -> None:
    global _stop
    _stop = True
