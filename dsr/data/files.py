"""From paths, globs and URLs to local files: remote files are downloaded, compressed files unpacked."""

import bz2
import gzip
import lzma
import shutil
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from dsr.data.remote import cached, copies
from dsr.errors import Missing, UserError, first_line
from dsr.urls import without_credentials

UNPACK: dict[bytes, Any] = {b"BZh": bz2.open, b"\x1f\x8b": gzip.open, b"\xfd7zXZ": lzma.open}


class File(NamedTuple):
    """One file or Zarr group: the name for messages, and the path that libraries read."""

    name: str
    path: str


def find(patterns: Sequence[str], root: Path | None = None) -> list[File]:
    """Every file that the `patterns` name (relative ones in `root`), each once, in the order of their names.

    NetCDF and GRIB libraries read only local files, so remote files are downloaded into a folder that is removed when
    the process ends; a remote Zarr group is read in place. Raises UserError: no such file, or unreachable.
    """
    files = [file for pattern in patterns for file in _matching(pattern, root)]
    return list(dict.fromkeys(files))


def _matching(pattern: str, root: Path | None) -> Iterator[File]:
    import fsspec

    full = str(root / pattern) if root is not None and "://" not in pattern else pattern
    shown = without_credentials(full)
    try:
        system, path = fsspec.core.url_to_fs(full)
        paths = sorted(map(str, system.glob(path))) if fsspec.core.has_magic(path) else [path]
        if not paths or not system.exists(paths[0]):
            raise Missing(f"{shown}: no such file")
        local = "file" in system.protocol
        for entry in paths:
            url = entry if local else system.unstrip_protocol(entry)
            if system.isdir(entry):
                if not _is_zarr(system, entry):
                    raise UserError(
                        f"{entry}: is a folder but not a Zarr group; name the files in it, such as '{entry}/*.nc'"
                    )
                yield File(without_credentials(url), url)
            else:
                yield File(without_credentials(url), _unpacked(entry if local else str(cached(system, entry))))
    except (ImportError, ValueError, OSError) as error:
        raise UserError(f"{shown}: cannot be reached ({without_credentials(first_line(error))})") from error


def _is_zarr(system: Any, path: str) -> bool:
    return any(system.exists(f"{path}/{name}") for name in ("zarr.json", ".zgroup", ".zmetadata"))


def _unpacked(path: str) -> str:
    """The path itself, or that of the unpacked copy."""
    with Path(path).open("rb") as file:
        start = file.read(6)
    unpack = next((opener for magic, opener in UNPACK.items() if start.startswith(magic)), None)
    if unpack is None:
        return path
    copy = Path(copies().name) / f"{sha256(path.encode()).hexdigest()[:16]}-{Path(path).stem}"
    if not copy.exists():
        try:
            with unpack(path) as packed, copy.open("wb") as out:
                shutil.copyfileobj(packed, out)
        except (OSError, EOFError) as error:
            copy.unlink(missing_ok=True)
            raise UserError(f"{path}: cannot be unpacked ({first_line(error)}): is the file whole?") from error
    return str(copy)
