"""Files at URLs: a local copy of each for this process, and what of a URL may be written down."""

import hashlib
import re
import tempfile
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dsr.errors import first_line

# up to the last @ before the path; the second form is of a password in which / ? or # stand unescaped
USER = re.compile(r"([a-z][a-z0-9+.-]*://)([^/?#\s]*|[^/@\s:]+:(?!\d+[/?#])[^@\s]*)@", re.IGNORECASE)
CONTAINERS = ("abfs://", "abfss://", "wasb://", "wasbs://")  # Azure's container@account is no user
QUERY = re.compile(r"(://[^\s?#\"<>]*)([?#])([^\s\"<>]*?)(?=[:,.;)']*(?:[\s\"<>]|$))")
SECRET = re.compile(r"sig|tok|key|pass|pwd|secret|auth|cred|x-amz-|x-goog-", re.IGNORECASE)  # in a parameter's name


def without_credentials(text: str) -> str:
    """The text, with every URL in it without user and password, and without a query's keys, tokens and signatures."""
    return QUERY.sub(_public_query, USER.sub(_public_user, text))


def cleaned(value: Any) -> Any:
    """A JSON value with `without_credentials` of every text in it."""
    if isinstance(value, str):
        return without_credentials(value)
    if isinstance(value, dict):
        return {key: cleaned(one) for key, one in value.items()}
    return [cleaned(one) for one in value] if isinstance(value, list | tuple) else value


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


def _public_user(match: re.Match[str]) -> str:
    scheme, user = match[1], match[2]
    return match[0] if scheme.lower() in CONTAINERS and ":" not in user else scheme


def _public_query(match: re.Match[str]) -> str:
    parts = re.split("[&;?#]", match[3])
    kept = [part for part in parts if not SECRET.search(part.partition("=")[0])]
    return match[0] if len(kept) == len(parts) else match[1] + (match[2] + "&".join(kept) if kept else "")
