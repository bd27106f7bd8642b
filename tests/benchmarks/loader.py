"""What a batch costs that training reads: from a store, from its decoded rows, as patches; against peers and limits.

Every peer reads the same files and gets the same rows, in a full shuffle, and takes turns with the others; the cache of
pages is warm. Peers that need an environment of their own read in a process of the Python that DSR_PEERS names.
"""

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore
import torch
import xarray as xr
import zarr

from dsr.config import Data
from dsr.data import cache
from dsr.data.buffers import Buffers
from dsr.data.features import Features
from dsr.data.store import Store
from dsr.data.stream import Stream
from tests.benchmarks.engine import ratio_case
from tests.stores import make, thirds

BATCH, ROWS, REPEATS = 16, 200, 200
SHAPES = {"ERA5 UK, 3 x 32 x 48": (3, 32, 48), "built-in data, 5 x 96 x 96": (5, 96, 96)}
PATCH = 16  # side; four of a field
PEER = """
import json, sys, time, zarr
if sys.argv[2] == "zarrs":
    import zarrs
    zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})
array = zarr.open_array(sys.argv[1], mode="r")
print(zarr.__version__, flush=True)
for line in sys.stdin:
    rows = json.loads(line)
    begun = time.perf_counter()
    array.oindex[rows]
    print(time.perf_counter() - begun, flush=True)
"""
Read = Callable[[np.ndarray], Any]


def cases(device: str) -> Iterator[dict[str, Any]]:
    """Every case of the table."""
    for name, shape in SHAPES.items():
        with tempfile.TemporaryDirectory() as folder:
            os.environ["DSR_CACHE"] = folder
            store = write(Path(folder, "store.zarr"), shape)
            yield from fields(name, store)
            yield from patches(name, store)
            yield from front_door(name, store)


def write(path: Path, shape: tuple[int, ...]) -> Store:
    """Random walks along x, which compress as weather does."""
    random = np.random.default_rng(0)
    high = np.float32(280 + random.normal(size=(ROWS, *shape)).cumsum(-1))
    names = tuple(f"v{i}" for i in range(shape[0]))
    split = thirds(ROWS - 20, 10, 10)
    return make(path, high, high[..., 1::4, 1::4], split, high_names=names, low_names=names)


def attached(store: Store) -> Store:
    """The same store, all of it decoded in the cache."""
    opened = Store(store.path)
    assert not (why := cache.attach(opened, 100)), why
    opened.high[:], opened.low[:]
    return opened


def fields(name: str, store: Store) -> Iterator[dict[str, Any]]:
    """Batches of whole high fields into the same array."""
    decoded, place = attached(store).high, f"{store.path}/high/field"
    raw = memory_map(store)
    out = np.empty((BATCH, *store.high.shape[1:]), np.float32)
    tensors, array = opened(place), zarr.open_array(place, mode="r")
    reads: dict[str, Read] = {
        "ours": lambda rows: store.high.read(rows, out),
        "tensorstore": lambda rows: tensors[rows].read().result(),
        "zarr-python": lambda rows: array.oindex[rows],
    }
    memory: dict[str, Read] = {
        "decoded": lambda rows: decoded.read(rows, out),
        "memory map": lambda rows: np.take(raw, rows, 0, out, mode="clip"),
    }
    others = {kind: peer for kind in ("zarr", "zarrs") if (peer := Peer.start(kind, place))}
    found = measure(reads | {kind: peer.seconds for kind, peer in others.items()})
    ours = found["ours"]
    yield ratio_case(f"verified read against tensorstore, {name}", ours, found["tensorstore"], 1.00)
    yield ratio_case(f"verified read against zarr-python {zarr.__version__}, {name}", ours, found["zarr-python"], 1 / 8)
    for kind, goal in (("zarr", 1 / 3), ("zarrs", 1 / 2.5)):
        what = f"verified read against {'the newest zarr' if kind == 'zarr' else kind}"
        if kind in others:
            yield ratio_case(f"{what}, under zarr {others[kind].version}, {name}", ours, found[kind], goal)
        else:
            yield unmeasured(f"{what}, {name}", goal, f"DSR_PEERS names no Python that has {kind}")
    yield unmeasured(
        f"verified read against MosaicML MDS, {name}", 1 / 2.5, "it needs numpy < 2.2, and files of its own"
    )
    found = measure(memory, 10)
    yield ratio_case(
        f"decoded in the cache against a memory map, {name}", found["decoded"], found["memory map"], 1 / 0.8
    )


def patches(name: str, store: Store) -> Iterator[dict[str, Any]]:
    """Four patches of each field."""
    decoded, tensors = attached(store).high, opened(f"{store.path}/high/field")
    ny, nx = store.shape
    windows = [
        (slice(None), slice(y, y + PATCH), slice(x, x + PATCH)) for y in (0, ny - PATCH) for x in (0, nx - PATCH)
    ]
    out = np.empty((4 * BATCH, store.high.shape[1], PATCH, PATCH), np.float32)

    def theirs(rows: np.ndarray) -> None:
        coming = [tensors[row][window].read() for row in rows.tolist() for window in windows]
        for patch, read in zip(out, coming, strict=True):
            patch[...] = read.result()

    found = measure(
        {
            "ours": lambda rows: store.high.read(rows.repeat(4), out, windows * BATCH),
            "decoded": lambda rows: decoded.read(rows.repeat(4), out, windows * BATCH),
            "tensorstore": theirs,
        }
    )
    yield ratio_case(f"patches, 4 to a field, against tensorstore, {name}", found["ours"], found["tensorstore"], 0.5)
    yield ratio_case(f"the same from the cache, {name}", found["decoded"], found["tensorstore"], 0.5)


def front_door(name: str, store: Store) -> Iterator[dict[str, Any]]:
    """What training's reader calls for a batch, and how soon the first one is there."""
    whole, parts = attached(store), [opened(f"{store.path}/{part}/field") for part in ("low", "high")]
    streams = {"direct": stream(Store(store.path)), "cached": stream(whole)}
    buffers = Buffers()
    datasets = [
        xr.open_zarr(store.path, group=part, consolidated=False, chunks=None)["field"] for part in ("low", "high")
    ]
    isel = iter(torch.utils.data.DataLoader(Pairs(datasets), BATCH))
    reads: dict[str, Read] = {
        kind: lambda rows, source=source: source.read(0, rows % source.count, buffers)
        for kind, source in streams.items()
    }
    reads["tensorstore"] = lambda rows: [read.result() for read in [part[rows].read() for part in parts]]
    reads["xarray"] = lambda rows: next(isel)
    found = measure(reads)
    for kind in streams:
        yield ratio_case(f"front door, {kind}, against tensorstore, {name}", found[kind], found["tensorstore"], 1.00)
        yield ratio_case(f"front door, {kind}, against xarray isel, {name}", found[kind], found["xarray"], 1 / 8)
    begun = time.perf_counter()
    slots = streams["cached"].slots(987654, 987655, 1, BATCH, range(1))
    next(next(slots)[-1])
    seconds = time.perf_counter() - begun
    yield {
        **{"name": f"resume at update 987,654, {name}", "ours": seconds, "against": None, "value": seconds},
        **{"ratio": None, "goal": "< 0.2 s", "holds": seconds < 0.2},
    }


class Pairs(torch.utils.data.Dataset):
    """Pairs of low and high fields by xarray, without end."""

    def __init__(self, datasets: list[xr.DataArray]):
        self.datasets = datasets

    def __len__(self) -> int:
        return 2**40

    def __getitem__(self, sample: int) -> list[np.ndarray]:
        return [dataset.isel({dataset.dims[0]: sample * 7 % ROWS}).values for dataset in self.datasets]


class Peer:
    """A reader in an environment of its own: rows to its standard input, seconds from its standard output."""

    def __init__(self, process: subprocess.Popen[str], version: str):
        self.process, self.version = process, version

    @classmethod
    def start(cls, kind: str, place: str) -> "Peer | None":
        if not (python := os.environ.get("DSR_PEERS")):
            return None
        pipe = subprocess.PIPE
        process = subprocess.Popen([python, "-c", PEER, place, kind], stdin=pipe, stdout=pipe, text=True)
        assert process.stdout is not None
        version = process.stdout.readline().strip()
        return cls(process, version) if version else None

    def seconds(self, rows: np.ndarray) -> float:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(rows.tolist()) + "\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())


def stream(store: Store) -> Stream:
    return Stream(store, Features.of(store, Data()), Data(), "train", 1)


def opened(place: str) -> Any:
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{place}/"}}
    return tensorstore.open(spec, read=True).result()


def memory_map(store: Store) -> np.ndarray:
    path = store.path / "raw"
    store.high[:].tofile(path)
    return np.memmap(path, np.float32, "r", shape=store.high.shape)


def unmeasured(name: str, goal: float, reason: str) -> dict[str, Any]:
    empty = dict.fromkeys(("ours", "against", "value", "ratio", "holds"))
    return {"name": name, **empty, "goal": f"<= {goal:.2f}", "reason": reason}


def measure(reads: dict[str, Read], times: int = 1) -> dict[str, list[float]]:
    """Seconds of every batch, in turns of a random order; who returns a number of seconds has measured itself."""
    random = np.random.default_rng(1)
    found: dict[str, list[float]] = {name: [] for name in reads}
    for _ in range(times * REPEATS):
        rows = random.integers(0, ROWS, BATCH)
        for name in random.permutation(list(reads)).tolist():  # who comes first finds a cold cache
            read = reads[name]
            begun = time.perf_counter()
            told = read(rows)
            found[name].append(told if isinstance(told, float) else time.perf_counter() - begun)
    return found
