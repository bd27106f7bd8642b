"""Filling a store from its archives: every field is read once, in jobs of rows from one file, by several processes."""

import json
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dsr import __version__
from dsr.data.archive import Archive
from dsr.data.grid import block_mean
from dsr.data.pairing import AnyArchive
from dsr.data.store import Layout
from dsr.data.workers import Put, write_rows
from dsr.data.writer import Writer

ROWS = 64  # per job, at most


@dataclass
class Plan:
    """What will be written: the layout, and the frame of an archive that fills each row."""

    layout: Layout
    high: Archive
    high_frames: np.ndarray  # (time) int64
    high_cut: tuple[slice, slice]  # the part of the high archive's grid that is used
    low: AnyArchive | None  # None: the high archive, coarsened
    low_frames: np.ndarray  # (sample) int64
    cells: np.ndarray | None  # (y, x): areas, if low fields are made by coarsening

    @property
    def archives(self) -> list[AnyArchive]:
        return [self.high] if self.low is None else [self.high, self.low]

    def pop_counts(self) -> Counter[Any]:
        """{(archive, variable, what): number of corrected values} since the last call."""
        counts = Counter({(a.name, *key): n for a in self.archives for key, n in a.counts.items()})
        for archive in self.archives:
            archive.counts.clear()
        return counts

    def coarse(self, field: np.ndarray) -> np.ndarray:
        return field if self.cells is None else block_mean(field, self.cells, self.layout.factor)


def fill(plan: Plan, writer: Writer, first: tuple[int, int] = (0, 0)) -> None:
    """Write the rows of the plan from the `first` of high and low on, and note corrections in its layout."""
    counts = write_rows(writer, _jobs(plan, first), partial(_Fill, plan))
    plan.layout.provenance["problems"] += _corrections(counts)


def identity(plan: Plan) -> str:
    """A text that identifies this preparation by code version, recipe and files."""
    described = {key: value for key, value in plan.layout.provenance.items() if key != "made"}
    names = sorted({file for archive in plan.archives for file in archive.files})
    files = [(name, *_stamp(Path(name))) for name in names]
    return json.dumps([__version__, described, files, len(plan.high_frames), len(plan.low_frames)])


def _stamp(file: Path) -> tuple[int, ...]:
    return (file.stat().st_mtime_ns, file.stat().st_size) if file.exists() else ()


Job = tuple[str, list[int]]  # "high" or "low", and rows; if low is made by coarsening, rows of "high" fill both


def _jobs(plan: Plan, first: tuple[int, int]) -> list[Job]:
    """The rows of all fields, grouped by file."""
    jobs: list[Job] = []
    for part, archive, frames, start in (
        ("high", plan.high, plan.high_frames, first[0]),
        ("low", plan.low, plan.low_frames, first[1]),
    ):
        if archive is None:
            continue
        open_file = None
        for row, frame in enumerate(frames[start:].tolist(), start):
            file = archive.file(frame)
            if file != open_file or len(jobs[-1][1]) == ROWS:
                jobs.append((part, []))
            jobs[-1][1].append(row)
            open_file = file
    return jobs


class _Fill:
    """Reads the rows of a job and puts them into the store, in any process."""

    def __init__(self, plan: Plan):
        self.plan = plan

    def __call__(self, job: Job, put: Put) -> Counter[Any]:
        plan, (part, rows), missing = self.plan, job, Counter[Any]()
        for row in rows:
            if part == "low":
                assert plan.low is not None
                fields = {"low": plan.coarse(plan.low.read(plan.low_frames[row]))}
            else:
                high = plan.high.read(plan.high_frames[row])
                fields = {"high": high[:, *plan.high_cut]}
                if plan.low is None:
                    fields["low"] = plan.coarse(high)
            for name, field in fields.items():
                put(name, row, field)
                missing[name, "missing", ""] += int(np.isnan(field).sum())
        return missing + plan.pop_counts()


def _corrections(counts: Counter[Any]) -> list[str]:
    """The corrections made while reading, with their counts."""
    lines = []
    for (archive, name, what), count in sorted(counts.items()):
        if name == "missing" and count:
            lines.append(f"{count:,} values of {archive} are missing")
        elif name != "missing" and what != "amounts":
            total = counts.get((archive, name, "amounts"))
            share = f" of {total:,} ({100 * count / total:.1f} %)" if total and "clipped" in what else ""
            lines.append(f"{archive}: {name}: {count:,}{share} {what}")
    return lines
