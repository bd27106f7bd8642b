"""What a study says while it runs: a table that refreshes on a terminal, or a line for every run, and the time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from dsr.study.cells import Cell


class Board:
    """Shows `cells` until the end of the block; `known` are the records, by key, that were there before."""

    def __init__(
        self,
        title: str,
        cells: list[Cell],
        known: dict[str, dict[str, Any]],
        at_once: int,
        cost: Callable[[Cell], float],
    ):
        from rich.console import Console
        from rich.live import Live

        self.title, self.cells, self.at_once, self.cost = title, cells, at_once, cost
        self.records = dict(known)
        self.keys = {cell.name: cell.key for cell in cells if cell.plan}
        self.runs = len(set(self.keys.values()))
        self.left: list[Cell] = []
        self.begun = time.monotonic()
        self.played, self.expected = 0, 0.0  # in this session, and what they were expected to take
        self.console = Console(stderr=True, highlight=False)
        self.live = Live(console=self.console, get_renderable=self.table, refresh_per_second=2, transient=True)

    def __enter__(self) -> Board:
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *problem: Any) -> None:
        if self.console.is_terminal:
            self.live.stop()

    def changed(self, name: str, record: dict[str, Any] | None, left: list[Cell]) -> None:
        """A run has begun (record None) or ended; `left` are the cells without an end."""
        self.left = left
        if record is None:
            return
        self.records[self.keys[name]] = record
        self.played += 1
        self.expected += next(self.cost(cell) for cell in self.cells if cell.name == name)
        if not self.console.is_terminal:
            self.console.print(f"{name}: {summary(record)}; {self.progress()}", soft_wrap=True)
            sys.stderr.flush()

    def progress(self) -> str:
        """How many runs are done, and the time that the others need at the speed so far."""
        if not self.left:
            return f"{self.runs} of {self.runs} runs"
        cores = sum(map(self.cost, self.left)) / self.at_once
        speed = (time.monotonic() - self.begun) * self.at_once / self.expected if self.played >= self.at_once else 1.0
        return f"{self.runs - len(self.left)} of {self.runs} runs, about {duration(cores * max(speed, 0.1))} left"

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
            return "cannot be" if cells else ""
        found = [self.records[cell.key] for cell in cells if cell.key in self.records]
        skills = [record["test"]["skill"] for record in found if record["state"] == "finished"]
        bad = sum(record["state"] == "diverged" for record in found)
        lost = sum(record["state"] not in ("diverged", "finished") for record in found)
        parts = [f"{sum(skills) / len(skills):.3f}"] if skills else []
        parts += [f"{bad} diverged"] if bad else []
        parts += [f"{lost} failed"] if lost else []
        if len(found) < len(cells):
            parts.append(f"{len(found)}/{len(cells)}")
        return " ".join(parts)


def summary(record: dict[str, Any]) -> str:
    """A run's end in a few words."""
    if record["state"] == "finished":
        return f"skill {record['test']['skill']:.4f}"
    return f"{record['state']} ({record['reason']})"


def duration(seconds: float) -> str:
    """10 s, 12 min, 1 h 20 min"""
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
