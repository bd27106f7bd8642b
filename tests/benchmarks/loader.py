"""What reading a batch of a store costs: verified reads against tensorstore's, and against reads that check nothing."""

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore
import zarr
from numcodecs import blosc

from dsr.data.fields import CODECS, Chunks, Fields, chunk_name
from dsr.data.manifest import Files, checksum, write_manifest
from tests.benchmarks.engine import ratio_case

BATCH, ROWS, REPEATS = 16, 200, 300
SHAPES = {"ERA5 UK, 3 x 32 x 48": (3, 32, 48), "built-in data, 5 x 96 x 96": (5, 96, 96)}
Read = Callable[[np.ndarray], np.ndarray]


def cases(device: str) -> Iterator[dict[str, Any]]:
    """Every case of the table, measured with a warm cache."""
    for name, shape in SHAPES.items():
        with tempfile.TemporaryDirectory() as folder:
            fields = make(Path(folder), (ROWS, *shape))
            found = measure({"ours": fields.__getitem__, "tensorstore": other(fields), "unchecked": unchecked(fields)})
            yield ratio_case(f"verified read against tensorstore, {name}", found["ours"], found["tensorstore"], 1.00)
            cost = ratio_case(f"verified read against an unverified one, {name}", found["ours"], found["unchecked"], 0)
            yield {**cost, "goal": "none", "holds": None, "reason": "for comparison"}


def make(folder: Path, shape: tuple[int, ...]) -> Fields:
    """A field of random walks along x, which compress as weather does."""
    group = zarr.open_group(folder, mode="w", zarr_format=3, attributes={"dsr_store": 2})
    given: dict[str, Any] = {"serializer": CODECS[0], "compressors": CODECS[1:], "fill_value": float("nan")}
    group.create_array("field", shape=shape, chunks=(1, *shape[1:]), dtype="float32", **given)
    sums: dict[str, str] = {}
    random, chunks = np.random.default_rng(0), Chunks(folder, "field", shape, sums)
    for row in range(shape[0]):
        chunks[row] = 280 + random.normal(size=shape[1:]).cumsum(-1)
    write_manifest(
        folder, sums | {n: checksum((folder / n).read_bytes()) for n in ("zarr.json", "field/zarr.json")}, {}
    )
    return Fields(Files(folder), "field", str)


def other(fields: Fields) -> Read:
    place = {"driver": "file", "path": f"{fields.files.path}/{fields.name}/"}
    array = tensorstore.open({"driver": "zarr3", "kvstore": place}, read=True).result()
    return lambda rows: array[rows].read().result()


def unchecked(fields: Fields) -> Read:
    def read(rows: np.ndarray) -> np.ndarray:
        result = np.empty((len(rows), *fields.shape[1:]), np.float32)
        for row, field in zip(rows.tolist(), result, strict=True):
            content = fields.files._get(chunk_name(fields.name, row, len(fields.shape)))
            assert content is not None
            blosc.decompress(content, field)
        return result

    return read


def measure(reads: dict[str, Read]) -> dict[str, list[float]]:
    """Seconds of every batch, interleaved."""
    random = np.random.default_rng(1)
    found: dict[str, list[float]] = {name: [] for name in reads}
    for turn in range(REPEATS):
        rows = random.integers(0, ROWS, BATCH)
        order = list(reads.items())
        for name, read in order[turn % len(order) :] + order[: turn % len(order)]:  # the first finds a cold cache
            begun = time.perf_counter()
            read(rows)
            found[name].append(time.perf_counter() - begun)
    return found
