"""The files of a store and their checksums: what is read is what was written, or an error says which file is not.

`manifest.json` names every Zarr file of the store with its xxh3_128 checksum and its size. The store's fingerprint is
the SHA-256 of that file; it stands in `SHA256SUMS` (as `sha256sum -c` reads it), beside that of `provenance.json`,
which tells where the data came from and is no part of the fingerprint.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dsr.data.source import Source
from dsr.errors import Missing, UserError
from dsr.urls import cleaned

FORMAT = 2  # of a store; 1 had no manifest
SUMS, MANIFEST, PROVENANCE = "SHA256SUMS", "manifest.json", "provenance.json"


class Changed(UserError):
    """The store was replaced, or grew, after it was opened."""


def checksum(content: bytes) -> str:
    """The xxh3_128 of some bytes (hexadecimal) and their number, as the manifest has it."""
    import xxhash

    return f"{xxhash.xxh3_128_hexdigest(content)} {len(content)}"


def write_manifest(folder: Path, sums: Mapping[str, str], provenance: dict[str, Any]) -> str:
    """Write the three files; return the fingerprint. `sums`: the `checksum` of every other file, by its name."""
    texts = {
        MANIFEST: json.dumps(dict(sorted(sums.items())), indent=0) + "\n",
        PROVENANCE: json.dumps(cleaned(provenance), indent=2) + "\n",
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    digests = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}
    (folder / SUMS).write_text("".join(f"{digest}  {name}\n" for name, digest in digests.items()))
    return digests[MANIFEST]


class Files:
    """The files of one store, read-only and verified. Safe in threads and after a fork.

    Raises UserError if `path` (a folder, or a URL that fsspec knows) holds no store of this format, OSError where a
    remote one cannot be read.
    """

    def __init__(self, path: Path | str):
        self.path = path
        self.remote = isinstance(path, str)
        self._get = Source(path).get if isinstance(path, str) else _local(path)
        _check_format(path, self._get("zarr.json"))
        self._sums = self._get(SUMS)
        lines = (self._sums or b"").decode(errors="replace").splitlines()
        listed = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
        texts = {}
        for name in (MANIFEST, PROVENANCE):
            content = self._get(name)
            if content is None or hashlib.sha256(content).hexdigest() != listed.get(name):
                raise self.wrong(name)
            texts[name] = json.loads(content)
        self.fingerprint: str = listed[MANIFEST]
        self.sums: dict[str, str] = texts[MANIFEST]
        self.provenance: dict[str, Any] = texts[PROVENANCE]

    def read(self, name: str, what: Callable[[], str] | None = None) -> bytes:
        """A file's bytes. Raises UserError, calling it `what()`, where they are not those that were written."""
        content = self._get(name)
        if content is None or checksum(content) != self.sums.get(name):
            raise self.wrong(what() if what else name)
        return content

    def wrong(self, what: str) -> UserError:
        """The error for a file that is not as the manifest says."""
        if self._get(SUMS) != self._sums:
            return Changed(f"{self.path}: the store has changed since it was opened: open it again")
        return UserError(f"{self.path}: {what} is not what was written (edited or rotten): prepare the store again")


def _local(folder: Path) -> Callable[[str], bytes | None]:
    def get(name: str) -> bytes | None:
        try:
            with open(f"{folder}/{name}", "rb", buffering=0) as file:  # noqa: PTH123  (Path is slower)
                return file.readall()
        except (FileNotFoundError, NotADirectoryError):
            return None

    return get


def _check_format(path: Path | str, metadata: bytes | None) -> None:
    if metadata is None:
        raise Missing(f"{path}: no store there (make one with `dsr data prepare` or `dsr data simulate`)")
    try:
        found = json.loads(metadata)["attributes"]["dsr_store"]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path}: not a dsr store (make one with `dsr data prepare`)") from None
    if found != FORMAT:
        remedy = "update dsr" if isinstance(found, int) and found > FORMAT else "prepare it again"
        raise UserError(f"{path}: a store of format {found}, and this dsr reads format {FORMAT}: {remedy}")
