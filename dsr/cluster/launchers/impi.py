"""Intel MPI's mpirun; DeepSpeed sets each rank's variables itself."""

from typing import ClassVar

from dsr.cluster.launchers import Launcher


class IntelMPI(Launcher):
    program: ClassVar[str] = "mpirun"
    relay: ClassVar[str] = "mpirun"
