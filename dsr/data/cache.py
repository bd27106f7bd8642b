"""Rows of a store as they are in memory, in files of this machine that its processes share through the page cache.

Of each of the store's two fields there is one file, named after the fingerprint: a table with the xxh3_64 of every row,
0 where the row is not there, and behind it the rows. Whoever is first to read a row from the store writes it there, and
then its checksum, so that the file is valid at every moment, whoever is killed: there is nothing to finish and nothing
to wait for. A process compares each row that it finds with its checksum when it first reads it; one that is torn or
rotten is read from the store once more, and written again.

A file that was deleted stays readable for the processes that use it. Where the disk itself fails under a memory map,
the system ends the process (SIGBUS).
"""

import errno
import mmap
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dsr.files import beside, cache_folder, clean, take_lock

if TYPE_CHECKING:
    from dsr.data.store import Store

VERSION = 1  # of these files
PATIENCE = 10.0  # seconds for other processes to open theirs


def attach(store: "Store", gigabytes: float) -> str:
    """Let a store's fields be read through such files, or return why not.

    The folder, `decoded` in the user's cache, holds at most so many GB (10^9 bytes): files of other stores go, the
    least recently used first. A store that is larger is read as it is, and so is one that would fill half of the disk's
    free space.
    """
    fields = {"low": store.low, "high": store.high}
    sizes = {name: _begin(field.shape) + 4 * int(np.prod(field.shape)) for name, field in fields.items()}
    total, bound = sum(sizes.values()), int(gigabytes * 1e9)
    if total > bound:
        return f"decoded it takes {total / 1e9:.3g} GB, and dsr.data.cache is {gigabytes:g}"
    try:
        folder = cache_folder() / "decoded"
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as lock:
            if not take_lock(lock.fileno(), PATIENCE):
                return f"{folder} is locked by another process"
            paths = {name: folder / f"{store.fingerprint}-{name}.{VERSION}" for name in fields}
            clean(folder)
            if total - sum(_used(path) for path in paths.values()) > shutil.disk_usage(folder).free / 2:
                return f"it would fill more than half of what is free in {folder}"
            _make_room(folder, bound - total, {path.name for path in paths.values()} | {"lock"})
            decoded = {name: Decoded(paths[name], field.shape, sizes[name]) for name, field in fields.items()}
    except OSError as error:
        return f"no cache ({error})"
    for name, field in fields.items():
        field.decoded = decoded[name]
    return ""


class Decoded:
    """The rows of one field that are here, (row, ...) float32. Safe in threads, and after a fork."""

    def __init__(self, path: Path, shape: tuple[int, ...], size: int):
        begin = _begin(shape)
        if not path.exists() or path.stat().st_size != size:
            _create(path, begin, size)
        os.utime(path)
        self.file = path.open("r+b", buffering=0)
        memory = mmap.mmap(self.file.fileno(), size, access=mmap.ACCESS_READ)
        self.sums = np.frombuffer(memory, np.uint64, shape[0])
        self.values = np.frombuffer(memory, np.float32, offset=begin).reshape(shape)
        self.begin, self.row_bytes = begin, 4 * int(np.prod(shape[1:]))
        self.known = np.zeros(shape[0], bool)  # the rows that this process has compared with their checksums
        self.full = False

    def take(self, rows: np.ndarray, out: np.ndarray) -> bool:
        """Copy rows (n) into `out` (n, ...) if this process knows them all."""
        if not self.known[rows].all():
            return False
        np.take(self.values, rows, 0, out, mode="clip")  # any other mode copies twice
        return True

    def find(self, row: int) -> np.ndarray | None:
        """A row, read-only, or None if it is not here."""
        if not self.known[row]:
            told = int(self.sums[row])
            if not told or _checksum(self.values[row]) != told:
                return None
            self.known[row] = True
        return self.values[row]

    def keep(self, row: int, field: np.ndarray) -> None:
        """Write a row for all; nothing more is written once the disk is full."""
        if self.full:
            return
        try:
            self._write(field, self.begin + row * self.row_bytes)
            self._write(np.array([_checksum(field)], np.uint64), 8 * row)
        except OSError:
            self.full = True
        else:
            self.known[row] = True

    def _write(self, array: np.ndarray, place: int) -> None:
        if os.pwrite(self.file.fileno(), array.data, place) < array.nbytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _begin(shape: tuple[int, ...]) -> int:
    """Where the rows begin: on the first page behind the table."""
    return -(-8 * shape[0] // mmap.PAGESIZE) * mmap.PAGESIZE


def _checksum(field: np.ndarray) -> int:
    import xxhash

    return xxhash.xxh3_64_intdigest(field.data) or 1


def _create(path: Path, begin: int, size: int) -> None:
    temporary = beside(path)
    with temporary.open("wb") as file:
        file.write(bytes(begin))
        file.truncate(size)  # no place on the disk is taken yet
    temporary.replace(path)


def _used(path: Path) -> int:
    return path.stat().st_blocks * 512 if path.exists() else 0


def _make_room(folder: Path, left: int, own: set[str]) -> None:
    """Delete the least recently used files until the others than `own` take no more than `left` bytes."""
    others = sorted((path for path in folder.iterdir() if path.name not in own), key=lambda path: path.stat().st_mtime)
    total = sum(path.stat().st_size for path in others)
    for path in others:
        if total <= left:
            break
        total -= path.stat().st_size
        path.unlink()
