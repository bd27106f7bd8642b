"""What a study shows while it runs: a table on a terminal, or else a line for each run, and the time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from dsr.study.cells import Cell
from dsr.study.results import Result
from dsr.task import Task

START_SECONDS = 9.0  # what `dsr launch` takes beside the updates, roughly; corrected as runs end
ENGINE_SECONDS = 0.0006  # what DeepSpeed adds to a slot
TRIES = 5


class Estimate:
    """Estimates of the seconds that a cell takes on one core of this machine; each kind of slot is timed once."""

    def __init__(self) -> None:
        self.timed: dict[str, float] = {}

    def seconds(self, cell: Cell) -> float:
        """START_SECONDS and the cell's slots, shared among its devices."""
        experiment = cell.task.experiment
        kind = f"{cell.task.store} {experiment.micro_batch} {experiment.dsr.data} {experiment.dsr.model}"
        if kind not in self.timed:
            self.timed[kind] = _slot_seconds(cell.task)
        return START_SECONDS + cell.slots / cell.devices * (self.timed[kind] + ENGINE_SECONDS)


class ProgressTable:
    """Shows `cells` until the end of the block; `known` holds the results, by key, that were there before."""

    def __init__(
        self,
        title: str,
        cells: list[Cell],
        known: dict[str, Result],
        at_once: int,
        cost: Callable[[Cell], float],
    ):
        from rich.console import Console
        from rich.live import Live

        self.title, self.cells, self.at_once, self.cost = title, cells, at_once, cost
        self.results = dict(known)
        self.keys = {cell.name: cell.key for cell in cells if cell.plan}
        self.runs = len(set(self.keys.values()))
        self.left: list[Cell] = []
        self.started = time.monotonic()
        self.ended, self.expected_seconds = 0, 0.0  # runs of this session, and what they were expected to take
        self.console = Console(stderr=True, highlight=False)
        self.live = Live(console=self.console, get_renderable=self.table, refresh_per_second=2, transient=True)

    def __enter__(self) -> ProgressTable:
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *problem: Any) -> None:
        if self.console.is_terminal:
            self.live.stop()

    def changed(self, name: str, result: Result | None, left: list[Cell]) -> None:
        """A run has started (result None) or ended; `left` are the cells that have not ended."""
        self.left = left
        if result is None:
            return
        self.results[self.keys[name]] = result
        self.ended += 1
        self.expected_seconds += next(self.cost(cell) for cell in self.cells if cell.name == name)
        if not self.console.is_terminal:
            self.console.print(f"{name}: {summary(result)}; {self.progress()}", soft_wrap=True)
            sys.stderr.flush()

    def progress(self) -> str:
        """How many runs are done, and the time that the others need at the speed so far."""
        if not self.left:
            return f"{self.runs} of {self.runs} runs"
        seconds = sum(map(self.cost, self.left)) / self.at_once
        slowness = 1.0  # of this session, against what was expected
        if self.ended >= self.at_once:
            slowness = max((time.monotonic() - self.started) * self.at_once / self.expected_seconds, 0.1)
        return f"{self.runs - len(self.left)} of {self.runs} runs, about {duration(seconds * slowness)} left"

    def table(self) -> Any:
        """Rows of data set, budget and arm; a column for each GPU count with runs done and failed, and mean skill."""
        from rich.table import Table

        counts = sorted({cell.gpus for cell in self.cells})
        grid = Table(title=self.title, caption=self.progress())
        for name in ("data", "budget", "arm"):
            grid.add_column(name)
        for gpus in counts:
            grid.add_column(f"{gpus} GPU" + ("s" if gpus > 1 else ""), justify="right")
        for row in dict.fromkeys((cell.data, cell.budget, cell.arm) for cell in self.cells):
            of_row = [cell for cell in self.cells if (cell.data, cell.budget, cell.arm) == row]
            grid.add_row(*row, *(self._entry([cell for cell in of_row if cell.gpus == gpus]) for gpus in counts))
        return grid

    def _entry(self, cells: list[Cell]) -> str:
        if not cells or not all(cell.plan for cell in cells):
            return "impossible" if cells else ""
        results = [self.results[cell.key] for cell in cells if cell.key in self.results]
        skills = [result.test.skill for result in results if result.test and result.state == "finished"]
        diverged = sum(result.state == "diverged" for result in results)
        failed = sum(not result.done for result in results)
        parts = [f"{sum(skills) / len(skills):.3f}"] if skills else []
        parts += [f"{diverged} diverged"] if diverged else []
        parts += [f"{failed} failed"] if failed else []
        if len(results) < len(cells):
            parts.append(f"{len(results)}/{len(cells)}")
        return " ".join(parts)


def summary(result: Result) -> str:
    """A run's end in a few words."""
    if result.test and result.state == "finished":
        return f"skill {result.test.skill:.4f}"
    return f"{result.state} ({result.reason})"


def duration(seconds: float) -> str:
    """10 s, 12 min, 1 h 20 min"""
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _slot_seconds(task: Task) -> float:
    """The best time of reading one micro-batch, and of forward and backward, in this process with one thread."""
    import numpy as np
    import torch

    from dsr.data.features import Features
    from dsr.data.store import Store
    from dsr.data.stream import Stream
    from dsr.models.downscaler import Downscaler

    torch.set_num_threads(1)
    data, store = task.experiment.dsr.data, Store(task.store)
    features = Features.of(store, data)
    stream = Stream(store, features, data, "train", seed=0)
    downscaler = Downscaler(features, task.experiment.dsr.model.build(features))
    times = []
    for _ in range(TRIES):
        started = time.perf_counter()
        example = downscaler.example(stream.read(0, np.arange(task.experiment.micro_batch)), data.noise)
        downscaler.network(example.inputs).square().mean().backward()
        times.append(time.perf_counter() - started)
    return min(times)
