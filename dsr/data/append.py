"""Adding whole new runs to a store: readers see the old one or the new one, and training's part stays bit for bit."""

import copy
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from dsr.data.calendar import label
from dsr.data.store import SPLITS, Layout, Store
from dsr.data.writer import Writer
from dsr.errors import UserError

TRAIN, VALIDATION, TEST = range(3)


@dataclass
class Growth:
    """What a store becomes, and which rows of the archive's layout are to be written behind those that it has."""

    layout: Layout  # of the whole new store
    high: np.ndarray  # (n) int64: high row len(store.time) + i is row high[i] of the archive's layout
    low: np.ndarray  # (n) int64: the same of the samples


def grow(store: Store, layout: Layout) -> Growth:
    """The store with the runs of an archive's layout that it lacks.

    The archive may hold all that the store holds, or only what is new. `layout.split` says to which split the recipe's
    dates give a sample, -1 where they give it to none: such a run becomes part of test, or of the gap where it is too
    near to training or validation. Raises UserError where grids, variables or units are others, a run is not later
    than all that are there, training would get a run, or nothing is new.
    """
    _check_alike(store, layout)
    last = int(store.low_init_time.max())
    known = set(zip(store.low_init_time.tolist(), store.low_lead_time.tolist(), strict=True))
    samples = list(zip(layout.low_init_time.tolist(), layout.low_lead_time.tolist(), strict=True))
    low = np.array([i for i, sample in enumerate(samples) if sample not in known], np.int64)
    if not len(low):
        raise UserError(f"{store.path}: nothing to add, the archive has no run that the store lacks")
    early = min(samples[i] for i in low)
    if early[0] <= last:
        raise UserError(
            f"{store.path}: the run of {label(early[0], store.calendar)} (+{early[1] / 3600:g} h) is new and not later "
            f"than the last one, {label(last, store.calendar)}: only whole later runs can be added; prepare it again"
        )
    have, of_archive = _truths(store.time, store, "high/init_time"), _truths(layout.time, layout, "init_time")
    rows = {truth: row for row, truth in enumerate(have)}
    high = np.array([r for r in np.unique(layout.high_index[low]) if of_archive[r] not in rows], np.int64)
    rows |= {of_archive[row]: len(have) + i for i, row in enumerate(high)}
    split = _splits(store, layout, low)
    first, final = (
        label(int(t), store.calendar) for t in (layout.low_init_time[low].min(), layout.low_init_time.max())
    )
    added = {"first": first, "last": final, **{name: int((split == code).sum()) for code, name in enumerate(SPLITS)}}
    splits = store.attributes["splits"]

    def longer(name: str, new: Any, chosen: np.ndarray) -> Any:
        return None if new is None else np.concatenate([store._array(name), new[chosen]])

    return Growth(
        replace(
            layout,
            high_grid=store.grid("high"),
            low_grid=store.grid("low"),
            low_index=store.low_index,
            time=longer("high/time", layout.time, high),
            init_time=longer("high/init_time", layout.init_time, high),
            lead_time=longer("high/lead_time", layout.lead_time, high),
            low_init_time=longer("low/init_time", layout.low_init_time, low),
            low_lead_time=longer("low/lead_time", layout.low_lead_time, low),
            high_index=np.concatenate([store.high_index, [rows[of_archive[r]] for r in layout.high_index[low]]]),
            split=np.concatenate([store._array("low/split"), split]),
            splits={**splits, "appended": [*splits.get("appended", []), added]},
            provenance=_provenance(store.attributes["provenance"], layout.provenance),
        ),
        high,
        low,
    )


class Appender(Writer):
    """A `Writer` of a store that grows: its new rows follow those of `store`, whose chunks it takes as they are.

    The old store is there until the new one takes its place, in one step. Raises UserError where the store has changed
    since it was opened.
    """

    def __init__(self, store: Store, growth: Growth, plan: str = ""):
        self.store = store
        super().__init__(Path(store.path).resolve(), growth.layout, plan and f"{plan} {store.fingerprint}")

    def __enter__(self) -> "Appender":
        super().__enter__()
        self.sums.update({name: told for name, told in self.store.files.sums.items() if _is_chunk(name)})
        return self

    def _check_place(self) -> None:
        if "://" in str(self.store.path):
            raise UserError(f"{self.store.path}: only a store on this machine can grow")

    def _begin(self) -> None:
        super()._begin()
        for name in filter(_is_chunk, self.store.files.sums):
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(self.path / name, self.folder / name)
            except OSError:  # a filesystem without hard links
                shutil.copyfile(self.path / name, self.folder / name)

    def _finish(self) -> None:
        super()._finish()
        if Store(self.path).fingerprint != self.store.fingerprint:
            raise UserError(f"{self.path}: the store has changed while runs were added to it: add them again")

    def _statistics(self, store: Store) -> dict[str, Any]:
        """As they are: training has no new sample; only missing values are counted, of all splits."""
        statistics = copy.deepcopy(self.store.statistics)
        for row in range(len(self.store.high_index), len(store.high_index)):
            if store._array("low/split")[row] >= 0:
                missing = (
                    (~np.isfinite(np.moveaxis(store.low[row], -3, -1))).reshape(-1, len(store.low_variables)).sum(0)
                )
                for variable, count in zip(store.low_variables, missing.tolist(), strict=True):
                    statistics["low"][variable.name]["missing"] += count
        return statistics


def _is_chunk(name: str) -> bool:
    return name.startswith(("high/field/c/", "low/field/c/"))


def _truths(time: np.ndarray, of: Store | Layout, name: str) -> list[Any]:
    """What tells one high field from another: its valid time, and its initial time where it is a forecast."""
    if isinstance(of, Store):
        init = of._array(name) if of.has(name) else time
    else:
        init = time if of.init_time is None else of.init_time
    return list(zip(init.tolist(), time.tolist(), strict=True))


def _splits(store: Store, layout: Layout, low: np.ndarray) -> np.ndarray:
    """(n) int8: the new samples' splits."""
    init, split = layout.low_init_time[low], layout.split[low].astype(np.int8)
    if (split == TRAIN).any():
        run = label(int(init[split == TRAIN].min()), store.calendar)
        raise UserError(
            f"splits: the run of {run} would be added to training, whose part stays: prepare the store again"
        )
    leads = max(store.low_lead_time.max(), layout.low_lead_time[low].max())
    gap = leads + 3600 * store.attributes["splits"].get("gap_hours", 0)
    old, there = store._array("low/split"), store.low_init_time
    validation = init[split == VALIDATION]
    if len(validation) and validation.min() - there[(old == TRAIN) | (old == TEST)].max() <= gap:
        run = label(int(validation.min()), store.calendar)
        raise UserError(f"splits: the run of {run} is too near to those of other splits to be added to validation")
    seen = np.concatenate([there[(old == TRAIN) | (old == VALIDATION)], validation]).max()
    split[(split != VALIDATION) & (init - seen > gap)] = TEST
    split[(split != VALIDATION) & (init - seen <= gap)] = -1
    return split


def _check_alike(store: Store, layout: Layout) -> None:
    if store.region is not None:
        raise UserError(
            f"{store.path}: is split by region and trains on all its times: prepare it again with the new runs"
        )
    pairs = {
        "the variables of high": (store.high_variables, layout.high_variables),
        "the variables of low": (store.low_variables, layout.low_variables),
        "the static variables": (store.static_variables, layout.static_variables),
        "the factor": (store.attributes["factor"], layout.factor),
        "the pairing": (store.attributes["pairing"], layout.pairing),
        "the number of members": (store.members, layout.members),
        "the calendar": (store.calendar, layout.calendar),
        "whether high holds forecasts": (store.has("high/init_time"), layout.init_time is not None),
    }
    for what, (old, new) in pairs.items():
        if old != new:
            raise UserError(
                f"{store.path}: {what} cannot change: {_told(old)} in the store, {_told(new)} in the archive"
            )
    for part, grid in (("high", layout.high_grid), ("low", layout.low_grid)):
        if not store.grid(part).same(grid):
            raise UserError(f"{store.path}: the {part} grid of the archive is another one than the store's")
    for row, variable in enumerate(layout.static_variables):
        if not np.array_equal(store.static[row], np.float32(layout.static[variable.name]), equal_nan=True):
            raise UserError(f"{store.path}: the static field {variable.name} has changed")


def _told(value: Any) -> str:
    return ", ".join(f"{v.name} [{v.units}]" for v in value) if isinstance(value, list) else str(value)


def _provenance(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Where all of it came from, with a list of what was appended when."""
    kept = copy.deepcopy(old)
    kept["files"] = sorted({*old.get("files", []), *new.get("files", [])})
    kept["problems"] = list(dict.fromkeys([*old.get("problems", []), *new.get("problems", [])]))
    kept["appended"] = [*old.get("appended", []), *([new["made"]] if "made" in new else [])]
    return kept
