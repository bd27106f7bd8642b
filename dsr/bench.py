"""How fast a store is read here, and how fast a config's network takes what is read: which of them makes one wait."""

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
    """Samples a second of the store and of the network, one rank of one thread, in about ten seconds; for people.

    Raises UserError where the config (by default the default experiment) does not fit the store.
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
    rates = {"the first time": first, "read before (files in memory)": reading(direct, taken)[1]}
    best = rates["read before (files in memory)"]
    if not why:
        reading(kept, taken)
        best = rates["kept decoded"] = reading(kept, taken)[1]
    network = _network_rate(experiment, features, Stream(direct, features, data, "train", 1).read(0, batches[0]))
    lines = [f"reading, {name:30} {rate:12,.0f} samples/s" for name, rate in rates.items()]
    lines += [f"not kept decoded: {why}"] if why else []
    lines += [f"network, {experiment.dsr.model.name + ', both passes':30} {network:12,.0f} samples/s"]
    share = network / best
    if share < 1:
        return "\n".join([*lines, f"the network is the bottleneck: reading takes {share:.2g} of its time, beside it"])
    return "\n".join([*lines, f"reading is the bottleneck: the network waits {1 - 1 / share:.0%} of the time"])


def _rate(work: Callable[[int], Any], limit: int, size: int) -> tuple[int, float]:
    """How many of at most `limit` batches were done in the time, and samples a second."""
    begun, done = time.perf_counter(), 0
    while done < limit and time.perf_counter() - begun < SECONDS:
        work(done)
        done += 1
    return done, done * size / (time.perf_counter() - begun)


def _network_rate(experiment: "Experiment", features: Features, batch: Any) -> float:
    """Samples a second that the network takes forward and backward."""
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as a rank has
    try:
        network = experiment.dsr.model.build(features).to(device)
        inputs = torch.from_numpy(batch.inputs).to(device)

        def work(_: int) -> None:
            network(inputs).square().mean().backward()
            if device.type == "cuda":
                torch.cuda.synchronize()

        work(0)
        return _rate(work, 10**9, len(inputs))[1]
    finally:
        torch.set_num_threads(threads)
