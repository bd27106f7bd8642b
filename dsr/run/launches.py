"""Which processes belong to which `dsr launch`: a mark in their environment names it."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil

MARK = "DSR_LAUNCH"  # the variable that names the `dsr launch` of every process of a run


def mark(pid: int) -> str:
    """Name a process so that no other has the same name: boot, PID namespace, pid and start time."""
    return f"{boot()}:{pid}:{_started(pid)}"


def lives(launcher: str) -> bool:
    """Whether the `dsr launch` with this mark is a live process of this host."""
    return launcher.startswith(boot()) and mark(int(launcher.split(":")[2])) == launcher


def processes(launcher: str) -> list[psutil.Process]:
    """The live processes on this host that carry a launch's mark, wherever they hang in the tree."""
    import psutil

    marked = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(MARK) == launcher:
                marked.append(process)
    return marked


def end(launcher: str) -> None:
    """End every process on this host of a launch that is dead; one that lives keeps its own."""
    import psutil

    while launcher and not lives(launcher) and (left := processes(launcher)):
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=5)


def boot() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}:{Path('/proc/self/ns/pid').stat().st_ino}"


def _started(pid: int) -> str:
    """The start time of a live process in clock ticks since boot; nothing where there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]
