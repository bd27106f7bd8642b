"""What preparing a large archive costs: time, and the memory of all processes, which must not grow with the archive."""

import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from dsr.data.grid import Grid
from dsr.data.store import Layout, Variable
from dsr.data.workers import Put, write_rows
from dsr.data.writer import Writer

LIMIT = 2 * 2**30  # bytes, of all processes together
SHAPE, FACTOR, VARIABLES = (512, 1024), 4, 2
ROWS = 24  # a job, as a file of a day


def cases(device: str, gigabytes: float) -> Iterator[dict[str, Any]]:
    """One preparation from fields that are made when they are read."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.zarr")
        line = [sys.executable, "-m", "tests.benchmarks.prepare", str(path), str(rows(gigabytes))]
        begun, peak, most = time.perf_counter(), 0, 0
        process = subprocess.Popen(line)
        while process.poll() is None:
            used = memory(process.pid)
            peak, most = max(peak, sum(used)), max(most, len(used))
            time.sleep(0.1)
        if process.returncode:
            raise RuntimeError(f"the preparation ended with {process.returncode}")
        seconds = time.perf_counter() - begun
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    value = {"seconds": round(seconds, 1), "peak GiB": round(peak / 2**30, 2), "processes": most}
    value |= {"input GiB": gigabytes, "store GiB": round(size / 2**30, 2)}
    told = {"name": f"memory of preparing {gigabytes:g} GiB, against 2 GiB", "ours": peak, "against": LIMIT}
    yield {**told, "value": value, "ratio": peak / LIMIT, "goal": "<= 1.00", "holds": peak <= LIMIT}


def memory(pid: int) -> list[int]:
    """Bytes of a process and those that it started, what they share counted once."""
    found = []
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        try:
            found.append(process.memory_full_info().pss)
        except psutil.Error:
            continue
    return found


def rows(gigabytes: float) -> int:
    return int(gigabytes * 2**30 / (4 * VARIABLES * np.prod(SHAPE)))


class Lazy:
    """In the place of an archive's files: a field that moves along, and its coarsened self."""

    def __init__(self) -> None:
        y, x = (np.linspace(0, 6 * np.pi, n) for n in SHAPE)
        self.base = (280 + np.sin(y)[:, None] * np.cos(x) + np.random.default_rng(0).normal(0, 0.05, SHAPE)).astype(
            "f4"
        )

    def __call__(self, job: range, put: Put) -> Counter:
        for row in job:
            high = np.stack([np.roll(self.base, 7 * row + v, axis=1) for v in range(VARIABLES)])
            put("high", row, high)
            blocks = high.reshape(VARIABLES, SHAPE[0] // FACTOR, FACTOR, SHAPE[1] // FACTOR, FACTOR)
            put("low", row, blocks.mean((2, 4)))
        return Counter()


def layout(count: int) -> Layout:
    y, x = (np.arange(n) * 1000.0 for n in SHAPE)
    grid = Grid(y, x, {})
    low = grid.coarsened(FACTOR)
    variables = [Variable(f"t{v}", "K", "air_temperature") for v in range(VARIABLES)]
    time, split = np.arange(count) * 3600, np.repeat([0, 1, 2], [count - 2, 1, 1])
    return Layout(
        high_variables=variables,
        low_variables=variables,
        high_grid=grid,
        low_grid=low,
        time=time,
        low_init_time=time,
        low_lead_time=np.zeros(count, np.int64),
        high_index=np.arange(count),
        split=split,
        low_index=grid.index_on(low),
        factor=FACTOR,
        pairing="coarsen",
        splits={"by": "time"},
        provenance={},
    )


if __name__ == "__main__":
    target, count = Path(sys.argv[1]), int(sys.argv[2])
    with Writer(target, layout(count)) as writer:
        write_rows(writer, [range(n, min(n + ROWS, count)) for n in range(0, count, ROWS)], Lazy)
