"""MVAPICH2's mpirun."""

from typing import ClassVar

from dsr.cluster.launchers import Hosts, Launcher, meeting_point


class MVAPICH(Launcher):
    program: ClassVar[str] = "mpiname"
    relay: ClassVar[str] = "mpirun"
    rank_variables: ClassVar[tuple[str, str, str] | None] = (
        "MV2_COMM_WORLD_RANK",
        "MV2_COMM_WORLD_SIZE",
        "MV2_COMM_WORLD_LOCAL_RANK",
    )

    def variables(self, hosts: Hosts, port: int) -> dict[str, str]:
        return meeting_point(hosts, port)
