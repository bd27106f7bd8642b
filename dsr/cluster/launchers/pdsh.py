"""Hosts that are reachable by ssh, through pdsh."""

from collections.abc import Mapping
from typing import ClassVar

from dsr.cluster.launchers import Hosts, Launcher

KEEP_ALIVE = "-oServerAliveInterval=10 -oServerAliveCountMax=3"  # a dead link ends its ssh in half a minute, not never


class Pdsh(Launcher):
    program: ClassVar[str] = "pdsh"
    filters: ClassVar[bool] = True

    def words(self, hosts: Hosts) -> list[str]:
        return ["--force_multi", "--launcher", "pdsh", *self.args_words()]

    def environment(self, variables: Mapping[str, str]) -> dict[str, str]:
        given = variables.get("PDSH_SSH_ARGS_APPEND", "")
        return {"PDSH_SSH_ARGS_APPEND": f"{KEEP_ALIVE} {given}".strip()}

    def reason(self, code: int) -> str | None:
        return "ssh could not reach a host, or lost it (exit code 255)" if code == 255 else None
