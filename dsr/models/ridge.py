"""Ridge regression from what the network sees to the high-resolution field: plain, and hard to beat."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from dsr.data.features import SCALARS
from dsr.data.interpolate import Index, Interpolation
from dsr.data.samples import Samples

if TYPE_CHECKING:
    from dsr.data.features import Features
    from dsr.data.store import Store

PENALTIES = np.logspace(-5, 2, 15)  # per training row, for predictors of about unit variance
WORK = 1e10  # outputs x predictors^2: what one fit may cost
MEMORY = 2**29  # bytes of moments held at once
JUDGED = 32  # tiles of a band on which the penalty is chosen

Pairs = Iterator[tuple[Samples, np.ndarray]]  # samples and their targets (n, variable, Y, X)
Block = tuple[int, slice, np.ndarray, np.ndarray]  # tile, samples, points, and x (row, predictor + 1), float32


class Ridge:
    """Targets (n, variable, Y, X) regressed on the low fields, ensemble spread and extras that `features` name.

    Where they can be, regressions are of each high point: on all low cells in a small domain, on a square of them in a
    large one. Where the split is by region (or the domain is huge), one regression serves all points. The penalty of
    each variable is the one with the least squared error on the validation split. Moments are summed over batches, so
    memory does not grow with the number of samples. A missing target counts as zero: give departures from a mean.
    `targets(split)` iterates over a split in batches of samples.
    """

    def __init__(self, store: Store, features: Features, targets: Callable[[str], Pairs]):
        self.features = features
        self.design: Windows | Everywhere = Everywhere(features)
        if store.region is None:
            self.design = _widest(features) or self.design
        self.weights: list[np.ndarray] = []  # of each tile: (predictor + 1, output) float32, the intercept last
        self.penalties: list[list[float]] = []  # of each band of tiles: one for each variable
        width = self.design.predictors + 1
        step = max(1, int(MEMORY / (8 * width * (width + self.design.outputs))))
        for start in range(0, self.design.tiles, step):
            band = range(start, min(start + step, self.design.tiles))
            train = self._moments(targets("train"), store.mask("train"), band)
            judged = band[:: max(1, len(band) // JUDGED)]
            validation = self._moments(targets("validation"), store.mask("validation"), judged)
            best = self._choose(train, validation)
            self.penalties.append(best.tolist())
            self.weights += [self._weights(xx, xy, best) for xx, xy in train.values()]

    def __call__(self, samples: Samples) -> np.ndarray:
        """The targets as regressed, (n, variable, Y, X) float32."""
        count, shape = len(self.features.high), self.features.shape
        result = np.empty((len(samples.low), count, shape[0] * shape[1]), np.float32)
        for tile, rows, points, x in self._blocks(samples, np.ones(shape, bool), range(self.design.tiles)):
            result[rows, :, points] = self.design.unpack(x @ self.weights[tile], count, len(points))
        return result.reshape(len(samples.low), count, *shape)

    def _blocks(self, samples: Samples, mask: np.ndarray, tiles: range) -> Iterator[Block]:
        features = self.features
        centre, spread = features.combine(samples.low)
        statistics = [features.statistics["low"][v.name] for v in features.low]
        mean = np.array([s["mean"] for s in statistics])[:, None, None]
        std = np.array([s["std"] or 1.0 for s in statistics])[:, None, None]
        parts = [(centre - mean) / std] + ([] if spread is None else [spread / std])
        fields = np.nan_to_num(np.concatenate(parts, 1)).astype(np.float32)
        extras = features.scalars(samples.init_time, samples.lead_time).astype(np.float32)
        return self.design.blocks(fields, extras, mask, tiles)

    def _moments(self, pairs: Pairs, mask: np.ndarray, tiles: range) -> dict[int, list[Any]]:
        """Of each tile the sums of x x' and x y' in float64, where x ends in 1 and y holds the targets."""
        sums: dict[int, list[Any]] = {tile: [0.0, 0.0] for tile in tiles}
        for samples, targets in pairs:
            flat = np.nan_to_num(targets).reshape(*targets.shape[:2], -1)
            for tile, rows, points, x in self._blocks(samples, mask, tiles):
                y = self.design.pack(flat[rows].take(points, axis=2))
                sums[tile][0] += (x.T @ x).astype(np.float64)
                sums[tile][1] += (x.T @ y).astype(np.float64)
        return sums

    def _choose(self, train: dict[int, list[Any]], validation: dict[int, list[Any]]) -> np.ndarray:
        """(variable) the best of PENALTIES over the tiles of `validation`; the middle one where that split is empty.

        In the eigenvectors of the training moments a penalty only shrinks each predictor's weights, so that all
        penalties are judged by the same few products.
        """
        count = len(self.features.high)
        errors = np.zeros((len(PENALTIES), count))
        for tile, (xx, xy) in validation.items():
            if not np.ndim(xx):
                continue
            n, mean_x, mean_y, own, cross = _centred(*train[tile])
            values, vectors = np.linalg.eigh(own)
            there = _about(xx, xy, mean_x, mean_y)
            moments, products = vectors.T @ there[0] @ vectors, vectors.T @ there[1]
            projected = np.split(vectors.T @ cross, count, 1)  # of each variable (predictor, output)
            shrink = 1 / (np.maximum(values, 0) + n * PENALTIES[:, None])  # (penalty, predictor)
            for i, (weights, product) in enumerate(zip(projected, np.split(products, count, 1), strict=True)):
                quadratic = moments * (weights @ weights.T)
                errors[:, i] += ((shrink @ quadratic) * shrink).sum(1) - 2 * shrink @ (weights * product).sum(1)
        return PENALTIES[errors.argmin(0)] if errors.any() else np.full(count, PENALTIES[len(PENALTIES) // 2])

    def _weights(self, xx: np.ndarray, xy: np.ndarray, penalties: np.ndarray) -> np.ndarray:
        """(predictor + 1, output) float32, with one penalty for each variable; the intercept is not penalised."""
        from scipy.linalg import cho_factor, cho_solve

        n, mean_x, mean_y, own, cross = _centred(xx, xy)
        of_output = np.repeat(penalties, len(mean_y) // len(penalties))
        w = np.empty_like(cross)
        for penalty in np.unique(penalties):
            factor = cho_factor(own + n * penalty * np.eye(len(own)))
            w[:, of_output == penalty] = cho_solve(factor, cross[:, of_output == penalty])
        return np.vstack([w, mean_y - mean_x @ w]).astype(np.float32)


def _centred(xx: np.ndarray, xy: np.ndarray) -> tuple[Any, ...]:
    """The count, the means of x and y, and the moments about them, from sums whose last x is 1."""
    mean_x, mean_y = xx[-1, :-1] / xx[-1, -1], xy[-1] / xx[-1, -1]
    return xx[-1, -1], mean_x, mean_y, *_about(xx, xy, mean_x, mean_y)


def _about(xx: np.ndarray, xy: np.ndarray, mean_x: np.ndarray, mean_y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The moments of x with x and with y about any means, from sums whose last x is 1."""
    n, sum_x, sum_y = xx[-1, -1], xx[-1, :-1], xy[-1]
    outer = np.outer(mean_x, sum_x)
    own = xx[:-1, :-1] - outer - outer.T + n * np.outer(mean_x, mean_x)
    return own, xy[:-1] - np.outer(mean_x, sum_y) - np.outer(sum_x, mean_y) + n * np.outer(mean_x, mean_y)


def _counts(features: Features) -> tuple[int, int]:
    """How many low fields and extras there are."""
    return len(features.low) * (2 if features.spread else 1), sum(SCALARS[name] for name in features.extras)


def _widest(features: Features) -> Windows | None:
    """All low cells where that is affordable, else the widest window that is; None where none is."""
    points = features.shape[0] * features.shape[1]
    for reach in (max(features.low_shape), 4, 3, 2, 1):
        windows = Windows(features, reach)
        affordable = windows.predictors**2 * points * len(features.high) <= WORK
        if affordable and windows.predictors <= (1024 if windows.tiles == 1 else 400):
            return windows
    return None


class Windows:
    """A regression for each high point; the points that share a window of low cells are a tile."""

    def __init__(self, features: Features, reach: int):
        """Windows of (2 reach + 1)^2 low cells about the nearest low cell, moved inwards at the edges."""
        fields, extras = _counts(features)
        sizes = [min(2 * reach + 1, n) for n in features.low_shape]
        corners = [
            np.clip(np.rint(index) - reach, 0, n - size).astype(int)
            for index, n, size in zip(features.low_index, features.low_shape, sizes, strict=True)
        ]
        corner, which = np.unique(np.stack(corners).reshape(2, -1), axis=1, return_inverse=True)
        self.windows = [(slice(r, r + sizes[0]), slice(c, c + sizes[1])) for r, c in corner.T.tolist()]
        order = np.argsort(which, kind="stable")
        self.points = np.split(order, np.flatnonzero(np.diff(which[order])) + 1)
        self.tiles = len(self.windows)
        self.predictors = sizes[0] * sizes[1] * fields + extras
        self.outputs = max(map(len, self.points)) * len(features.high)

    def blocks(self, fields: np.ndarray, extras: np.ndarray, mask: np.ndarray, tiles: range) -> Iterator[Block]:
        """A block for each tile, whose rows are samples; the mask is not used, since it is by time that these split."""
        n = len(fields)
        apart = np.concatenate([extras, np.ones((n, 1), np.float32)], 1)
        for tile in tiles:
            rows, columns = self.windows[tile]
            x = np.concatenate([fields[:, :, rows, columns].reshape(n, -1), apart], 1)
            yield tile, slice(0, n), self.points[tile], x

    def pack(self, y: np.ndarray) -> np.ndarray:
        """(n, variable, point) -> (row, output)."""
        return y.reshape(len(y), -1)

    def unpack(self, y: np.ndarray, variables: int, points: int) -> np.ndarray:
        """The reverse of `pack`."""
        return y.reshape(-1, variables, points)


class Everywhere:
    """One regression for all high points, on bicubic of the low fields there and one low cell away, and statics."""

    tiles = 1

    def __init__(self, features: Features):
        fields, extras = _counts(features)
        rows, columns = features.low_index
        self.interpolations = [
            Interpolation(Index(rows + dy, columns + dx, features.low_index.period), features.low_shape, "bicubic")
            for dy in (-1, 0, 1) for dx in (-1, 0, 1)
        ]  # fmt: skip
        statistics = [features.statistics["static"][v.name] for v in features.static]
        static = [(f - s["mean"]) / (s["std"] or 1) for f, s in zip(features.static_fields, statistics, strict=True)]
        self.static = np.nan_to_num(np.array(static, np.float32)).reshape(len(static), rows.size)
        self.predictors = 9 * fields + len(static) + extras
        self.outputs = len(features.high)

    def blocks(self, fields: np.ndarray, extras: np.ndarray, mask: np.ndarray, tiles: range) -> Iterator[Block]:
        """A block for each sample, whose rows are the high points of the mask."""
        points = np.flatnonzero(mask)
        for i in range(len(fields)):
            low = np.concatenate([interpolate(fields[i]) for interpolate in self.interpolations])
            columns = [low.reshape(len(low), -1)[:, points], self.static[:, points]]
            constant = np.repeat(np.append(extras[i], np.float32(1))[:, None], len(points), 1)
            yield 0, slice(i, i + 1), points, np.concatenate([*columns, constant]).T

    def pack(self, y: np.ndarray) -> np.ndarray:
        """(n, variable, point) -> (row, output)."""
        return np.moveaxis(y, 1, 2).reshape(-1, y.shape[1])

    def unpack(self, y: np.ndarray, variables: int, points: int) -> np.ndarray:
        """The reverse of `pack`."""
        return np.moveaxis(y.reshape(-1, points, variables), 1, 2)
