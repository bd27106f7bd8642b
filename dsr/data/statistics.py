"""Statistics of a store's training split, in float64 and in one fixed order, so that they are the same bits always."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from dsr.data.counts import count_values, no_counts
from dsr.data.fields import Fields
from dsr.data.interpolate import Interpolation
from dsr.data.store import SPLITS, Store
from dsr.errors import UserError


def of_store(store: Store) -> tuple[dict[str, Any], np.ndarray]:
    """What `Store.statistics` and `Store.counts` give.

    Raises UserError where the training split lacks samples or values.
    """
    train = store.samples("train")
    if not len(train):
        raise UserError("the training split is empty: give fewer or longer splits, or a shorter gap")
    inside = store.mask("train")
    names = {"high": [v.name for v in store.high_variables], "low": [v.name for v in store.low_variables]}
    shared = [name for name in names["high"] if name in names["low"]]
    of_high, of_low = [names["high"].index(n) for n in shared], [names["low"].index(n) for n in shared]
    bicubic = Interpolation(store.low_index, store.low_shape, "bicubic")
    high, low, residual = Moments.of(len(names["high"])), Moments.of(len(names["low"])), Moments.of(len(shared))
    in_train, used = np.zeros(len(store.high_index), bool), np.zeros(len(store.high_index), bool)
    in_train[train] = True
    used[np.concatenate([store.samples(split) for split in SPLITS])] = True
    missing, counts = np.zeros(len(names["low"]), int), no_counts(len(store.time), len(names["high"]))
    for rows, fields in _batches(store.low, np.arange(len(store.high_index))):
        missing += (~np.isfinite(np.moveaxis(fields[used[rows]], -3, -1))).reshape(-1, len(missing)).sum(0)
        chosen = in_train[rows]
        if not chosen.any():
            continue
        kept = fields[chosen]
        pooled = kept if store.members is None else kept.reshape(-1, *kept.shape[2:])
        low.add(pooled.reshape(*pooled.shape[:2], -1))
        mean = kept if store.members is None else kept.mean(1)
        truth = store.high[store.high_index[rows[chosen]]]
        counts[store.high_index[rows[chosen]]] = count_values(truth, inside)
        high.add(truth[:, :, inside])
        if shared:
            residual.add((truth[:, of_high] - bicubic(mean[:, of_low]))[:, :, inside])
    static = Moments.of(len(store.static_variables))
    if len(store.static_variables):
        static.add(store.static[None].reshape(1, len(store.static_variables), -1))
    statistics = {
        "low": low.named(names["low"]),
        "high": high.named(names["high"]),
        "residual": residual.named(shared),
        "static": static.named([v.name for v in store.static_variables]),
    }
    for name, absent in zip(names["low"], missing, strict=True):
        statistics["low"][name]["missing"] = int(absent)
    return statistics, counts


def _batches(fields: Fields, rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """At most 64 rows and about 64 MiB at a time."""
    size = int(np.clip(2**24 // np.prod(fields.shape[1:]), 1, 64))
    for start in range(0, len(rows), size):
        chosen = rows[start : start + size]
        yield chosen, fields[chosen]


@dataclass
class Moments:
    """Count, mean, sum of squares and extremes for each variable, of values streamed in float64, NaN left out."""

    count: np.ndarray
    mean: np.ndarray
    square: np.ndarray
    minimum: np.ndarray
    maximum: np.ndarray

    @classmethod
    def of(cls, variables: int) -> "Moments":
        zero = np.zeros(variables)
        return cls(zero, zero.copy(), zero.copy(), np.full(variables, np.inf), np.full(variables, -np.inf))

    def add(self, values: np.ndarray) -> None:
        """Take in (n, variable, point) by Chan's pairwise update."""
        each = [_measured(values[:, i].reshape(-1).astype(np.float64)) for i in range(len(self.count))]  # one in memory
        count, mean, square, minimum, maximum = (np.array(one) for one in zip(*each, strict=True))
        total = np.maximum(self.count + count, 1)
        delta = mean - self.mean
        self.square += square + np.where(count > 0, delta**2 * self.count * count / total, 0)
        self.mean = np.where(count > 0, self.mean + delta * count / total, self.mean)
        self.count = self.count + count
        self.minimum, self.maximum = np.minimum(self.minimum, minimum), np.maximum(self.maximum, maximum)

    def named(self, names: list[str]) -> dict[str, dict[str, float]]:
        result = {}
        for i, name in enumerate(names):
            if not self.count[i]:
                raise UserError(f"{name}: every value of the training split is missing")
            std = float(np.sqrt(self.square[i] / self.count[i]))
            result[name] = {
                "mean": float(self.mean[i]),
                "std": std,
                "minimum": float(self.minimum[i]),
                "maximum": float(self.maximum[i]),
            }
        return result


def _measured(values: np.ndarray) -> tuple[int, float, float, float, float]:
    """Count, mean, sum of squares about it, minimum and maximum of what is finite."""
    good = np.isfinite(values)
    count = int(good.sum())
    mean = np.where(good, values, 0).sum() / max(count, 1)
    square = np.where(good, (values - mean) ** 2, 0).sum()
    least = np.where(good, values, np.inf).min(initial=np.inf)
    most = np.where(good, values, -np.inf).max(initial=-np.inf)
    return count, mean, square, least, most
