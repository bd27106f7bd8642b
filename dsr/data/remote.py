"""Files at URLs: a local copy of each, for as long as this process lives."""

import hashlib
import tempfile
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dsr.errors import first_line
from dsr.urls import without_credentials


def cached(system: Any, path: str) -> Path:
    """A local copy of a remote file, for the libraries that read only local ones; it goes when the process ends.

    `system` and `path` as fsspec.core.url_to_fs gives them: the copy is of this host, user, path and query alone, and
    keeps the file's name. Raises OSError where the file cannot be fetched whole.
    """
    name = Path(urlsplit(path).path).name[-100:] or "file"
    copy = Path(copies().name, hashlib.sha256(f"{hash(system)} {path}".encode()).hexdigest(), name)
    if not copy.exists():
        copy.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=copies().name) as beside:
            part = Path(beside, name)
            try:
                system.get_file(path, str(part))
            except Exception as error:
                raise OSError(
                    f"{without_credentials(path)}: cannot be fetched ({without_credentials(first_line(error))})"
                ) from None
            part.replace(copy)
    return copy


@cache
def copies() -> tempfile.TemporaryDirectory:
    """The folder of files that were fetched or unpacked; it goes when the process ends."""
    return tempfile.TemporaryDirectory(prefix="dsr-")
