"""MPICH's mpirun; DeepSpeed sets each rank's variables itself."""

from typing import ClassVar

from dsr.cluster.launchers import Launcher


class MPICH(Launcher):
    program: ClassVar[str] = "mpirun"
    relay: ClassVar[str] = "mpirun"
