"""Whether reading a store or running a config's network is the bottleneck on this machine."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dsr.data import cache
from dsr.data.buffers import Buffers
from dsr.data.features import Features
from dsr.data.store import Store
from dsr.data.stream import Stream
from dsr.task import resolve

if TYPE_CHECKING:
    from dsr.config import Experiment

SECONDS = 2.5  # for each of the measurements


def bench(path: str, config: Path | None = None) -> str:
    """Samples per second of reading and of the network, for one rank with one thread, in about ten seconds, as text.

    Raises UserError if the config (by default the default experiment) does not fit the store.
    """
    task = resolve(config, store=path)
    experiment = task.experiment
    data, size = experiment.dsr.data, experiment.micro_batch
    direct, kept = Store(task.store), Store(task.store)
    features = Features.of(direct, data)
    why = cache.attach(kept, data.cache)
    order = np.random.default_rng(0).permutation(task.samples)
    batches = [order[i : i + size] for i in range(0, len(order), size)]

    def reading(store: Store, limit: int) -> tuple[int, float]:
        stream, buffers = Stream(store, features, data, "train", experiment.dsr.seed), Buffers()
        return _rate(lambda i: stream.read(0, batches[i], buffers), limit, size)

    taken, first = reading(direct, len(batches))
    rates = {"first pass": first, "again (files in page cache)": reading(direct, taken)[1]}
    best = rates["again (files in page cache)"]
    if not why:
        reading(kept, taken)
        best = rates["from the cache of decoded rows"] = reading(kept, taken)[1]
    network = _network_rate(experiment, features, Stream(direct, features, data, "train", 1).read(0, batches[0]))
    lines = [f"reading, {name:30} {rate:12,.0f} samples/s" for name, rate in rates.items()]
    lines += [f"decoded rows are not cached: {why}"] if why else []
    lines += [f"network, {experiment.dsr.model.name + ', both passes':30} {network:12,.0f} samples/s"]
    share = network / best
    if share < 1:
        return "\n".join([*lines, f"the network is the bottleneck: reading takes {share:.2g} of its time, beside it"])
    return "\n".join([*lines, f"reading is the bottleneck: the network waits {1 - 1 / share:.0%} of the time"])


def _rate(work: Callable[[int], Any], limit: int, size: int) -> tuple[int, float]:
    """The number of batches (at most `limit`) done in SECONDS, and samples per second."""
    begun, done = time.perf_counter(), 0
    while done < limit and time.perf_counter() - begun < SECONDS:
        work(done)
        done += 1
    return done, done * size / (time.perf_counter() - begun)


def _network_rate(experiment: "Experiment", features: Features, batch: Any) -> float:
    """Samples per second of the features and of the network's forward and backward passes."""
    import torch

    from dsr.models.downscaler import Downscaler

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as a rank has
    try:
        downscaler = Downscaler(features, experiment.dsr.model.build(features)).to(device)

        def work(_: int) -> None:
            downscaler.network(downscaler.example(batch).inputs).square().mean().backward()
            if device.type == "cuda":
                torch.cuda.synchronize()

        work(0)
        return _rate(work, 10**9, len(batch.samples))[1]
    finally:
        torch.set_num_threads(threads)
