"""Files at URLs: a local copy of each, kept until this process ends."""

import hashlib
import tempfile
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dsr.errors import first_line
from dsr.urls import without_credentials


def cached(system: Any, path: str) -> Path:
    """A local copy of a remote file, for libraries that read only local files; it is removed when the process ends.

    `system` and `path` are those of fsspec.core.url_to_fs: the copy belongs to one host, user, path and query, and
    keeps the file's name. Raises OSError if the file cannot be downloaded completely.
    """
    name = Path(urlsplit(path).path).name[-100:] or "file"
    copy = Path(copies().name, hashlib.sha256(f"{hash(system)} {path}".encode()).hexdigest(), name)
    if not copy.exists():
        copy.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=copies().name) as temporary:
            part = Path(temporary, name)
            try:
                system.get_file(path, str(part))
            except Exception as error:
                raise OSError(
                    f"{without_credentials(path)}: cannot be downloaded ({without_credentials(first_line(error))})"
                ) from None
            part.replace(copy)
    return copy


@cache
def copies() -> tempfile.TemporaryDirectory:
    """The folder of downloaded and unpacked files; it is removed when the process ends."""
    return tempfile.TemporaryDirectory(prefix="dsr-")
