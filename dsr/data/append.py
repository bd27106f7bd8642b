"""Adding whole new runs to a store: readers see either the old or the new one, and training data stay bit for bit."""

import copy
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from dsr.data.calendar import label
from dsr.data.counts import count_rows, no_counts
from dsr.data.store import SPLITS, Layout, Store
from dsr.data.writer import Writer
from dsr.errors import UserError

TRAIN, VALIDATION, TEST = range(3)


@dataclass
class Growth:
    """The layout of the extended store, and which rows of the archive's layout are appended."""

    layout: Layout  # of the whole new store
    high: np.ndarray  # (n) int64: high row len(store.time) + i is row high[i] of the archive's layout
    low: np.ndarray  # (n) int64: the same for samples


def grow(store: Store, layout: Layout) -> Growth:
    """The store extended by the runs of an archive's layout that it lacks.

    The archive may repeat what the store holds, or contain only new runs. `layout.split` is the split that the recipe's
    dates assign to a sample, or -1 for none: such a run joins the test split, or the gap if it is too close to training
    or validation. Raises UserError if grids, variables or units differ, a new run is not later than all existing ones,
    a run would join the training split, or nothing is new.
    """
    _check_compatible(store, layout)
    last = int(store.low_init_time.max())
    known = set(zip(store.low_init_time.tolist(), store.low_lead_time.tolist(), strict=True))
    samples = list(zip(layout.low_init_time.tolist(), layout.low_lead_time.tolist(), strict=True))
    low = np.array([i for i, sample in enumerate(samples) if sample not in known], np.int64)
    if not len(low):
        raise UserError(f"{store.path}: nothing to add: the archive has no run that the store lacks")
    early = min(samples[i] for i in low)
    if early[0] <= last:
        raise UserError(
            f"{store.path}: the run of {label(early[0], store.calendar)} (+{early[1] / 3600:g} h) is new but not later "
            f"than the last one, {label(last, store.calendar)}: only whole later runs can be added; prepare it again"
        )
    in_store, in_archive = _truths(store.time, store, "high/init_time"), _truths(layout.time, layout, "init_time")
    rows = {truth: row for row, truth in enumerate(in_store)}
    high = np.array([r for r in np.unique(layout.high_index[low]) if in_archive[r] not in rows], np.int64)
    rows |= {in_archive[row]: len(in_store) + i for i, row in enumerate(high)}
    split = _splits(store, layout, low)
    first, final = (
        label(int(t), store.calendar) for t in (layout.low_init_time[low].min(), layout.low_init_time.max())
    )
    added = {"first": first, "last": final, **{name: int((split == code).sum()) for code, name in enumerate(SPLITS)}}
    splits = store.attributes["splits"]

    def extended(name: str, new: Any, selected: np.ndarray) -> Any:
        return None if new is None else np.concatenate([store._array(name), new[selected]])

    return Growth(
        replace(
            layout,
            high_grid=store.grid("high"),
            low_grid=store.grid("low"),
            low_index=store.low_index,
            time=extended("high/time", layout.time, high),
            init_time=extended("high/init_time", layout.init_time, high),
            lead_time=extended("high/lead_time", layout.lead_time, high),
            low_init_time=extended("low/init_time", layout.low_init_time, low),
            low_lead_time=extended("low/lead_time", layout.low_lead_time, low),
            high_index=np.concatenate([store.high_index, [rows[in_archive[r]] for r in layout.high_index[low]]]),
            split=np.concatenate([store._array("low/split"), split]),
            splits={**splits, "appended": [*splits.get("appended", []), added]},
            provenance=_provenance(store.attributes["provenance"], layout.provenance),
        ),
        high,
        low,
    )


class Appender(Writer):
    """A `Writer` that extends a store: new rows follow those of `store`, whose chunks are reused unchanged.

    The old store stays until the new one replaces it in one step. Raises UserError if the store has changed since it
    was opened.
    """

    def __init__(self, store: Store, growth: Growth, plan: str = ""):
        self.store = store
        super().__init__(Path(store.path).resolve(), growth.layout, plan and f"{plan} {store.fingerprint}")

    def __enter__(self) -> "Appender":
        super().__enter__()
        self.sums.update({name: value for name, value in self.store.files.sums.items() if _is_chunk(name)})
        return self

    def _check_place(self) -> None:
        if "://" in str(self.store.path):
            raise UserError(f"{self.store.path}: only a local store can be extended")

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
            raise UserError(f"{self.path}: the store changed while runs were being added: add them again")

    def _statistics(self, store: Store) -> tuple[dict[str, Any], np.ndarray]:
        """Unchanged, since training has no new sample; only missing values are counted over all splits."""
        statistics = copy.deepcopy(self.store.statistics)
        for row in range(len(self.store.high_index), len(store.high_index)):
            if store._array("low/split")[row] >= 0:
                missing = (
                    (~np.isfinite(np.moveaxis(store.low[row], -3, -1))).reshape(-1, len(store.low_variables)).sum(0)
                )
                for variable, count in zip(store.low_variables, missing.tolist(), strict=True):
                    statistics["low"][variable.name]["missing"] += count
        counts = no_counts(len(store.time), len(store.high_variables))
        rows = store.high_index[store.samples("train")]
        counts[rows] = count_rows(self.store, rows)
        return statistics, counts


def _is_chunk(name: str) -> bool:
    return name.startswith(("high/field/c/", "low/field/c/"))


def _truths(time: np.ndarray, of: Store | Layout, name: str) -> list[Any]:
    """What identifies a high field: its valid time, and its initial time if it is a forecast."""
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
            f"splits: the run of {run} would join the training split, which cannot change: prepare the store again"
        )
    leads = max(store.low_lead_time.max(), layout.low_lead_time[low].max())
    gap = leads + 3600 * store.attributes["splits"].get("gap_hours", 0)
    old_split, old_init = store._array("low/split"), store.low_init_time
    validation = init[split == VALIDATION]
    if len(validation) and validation.min() - old_init[(old_split == TRAIN) | (old_split == TEST)].max() <= gap:
        run = label(int(validation.min()), store.calendar)
        raise UserError(f"splits: the run of {run} is too close to other splits to be added to validation")
    seen = np.concatenate([old_init[(old_split == TRAIN) | (old_split == VALIDATION)], validation]).max()
    split[(split != VALIDATION) & (init - seen > gap)] = TEST
    split[(split != VALIDATION) & (init - seen <= gap)] = -1
    return split


def _check_compatible(store: Store, layout: Layout) -> None:
    if store.region is not None:
        raise UserError(
            f"{store.path}: is split by region, so all times are used in training: prepare it again with the new runs"
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
                f"{store.path}: {what} cannot change: {_summary(old)} in the store, {_summary(new)} in the archive"
            )
    for part, grid in (("high", layout.high_grid), ("low", layout.low_grid)):
        if not store.grid(part).same(grid):
            raise UserError(f"{store.path}: the {part} grid of the archive differs from the store's")
    for row, variable in enumerate(layout.static_variables):
        if not np.array_equal(store.static[row], np.float32(layout.static[variable.name]), equal_nan=True):
            raise UserError(f"{store.path}: the static field {variable.name} has changed")


def _summary(value: Any) -> str:
    return ", ".join(f"{v.name} [{v.units}]" for v in value) if isinstance(value, list) else str(value)


def _provenance(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The combined provenance, with a list of what was appended and when."""
    kept = copy.deepcopy(old)
    kept["files"] = sorted({*old.get("files", []), *new.get("files", [])})
    kept["problems"] = list(dict.fromkeys([*old.get("problems", []), *new.get("problems", [])]))
    kept["appended"] = [*old.get("appended", []), *([new["made"]] if "made" in new else [])]
    return kept
