"""How long a run takes: here, as measured before the study begins, and on N GPUs, as a simple model predicts."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from dsr.study.cells import Cell
from dsr.task import Task

if TYPE_CHECKING:
    from dsr.study.ablation import Wires

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

    from dsr import models
    from dsr.data.features import Features
    from dsr.data.store import Store
    from dsr.data.stream import Stream

    torch.set_num_threads(1)
    data, store = task.experiment.dsr.data, Store(task.store)
    features = Features.of(store, data)
    stream = Stream(store, features, data, "train", seed=0)
    network = models.build(task.experiment.dsr.model, features)
    times = []
    for _ in range(TRIES):
        begun = time.perf_counter()
        batch = stream.read(0, np.arange(task.experiment.micro_batch))
        network(torch.from_numpy(batch.inputs)).square().mean().backward()
        times.append(time.perf_counter() - begun)
    return min(times)


def predicted_update_seconds(slots: int, gpus: int, slot_seconds: float, parameters: int, wires: Wires) -> float:
    """An update on N real GPUs: slots / N x the measured slot, and the exchange of the gradients.

    The exchange costs what `dsr.tree.cost` counts of float32 gradients: messages x latency + bytes / bandwidth. No
    overlap of the two is assumed, and GPUs as fast as the device that was measured.
    """
    from dsr.tree import cost

    messages, sent = cost(slots, gpus, parameters)
    return slots / gpus * slot_seconds + messages * wires.latency_us * 1e-6 + 8 * sent / (wires.gbit_per_s * 1e9)
