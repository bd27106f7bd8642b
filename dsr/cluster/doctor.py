"""What this machine has for dsr, what is missing, and whose the command `dsr` is (mended where it was taken)."""

import platform
import shutil
import sysconfig
from importlib import metadata
from pathlib import Path
from typing import Any

from dsr.cluster.devices import find_devices
from dsr.cluster.launchers import LAUNCHERS
from dsr.cluster.processes import THREADS
from dsr.run.provenance import environment

SCRIPT = """\
import sys

from dsr.cli import main

if __name__ == "__main__":
    sys.exit(main())
"""


def examine() -> Any:
    """A table of accelerator, backends, launchers, versions and the name of the command, mended where it was taken."""
    import torch.distributed as dist
    from rich.table import Table

    devices = find_devices()
    machine = environment(str(devices), devices.model, THREADS, "")
    backends = {"gloo": dist.is_gloo_available(), "nccl": dist.is_nccl_available(), "mpi": dist.is_mpi_available()}
    programs = {name: LAUNCHERS.find(name).program for name in LAUNCHERS.table}  # that DeepSpeed looks for
    installed = {name: shutil.which(program) is not None for name, program in programs.items() if program}
    table = Table(show_header=False, box=None)
    table.add_row("devices", f"{machine['devices']}; {machine['device']}; {THREADS} thread per rank")
    table.add_row("backends", _yes_no(backends))
    table.add_row("launchers", _yes_no(installed))
    table.add_row("python", f"{platform.python_version()}, {machine['system']}")
    table.add_row("versions", ", ".join(f"{name} {version}" for name, version in machine["packages"].items()))
    for line in out_of_range():
        table.add_row("", line)
    if machine["packages"]["dsr"] is None:
        table.add_row("command dsr", "dsr runs from a checkout that is not installed; `python -m dsr` is the command")
    else:
        table.add_row("command dsr", own_command(Path(sysconfig.get_path("scripts"))))
    return table


def own_command(scripts: Path) -> str:
    """Say whose the script `dsr` in a folder is; where DeepSpeed's of the same name took its place, put ours back.

    DeepSpeed installs an alias of its `ds_report` by that name, so that its upgrade takes the name from us.
    """
    script = scripts / "dsr"
    if not script.exists():
        return f"not in {scripts}; `python -m dsr` is the same command"
    text = script.read_text(errors="replace")
    first = shutil.which("dsr")
    elsewhere = f"; but your shell finds {first} first" if first and not Path(first).samefile(script) else ""
    if "dsr.cli" in text:
        return f"{script} is ours{elsewhere}"
    if "deepspeed" not in text:
        return f"{script} belongs to another program; `python -m dsr` is ours"
    shebang = text.partition("\n")[0]
    try:
        script.write_text(f"{shebang}\n{SCRIPT}")
    except OSError as error:
        return f"{script} is DeepSpeed's, and cannot be mended ({error.strerror}); `python -m dsr` is ours"
    return f"{script} was DeepSpeed's; mended, it is ours again{elsewhere}"


def out_of_range() -> list[str]:
    """One line for each library that is missing, or not in the range that dsr was tested with."""
    from packaging.requirements import Requirement

    try:
        wanted = [Requirement(line) for line in metadata.requires("dsr") or []]
    except metadata.PackageNotFoundError:
        return []
    lines = []
    for requirement in wanted:
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            lines.append(f"{requirement.name} is missing")
        else:
            if not requirement.specifier.contains(version, prereleases=True):
                lines.append(f"{requirement.name} {version} is not in the tested range {requirement.specifier}")
    return lines


def _yes_no(there: dict[str, bool]) -> str:
    return ", ".join(name if yes else f"no {name}" for name, yes in there.items())
