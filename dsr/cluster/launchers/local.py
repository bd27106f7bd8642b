"""This host alone, by DeepSpeed's own launcher."""

from typing import ClassVar

from dsr.cluster.launchers import Hosts, Launcher


class Local(Launcher):
    here: ClassVar[bool] = True
    filters: ClassVar[bool] = True

    def words(self, hosts: Hosts) -> list[str]:
        return ["--no_ssh_check", "--master_addr", "127.0.0.1"]
