"""A cache of decoded rows: files on a local disk that all processes of a host map into memory.

Each of a store's two fields has one file, named by the store's fingerprint: a table with the xxh3_64 of every row (0 if
the row is absent), followed by the rows. The process that first reads a row from the store writes the row and then its
checksum, so the file is valid at all times, even if a process is killed: nothing has to be completed or waited for.
A process verifies each row at its first read; a torn or corrupt row is read from the store and written again.

A deleted file stays readable for the processes that have opened it. If the disk fails under a memory map, the system
ends the process (SIGBUS).
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
    """Read a store's fields through the cache from now on, or return the reason why it is not used.

    The folder `decoded` in the user's cache folder is limited to `gigabytes` (10^9 bytes): files of other stores are
    deleted, least recently used first. A store that exceeds the limit, or half of the free disk space, is not cached.
    """
    fields = {"low": store.low, "high": store.high}
    sizes = {name: _begin(field.shape) + 4 * int(np.prod(field.shape)) for name, field in fields.items()}
    total, bound = sum(sizes.values()), int(gigabytes * 1e9)
    if total > bound:
        return f"decoded, it needs {total / 1e9:.3g} GB, and dsr.data.cache is {gigabytes:g}"
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
    """The cached rows of one field, (row, ...) float32. Safe in threads and after a fork."""

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
        self.known = np.zeros(shape[0], bool)  # rows that this process has verified
        self.full = False

    def take(self, rows: np.ndarray, out: np.ndarray) -> bool:
        """Copy rows (n) into `out` (n, ...); False if this process has not verified all of them."""
        if not self.known[rows].all():
            return False
        np.take(self.values, rows, 0, out, mode="clip")  # any other mode copies twice
        return True

    def find(self, row: int) -> np.ndarray | None:
        """A verified row, read-only; None if it is absent or corrupt."""
        if not self.known[row]:
            told = int(self.sums[row])
            if not told or _checksum(self.values[row]) != told:
                return None
            self.known[row] = True
        return self.values[row]

    def keep(self, row: int, field: np.ndarray) -> None:
        """Write a row; once that fails, as on a full disk, no more rows are written."""
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
    """The offset of the first row: the first page after the table."""
    return -(-8 * shape[0] // mmap.PAGESIZE) * mmap.PAGESIZE


def _checksum(field: np.ndarray) -> int:
    import xxhash

    return xxhash.xxh3_64_intdigest(field.data) or 1


def _create(path: Path, begin: int, size: int) -> None:
    temporary = beside(path)
    with temporary.open("wb") as file:
        file.write(bytes(begin))
        file.truncate(size)  # sparse: no disk space is used yet
    temporary.replace(path)


def _used(path: Path) -> int:
    return path.stat().st_blocks * 512 if path.exists() else 0


def _make_room(folder: Path, left: int, own: set[str]) -> None:
    """Delete the least recently used files until those not in `own` take at most `left` bytes."""
    others = sorted((path for path in folder.iterdir() if path.name not in own), key=lambda path: path.stat().st_mtime)
    total = sum(path.stat().st_size for path in others)
    for path in others:
        if total <= left:
            break
        total -= path.stat().st_size
        path.unlink()
