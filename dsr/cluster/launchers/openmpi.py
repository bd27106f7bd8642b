"""Open MPI's mpirun."""

from typing import ClassVar

from dsr.cluster.launchers import Hosts, Launcher, meeting_point


class OpenMPI(Launcher):
    program: ClassVar[str] = "ompi_info"
    relay: ClassVar[str] = "mpirun"
    rank_variables: ClassVar[tuple[str, str, str] | None] = (
        "OMPI_COMM_WORLD_RANK",
        "OMPI_COMM_WORLD_SIZE",
        "OMPI_COMM_WORLD_LOCAL_RANK",
    )

    def variables(self, hosts: Hosts, port: int) -> dict[str, str]:
        return meeting_point(hosts, port)
