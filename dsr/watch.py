"""A rank's eye on the outside: who it is, whether its launcher lives, and whether it was asked to stop."""

import os
import re
import signal
import threading
import time
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

MARK = "DSR_LAUNCH"  # the variable that names the `dsr launch` of every process of a run
SECONDS = 1.0  # between two looks

_RANK = {  # rank, ranks, rank on this host: what each launcher calls them; Slurm last, as others run under it
    "OpenMPI": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
    "MVAPICH": ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_LOCAL_RANK"),
    "Slurm": ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"),
}
_stop = False


def start() -> None:
    """Learn the rank, and from now on end this process within seconds when its parent or its `dsr launch` is gone."""
    rank_environment(os.environ)
    looking = threading.Thread(target=_look, args=(os.getppid(), os.environ.get(MARK, "")), daemon=True)
    looking.start()


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


def _look(parent: int, launcher: str) -> None:
    here = launcher.startswith(_place())  # else it is on another host, where its pid means nothing to us
    pid = int(launcher.split(":")[2]) if here else 0
    while os.getppid() == parent and (not here or mark(pid) == launcher):
        time.sleep(SECONDS)
    gone = "its launcher" if os.getppid() != parent else "dsr launch"
    os.write(2, f"rank {os.environ.get('RANK', '?')}: {gone} is gone; ending\n".encode())
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
