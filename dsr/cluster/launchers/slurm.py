"""A Slurm allocation, by srun."""

import re
import shutil
import subprocess
from collections.abc import Mapping
from typing import ClassVar

from dsr.cluster.launchers import Hosts, Launcher
from dsr.errors import UserError


class Slurm(Launcher):
    program: ClassVar[str] = "sinfo"
    filters: ClassVar[bool] = True
    relay: ClassVar[str] = "srun"
    rank_variables: ClassVar[tuple[str, str, str] | None] = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID")

    @classmethod
    def is_allocated(cls, variables: Mapping[str, str]) -> bool:
        return "SLURM_JOB_ID" in variables

    def allocation(self, variables: Mapping[str, str]) -> Hosts:
        """The hosts of this allocation, with one device per task."""
        if "SLURM_JOB_NODELIST" not in variables:
            raise UserError("--launcher slurm needs an allocation (sbatch, salloc) or --hostfile")
        if not shutil.which("scontrol"):
            raise UserError("--launcher slurm: scontrol is not installed")
        show = ["scontrol", "show", "hostnames", variables["SLURM_JOB_NODELIST"]]
        names = subprocess.run(show, capture_output=True, text=True, check=True).stdout.split()
        tasks = re.findall(r"(\d+)(?:\(x(\d+)\))?", variables.get("SLURM_TASKS_PER_NODE", "1"))  # 4(x2),1
        counts = [int(count) for count, times in tasks for _ in range(int(times or 1))]
        return {name: list(range(count)) for name, count in zip(names, counts, strict=True)}

    def check(self, hosts: Hosts) -> None:
        if len({len(numbers) for numbers in hosts.values()}) > 1:
            count = sum(map(len, hosts.values()))
            raise UserError(f"Slurm needs as many devices on every host; {count} fill the hosts unevenly")

    def module(self, name: str) -> list[str]:
        """DeepSpeed drops --module under Slurm, and passes these words to srun unchanged."""
        return ["--", "-m", name]

    def variables(self, hosts: Hosts, port: int) -> dict[str, str]:
        return {"MASTER_PORT": str(port)}

    def rank(self, variables: Mapping[str, str]) -> dict[str, str]:
        """Also MASTER_ADDR: only srun knows which of the hosts it took first."""
        nodes = variables.get("SLURM_STEP_NODELIST") or variables.get("SLURM_JOB_NODELIST")
        return {**super().rank(variables), **({"MASTER_ADDR": first_host(nodes)} if nodes else {})}


def first_host(nodes: str) -> str:
    """The first host of a Slurm node list: "gpu[07-09,12],login" -> "gpu07"."""
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])+", nodes)
    return re.sub(r"\[(\w+)[^\]]*\]", r"\1", first.group() if first else nodes)
