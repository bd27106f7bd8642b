"""Which hosts and devices are available, by hostfile, allocation or this host, and how ranks are started there."""

from __future__ import annotations

import dataclasses
import functools
import os
import re
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from dsr import components
from dsr.cluster.launchers import LAUNCHERS, Hosts, Launcher
from dsr.errors import UserError
from dsr.run.provenance import processor

CPU, CUDA, REMOTE = "CPU cores", "CUDA devices", "devices"


@dataclass(frozen=True)
class Devices:
    """The available devices: which on which host, and the launcher that starts ranks on them."""

    hosts: Hosts
    kind: str  # CPU, CUDA, or REMOTE where they are on other hosts
    launcher: Launcher = field(default_factory=functools.partial(LAUNCHERS.make, LAUNCHERS.default))
    filtered: bool = False  # the numbers were chosen, by --include, --exclude or CUDA_VISIBLE_DEVICES
    given: bool = False  # by a hostfile or an allocation, which is an error if it has fewer than what is asked
    model: str = ""  # the processor's name; "" where it is on other hosts

    @property
    def count(self) -> int:
        return sum(map(len, self.hosts.values()))

    def first(self, count: int) -> Devices:
        """The first `count` of them; on this host's CPU it may be more than there are cores."""
        if self.kind == CPU and self.launcher.here and not self.filtered:
            return dataclasses.replace(self, hosts={"localhost": list(range(count))})
        hosts = {}
        for host, numbers in self.hosts.items():
            if numbers[:count]:
                hosts[host] = numbers[:count]
            count -= len(hosts.get(host, []))
        return dataclasses.replace(self, hosts=hosts)

    def hostfile(self) -> str:
        """What DeepSpeed reads of the devices: "worker-0 slots=4" lines."""
        return "".join(f"{host} slots={max(numbers) + 1}\n" for host, numbers in self.hosts.items())

    def __str__(self) -> str:
        hosts = f" on {len(self.hosts)} hosts" if len(self.hosts) > 1 else ""
        return f"{self.count} {self.kind if self.count > 1 else self.kind.rstrip('s')}{hosts}"


def find_devices(
    hostfile: Path | None = None, launcher: str = "", include: str = "", exclude: str = "", launcher_args: str = ""
) -> Devices:
    """The devices of a hostfile, of the launcher's allocation (as Slurm's), or of this host.

    `include` and `exclude` are DeepSpeed's "HOST:0,2@HOST" filters. On CPU a device is a core that this process may
    use. Raises UserError for a hostfile, filter or launcher that cannot be.
    """
    starter = _launcher(launcher or LAUNCHERS.default, launcher_args)
    if (include or exclude) and not starter.filters:
        raise UserError(f"DeepSpeed's {starter.name} launcher takes no --include, --exclude; give --hostfile alone")
    numbers, model = _cuda_devices()
    if hostfile is not None:
        hosts = read_hostfile(hostfile)
    elif starter.here:
        hosts = {"localhost": numbers or list(range(len(os.sched_getaffinity(0))))}
    else:
        hosts = starter.allocation(os.environ)
    chosen = select(hosts, include, exclude)
    elsewhere = set(chosen) - {"localhost", "127.0.0.1", socket.gethostname()}
    if starter.here and elsewhere:
        if launcher:
            raise UserError(f"--launcher {launcher} starts ranks on this host alone, and not on {min(elsewhere)}")
        starter = _launcher("pdsh", launcher_args)
    allocated = any(LAUNCHERS.find(name).is_allocated(os.environ) for name in LAUNCHERS.table)
    if not starter.here:
        return Devices(chosen, REMOTE, starter, bool(include or exclude), given=True)
    visible = hostfile is None and numbers != list(range(len(numbers)))
    filtered, given = bool(include or exclude or visible), hostfile is not None or allocated
    return Devices(chosen, CUDA if numbers else CPU, starter, filtered, given, model or processor())


def _launcher(name: str, args: str) -> Launcher:
    """The launcher that the user named, and whose code may therefore be imported."""
    if ":" in name:
        components.allow([re.split("[.:]", name)[0]])
    return LAUNCHERS.make({"name": name if ":" in name else name.lower(), "args": args})


def read_hostfile(path: Path) -> Hosts:
    """Read lines such as "worker-0 slots=4": {host: [0, 1, 2, 3]}. Raises UserError naming the line."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--hostfile {path}: cannot be read ({error})") from None
    hosts: Hosts = {}
    for number, line in enumerate(lines, 1):
        line = line.partition("#")[0].strip()
        match = re.fullmatch(r"(\S+)\s+slots=(\d+)", line)
        if line and not match:
            raise UserError(f"--hostfile {path}, line {number}: {line!r} is not of the form: worker-0 slots=4")
        if match and match[1].startswith("-"):  # ssh and mpirun would take it for an option
            raise UserError(f"--hostfile {path}, line {number}: {match[1]} is not a host's name")
        if match and match[1] in hosts:
            raise UserError(f"--hostfile {path}, line {number}: {match[1]} is listed twice")
        if match:
            hosts[match[1]] = list(range(int(match[2])))
    if not any(hosts.values()):
        raise UserError(f"--hostfile {path} names no host")
    return hosts


def select(hosts: Hosts, include: str, exclude: str) -> Hosts:
    """Apply DeepSpeed's filters, "HOST:0,2@HOST" (a host without numbers: all of it). Raises UserError."""
    if include and exclude:
        raise UserError("--include and --exclude exclude each other")
    named: Hosts = {}
    for part in filter(None, (include or exclude).split("@")):
        host, _, numbers = part.partition(":")
        if host not in hosts:
            raise UserError(f"{part!r}: no host {host} here; there are {', '.join(hosts)}")
        if not re.fullmatch(r"(\d+(,\d+)*)?", numbers):
            raise UserError(f"{part!r} is not of the form HOST:0,1")
        named[host] = [int(n) for n in numbers.split(",")] if numbers else hosts[host]
        if missing := set(named[host]) - set(hosts[host]):
            raise UserError(f"{part!r}: {host} has no device {min(missing)}; its devices are {hosts[host]}")
    if include:
        return {host: named[host] for host in hosts if host in named}
    left = {host: [n for n in numbers if n not in named.get(host, [])] for host, numbers in hosts.items()}
    if not any(left.values()):
        raise UserError(f"--exclude {exclude} leaves no device")
    return {host: numbers for host, numbers in left.items() if numbers}


def _cuda_devices() -> tuple[list[int], str]:
    """The numbers of the CUDA devices that CUDA_VISIBLE_DEVICES lets us use, and the first one's model.

    torch is asked only if a driver is present.
    """
    drivers = (Path("/dev/nvidiactl"), Path("/dev/kfd"), Path("/dev/dxg"))
    if os.environ.get("DS_ACCELERATOR") == "cpu" or not any(driver.exists() for driver in drivers):
        return [], ""
    code = "import torch as t; n = t.cuda.device_count(); print(n, t.cuda.get_device_name(0) if n else '')"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    count, model = int(answer.split()[0]), answer.strip().partition(" ")[2]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not visible or not count:  # -1 hides all of them
        return list(range(count)), model
    if not re.fullmatch(r"\d+(,\d+)*", visible):
        raise UserError(f"CUDA_VISIBLE_DEVICES={visible}: DeepSpeed needs the devices' numbers, such as 0,1")
    return [int(number) for number in visible.split(",")][:count], model
