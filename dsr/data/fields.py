"""The chunks of a store's fields: one row each, compressed; written here and verified at every read."""

import json
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import zarr.abc.store
from numcodecs import Blosc, blosc
from zarr.codecs import BloscCodec, BytesCodec

from dsr.data.cache import Decoded
from dsr.data.codecs import refuse_pickle
from dsr.data.manifest import Files, checksum
from dsr.errors import UserError

CODECS = (BytesCodec(endian="little"), BloscCodec(typesize=4, cname="zstd", clevel=3, shuffle="shuffle"))
COMPRESSOR = Blosc("zstd", clevel=3, shuffle=Blosc.SHUFFLE)
FAST = (CODECS[0], BloscCodec(typesize=4, cname="lz4", clevel=5, shuffle="shuffle"))  # larger, but faster to decode
FAST_COMPRESSOR = Blosc("lz4", clevel=5, shuffle=Blosc.SHUFFLE)
AT_ONCE = 8  # concurrent requests to a remote store
blosc.use_threads = False  # with threads, the order of blocks in a chunk would vary


def chunk_name(array: str, row: int, dimensions: int) -> str:
    """The file of one row, as Zarr names it."""
    return f"{array}/c/{row}" + "/0" * (dimensions - 1)


class Fields:
    """(row, ...) float32: `fields[rows]` reads rows by an index, a slice or an array of indices.

    Raises UserError, with `valid_time(row)`, if a chunk is not what was written.
    """

    def __init__(self, files: Files, name: str, valid_time: Callable[[int], str]):
        metadata = json.loads(files.read(f"{name}/zarr.json"))
        self.files, self.name, self.valid_time = files, name, valid_time
        self.shape = tuple(metadata["shape"])
        self.decoded: Decoded | None = None
        self._rows = np.arange(self.shape[0])
        grid = {"name": "regular", "configuration": {"chunk_shape": [1, *self.shape[1:]]}}
        codecs = [[codec.to_dict() for codec in known] for known in (CODECS, FAST)]
        layout = (metadata["data_type"], metadata["chunk_grid"])
        if layout != ("float32", grid) or metadata["codecs"] not in codecs:
            raise UserError(f"{files.path}: {name} does not have the layout that dsr writes: prepare the store again")

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> np.ndarray:
        chosen = self._rows[rows]
        result = np.empty((*chosen.shape, *self.shape[1:]), np.float32)
        self.read(chosen.ravel(), result.reshape(-1, *self.shape[1:]))
        return result

    def read(self, rows: np.ndarray, out: np.ndarray, parts: Sequence[Any] | None = None) -> None:
        """Copy rows (n, not negative) into `out` (n, ...); with `parts` (n indices), copy that part of each row.

        A row that occurs more than once is decoded once.
        """
        if parts is None and self.decoded is not None and self.decoded.take(rows, out):
            return
        places: dict[int, list[int]] = {}
        for place, row in enumerate(rows.tolist()):
            places.setdefault(row, []).append(place)

        def copy(row: int) -> None:
            if parts is not None:
                field = self._field(row, None)
                for place in places[row]:
                    out[place] = field[parts[place]]
                return
            first, *others = places[row]
            self._field(row, out[first])
            for place in others:
                out[place] = out[first]

        if self.files.remote:
            with ThreadPoolExecutor(AT_ONCE) as pool:
                deque(pool.map(copy, places), 0)
        else:
            deque(map(copy, places), 0)

    def _field(self, row: int, out: np.ndarray | None) -> np.ndarray:
        """One row, in `out` if that is given; otherwise read-only."""
        found = None if self.decoded is None else self.decoded.find(row)
        if found is not None:
            if out is None:
                return found
            out[...] = found
            return out

        def what() -> str:
            return f"row {row} of {self.name} (valid {self.valid_time(row)})"

        field = np.empty(self.shape[1:], np.float32) if out is None else out
        blosc.decompress(self.files.read(chunk_name(self.name, row, len(self.shape)), what), field)
        if self.decoded is not None:
            self.decoded.keep(row, field)
        return field


class Chunks:
    """The same rows for writing, `chunks[row] = field`, in any order; `sums` collects the checksum of each file."""

    def __init__(self, folder: Path, name: str, shape: tuple[int, ...], sums: dict[str, str]):
        self.folder, self.name, self.shape, self.sums = folder, name, shape, sums

    def __setitem__(self, row: int, field: Any) -> None:
        if not 0 <= row < self.shape[0]:
            raise IndexError(f"row {row} of {self.name}, which has {self.shape[0]}")
        values = np.broadcast_to(np.asarray(field, np.float32), self.shape[1:])
        content = COMPRESSOR.encode(np.ascontiguousarray(values))
        name = chunk_name(self.name, int(row), len(self.shape))
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(".partial")
        partial.write_bytes(content)
        partial.replace(path)
        self.sums[name] = checksum(content)

    def absent(self) -> int | None:
        """The first row that was not written."""
        names = (chunk_name(self.name, row, len(self.shape)) for row in range(self.shape[0]))
        return next((row for row, name in enumerate(names) if name not in self.sums), None)


class VerifiedStore(zarr.abc.store.Store):
    """The same files for Zarr and xarray: read-only, listed in the manifest, each verified when it is read."""

    supports_writes = supports_deletes = supports_partial_writes = False
    supports_listing = True

    def __init__(self, files: Files):
        super().__init__(read_only=True)
        self.files = files

    def __eq__(self, other: object) -> bool:
        return isinstance(other, VerifiedStore) and self.files is other.files

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        if key not in self.files.sums:
            return None
        if byte_range is not None:
            raise NotImplementedError("a part of a file cannot be verified")
        content = self.files.read(key)
        refuse_pickle(self.files.path, key, content)
        return prototype.buffer.from_bytes(content)

    async def get_partial_values(self, prototype: Any, key_ranges: Iterable[tuple[str, Any]]) -> list[Any]:
        return [await self.get(key, prototype, byte_range) for key, byte_range in key_ranges]

    async def exists(self, key: str) -> bool:
        return key in self.files.sums

    async def set(self, key: str, value: Any) -> None:
        raise NotImplementedError

    async def delete(self, key: str) -> None:
        raise NotImplementedError

    async def list(self) -> AsyncIterator[str]:
        for name in self.files.sums:
            yield name

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        for name in self.files.sums:
            if name.startswith(prefix):
                yield name

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        inside = prefix.rstrip("/") + "/" if prefix else ""
        names = {name[len(inside) :].partition("/")[0] for name in self.files.sums if name.startswith(inside)}
        for name in sorted(names):
            yield name
