"""The table of launchers, and what each of them is. To add one, write its file and add its line."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from dsr.components import Component, Family
from dsr.errors import UserError

VARIABLE = "DSR_LAUNCHER"  # the variable by which a rank knows its launcher

Hosts = dict[str, list[int]]  # the numbers of the devices of each host


@dataclass(frozen=True)
class Start:
    """What a launcher has to start: `python -m MODULE ARGUMENTS`, once per device."""

    hosts: Hosts
    filtered: bool  # the devices are not simply the first ones of each host
    hostfile: Path  # lines such as "worker-0 slots=4"
    port: int  # that is free on this host
    module: str
    arguments: list[str]


class Launcher(Component):
    """How DeepSpeed starts the ranks of a run, and how they learn their numbers. A file imports no torch."""

    args: str = Field("", description="passed to the launcher's program")

    program: ClassVar[str] = ""  # by which DeepSpeed recognises that it is installed; "" where none is needed
    here: ClassVar[bool] = False  # it starts ranks on this host alone, as our descendants
    filters: ClassVar[bool] = False  # it can leave out devices: --include, --exclude
    relay: ClassVar[str] = ""  # the local process that passes SIGTERM on to ranks on other hosts
    # The variables with a rank's number, the number of ranks and the rank's number on its host, where the launcher
    # sets them and not RANK, WORLD_SIZE and LOCAL_RANK.
    rank_variables: ClassVar[tuple[str, str, str] | None] = None

    @classmethod
    def is_allocated(cls, variables: Mapping[str, str]) -> bool:
        """Whether this process runs in an allocation of the launcher's cluster, which limits what can be had."""
        return False

    def allocation(self, variables: Mapping[str, str]) -> Hosts:
        """The hosts that the launcher knows by itself, without a hostfile. Raises UserError where it knows none."""
        raise UserError(f"--launcher {self.name} needs --hostfile (lines such as: worker-0 slots=4)")

    def check(self, hosts: Hosts) -> None:
        """Raise UserError where the launcher cannot start ranks on just these devices."""

    def command(self, start: Start) -> list[str]:
        """The command that starts the ranks and ends when they have ended: DeepSpeed's launcher, with our `words`.

        A hostfile is always named: without one DeepSpeed silently reads /job/hostfile.
        """
        line = [sys.executable, "-m", "deepspeed.launcher.runner", "--quiet", "--hostfile", str(start.hostfile)]
        line += ["--master_port", str(start.port)]
        if start.filtered:
            numbers = {host: ",".join(map(str, devices)) for host, devices in start.hosts.items()}
            line += ["--include", "@".join(f"{host}:{those}" for host, those in numbers.items())]
        return [*line, *self.words(start.hosts), "--no_local_rank", *self.module(start.module), *start.arguments]

    def words(self, hosts: Hosts) -> list[str]:
        """The words of DeepSpeed's command line that choose the launcher, and where the ranks meet."""
        words = ["--force_multi", "--launcher", self.name, "--no_ssh_check", "--master_addr", next(iter(hosts))]
        return words + self.args_words()

    def args_words(self) -> list[str]:
        return [f"--launcher_args={self.args}"] if self.args else []

    def module(self, name: str) -> list[str]:
        """The words of DeepSpeed's command line that name what each rank runs."""
        return ["--module", name]

    def environment(self, variables: Mapping[str, str]) -> dict[str, str]:
        """What the command needs in its own environment besides the given variables."""
        return {}

    def variables(self, hosts: Hosts, port: int) -> dict[str, str]:
        """What every rank needs in its environment, where DeepSpeed does not say where the ranks meet."""
        return {}

    def rank(self, variables: Mapping[str, str]) -> dict[str, str]:
        """In a rank: RANK, WORLD_SIZE and LOCAL_RANK from the variables that the launcher has set."""
        names = zip(("RANK", "WORLD_SIZE", "LOCAL_RANK"), self.rank_variables or (), strict=False)
        return {ours: variables[name] for ours, name in names}

    def reason(self, code: int) -> str | None:
        """What an exit code of the command means with this launcher alone, for people; None: nothing special."""
        return None


def meeting_point(hosts: Hosts, port: int) -> dict[str, str]:
    """The variables that say where ranks meet: on the first host."""
    return {"MASTER_PORT": str(port), "MASTER_ADDR": next(iter(hosts))}


LAUNCHERS = Family(
    "launcher",
    "--launcher",
    Launcher,
    {
        "local": "dsr.cluster.launchers.local:Local",
        "pdsh": "dsr.cluster.launchers.pdsh:Pdsh",
        "openmpi": "dsr.cluster.launchers.openmpi:OpenMPI",
        "slurm": "dsr.cluster.launchers.slurm:Slurm",
        "mpich": "dsr.cluster.launchers.mpich:MPICH",
        "impi": "dsr.cluster.launchers.impi:IntelMPI",
        "mvapich": "dsr.cluster.launchers.mvapich:MVAPICH",
    },
    default="local",
)
