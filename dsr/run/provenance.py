"""What a run was made with: versions, sources, devices, command; and what of it has changed when it is resumed."""

from __future__ import annotations

import contextlib
import hashlib
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from dsr.components import source

ARITHMETIC = ("dsr", "deepspeed", "torch", "numpy")  # the packages whose versions may change a run's bits


def environment(
    devices: str, model: str, threads: int, fingerprint: str, packages: Iterable[str] = ()
) -> dict[str, Any]:
    """The content of environment.json.

    `devices` and `model` describe the devices and name their kind, `threads` is the number per rank, `fingerprint` is
    the store's, and `packages` are those outside dsr that the run's components come from.
    """
    from dsr.urls import cleaned

    return {
        "python": platform.python_version(),
        "packages": {name: version(name) for name in (*ARITHMETIC, "xarray", "zarr", "safetensors")},
        "sources": sources(),
        "components": {package: source(package) for package in packages},
        "host": platform.node(),
        "system": platform.platform(),
        "devices": devices,
        "device": model,
        "threads": threads,
        "fingerprint": fingerprint,
        "commit": _commit(),
        "command": cleaned(sys.argv),
    }


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """The differences between two `environment`s that would change a run's bits, in words for people."""
    differences = []
    if before.get("fingerprint") != after["fingerprint"]:
        differences.append("the store's content")
    for name in ARITHMETIC:
        old, new = before.get("packages", {}).get(name), after["packages"][name]
        if old != new:
            differences.append(f"{name} ({old}, now {new})")
    if before.get("sources") != after["sources"]:
        differences.append("dsr's own code")
    for package, now in after["components"].items():
        if before.get("components", {}).get(package, now)["sha256"] != now["sha256"]:
            differences.append(f"the code of {package}")
    for key, what in (("device", "the kind of device"), ("threads", "the number of threads")):
        if before.get(key) != after[key]:
            differences.append(f"{what} ({before.get(key)}, now {after[key]})")
    return differences


def version(package: str) -> str | None:
    """The installed version of a package; None where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def sources() -> str:
    """The SHA-256 over dsr's own Python files, names and bytes, in the order of their paths."""
    package, digest = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def processor() -> str:
    """The model of this host's CPU and its widest vectors, where Linux knows them: other vectors give other sums."""
    fields = {"model name": platform.processor(), "flags": ""}
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().partition("\n\n")[0].splitlines()
        fields |= {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    widest = next((flag for flag in ("avx512f", "avx2") if flag in fields["flags"].split()), "")
    return " ".join(filter(None, (fields["model name"], widest)))


def _commit() -> str | None:
    """The commit of the checkout that dsr runs from, with "-dirty" where it was changed; None where it is installed."""
    checkout = Path(__file__).parents[2]
    if not (checkout / ".git").exists() or shutil.which("git") is None:
        return None
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip() or None
