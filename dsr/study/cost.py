"""How long a run will take here, as estimated before the study begins."""

from __future__ import annotations

import time

from dsr.study.cells import Cell
from dsr.task import Task

START_SECONDS = 9.0  # what `dsr launch` takes beside the updates, roughly: the estimate mends itself as runs end
ENGINE_SECONDS = 0.0006  # what DeepSpeed adds to a slot
TRIES = 5


class Clock:
    """Estimates of the seconds that a cell takes on one core here; each kind of slot is timed once."""

    def __init__(self) -> None:
        self.timed: dict[str, float] = {}

    def seconds(self, cell: Cell) -> float:
        """START_SECONDS and the cell's slots, shared among its devices."""
        experiment = cell.task.experiment
        kind = f"{cell.task.store} {experiment.micro_batch} {experiment.dsr.data} {experiment.dsr.model}"
        if kind not in self.timed:
            self.timed[kind] = _slot_seconds(cell.task)
        return START_SECONDS + cell.slots / cell.devices * (self.timed[kind] + ENGINE_SECONDS)


def _slot_seconds(task: Task) -> float:
    """The best time of reading one micro-batch, and of forward and backward, in this process with one thread."""
    import numpy as np
    import torch

    from dsr.data.features import Features
    from dsr.data.store import Store
    from dsr.data.stream import Stream

    torch.set_num_threads(1)
    data, store = task.experiment.dsr.data, Store(task.store)
    features = Features.of(store, data)
    stream = Stream(store, features, data, "train", seed=0)
    network = task.experiment.dsr.model.build(features)
    times = []
    for _ in range(TRIES):
        begun = time.perf_counter()
        batch = stream.read(0, np.arange(task.experiment.micro_batch))
        network(torch.from_numpy(batch.inputs)).square().mean().backward()
        times.append(time.perf_counter() - begun)
    return min(times)
