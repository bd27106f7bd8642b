"""Interpolation from the low grid to the high grid, from the fractional low index of every high point."""

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np

METHODS = ("nearest", "bilinear", "bicubic")
DENSE = 2**22  # elements: larger matrices are kept sparse
TILE = 2**17  # high points whose taps are worked out at once, about 400 bytes each
KEPT = 2**21  # high points whose taps are kept in memory, about 130 bytes each
Taps = tuple[np.ndarray, np.ndarray]  # (point, tap) places and float64 weights
Window = tuple[slice, slice]  # rows and columns of the high grid


class Index(tuple[np.ndarray, np.ndarray]):
    """Two (Y, X) float64 arrays: the fractional low row and column of every high point.

    Where the low columns go round the earth, `period` says after how many of them their places come again.
    """

    period: int | None

    def __new__(cls, rows: np.ndarray, columns: np.ndarray, period: int | None = None) -> "Index":
        index = super().__new__(cls, (rows, columns))
        index.period = period
        return index

    def __getnewargs__(self) -> tuple[np.ndarray, np.ndarray, int | None]:
        return (*self, self.period)


class Interpolation:
    """A linear map from fields on the low grid to fields on the high grid.

    `low_index` is an Index, or any two such arrays where nothing goes round the earth; taps outside the low domain take
    its nearest edge cell, or go round. Bicubic is cubic convolution (Keys 1981, doi:10.1109/TASSP.1981.1163711) with
    a = -3/4, as in torch and OpenCV: on weather fields it beats Keys' own -1/2. Where rows depend on y only and columns
    on x only, the map is two small matrices; otherwise (different projections) it is sparse matrices, tile by tile,
    which large domains make for each call: 3,500 x 7,000 points took 0.7 GB in all, of which the index is 0.4. What a
    network sees is interpolated by the same taps in `dsr.models.bicubic`.
    """

    def __init__(self, low_index: tuple[np.ndarray, np.ndarray], low_shape: tuple[int, int], method: str):
        self.index, self.low_shape, self.method = low_index, low_shape, method
        self.shape = low_index[0].shape
        along = axes(low_index, low_shape, method)
        self.separable = along is not None
        if along:
            matrix = _sparse if max(n * m for n, m in zip(self.shape, low_shape, strict=True)) > DENSE else _dense
            rows, columns = along
            self.left, self.right = matrix(*rows, low_shape[0]), _contiguous(matrix(*columns, low_shape[1]).T)

    def __call__(self, low: np.ndarray) -> np.ndarray:
        """(..., y, x) on the low grid -> (..., Y, X) on the high grid, float32. NaN spreads to what it touches."""
        low = np.asarray(low, np.float32)
        if self.separable and isinstance(self.left, np.ndarray):
            return self.left @ low @ self.right
        high = np.empty((*low.shape[:-2], *self.shape), np.float32)
        fields, flat = high.reshape(-1, *self.shape), low.reshape(-1, low.shape[-2] * low.shape[-1])
        if self.separable:
            for field, values in zip(fields, flat, strict=True):
                field[:] = self.left @ values.reshape(self.low_shape) @ self.right
            return high
        for rows, tile in self._matrices():
            fields[:, rows] = (tile @ flat.T).T.reshape(len(fields), -1, self.shape[1])
        return high

    def _matrices(self) -> Iterator[tuple[slice, Any]]:
        """Blocks of high rows, and the sparse matrix onto each."""
        return iter(self._kept) if self.index[0].size <= KEPT else self._made()

    @cached_property
    def _kept(self) -> list[tuple[slice, Any]]:
        return list(self._made())

    def _made(self) -> Iterator[tuple[slice, Any]]:
        size = self.low_shape[0] * self.low_shape[1]
        return ((rows, _sparse(*taps, size)) for rows, taps in tiles(self.index, self.low_shape, self.method))


def axes(low_index: tuple[np.ndarray, np.ndarray], low_shape: tuple[int, int], method: str) -> tuple[Taps, Taps] | None:
    """The taps of each high row among low rows, and of columns, where rows depend on y only and columns on x only."""
    rows, columns = low_index
    tolerance = 1e-6  # of a low cell: far below any effect, far above float64 noise in coordinates
    if np.ptp(rows, axis=1).max() < tolerance and np.ptp(columns, axis=0).max() < tolerance:
        period = getattr(low_index, "period", None)
        return _taps(rows[:, 0], low_shape[0], method), _taps(columns[0], low_shape[1], method, period)
    return None


def tiles(
    low_index: tuple[np.ndarray, np.ndarray], low_shape: tuple[int, int], method: str
) -> Iterator[tuple[slice, Taps]]:
    """Blocks of high rows, and the taps of each one's points in a flat low field."""
    high_rows, high_columns = low_index
    height, width = low_shape
    step = max(1, TILE // high_rows.shape[1])
    for start in range(0, len(high_rows), step):
        tile = slice(start, start + step)
        rows, row_weights = _taps(high_rows[tile].ravel(), height, method)
        period = getattr(low_index, "period", None)
        columns, column_weights = _taps(high_columns[tile].ravel(), width, method, period)
        index = (rows[:, :, None] * width + columns[:, None, :]).reshape(len(rows), -1)
        weights = (row_weights[:, :, None] * column_weights[:, None, :]).reshape(len(rows), -1)
        yield tile, (index, weights)


def _taps(position: np.ndarray, size: int, method: str, period: int | None = None) -> Taps:
    """(n) fractional positions -> (n, taps) integer indices, within the domain, and (n, taps) float64 weights."""
    if period is None:
        position = np.clip(position, 0, size - 1)
    if method == "nearest":
        base, offsets = np.floor(position + 0.5).astype(np.int64), np.array([0])
        weights = np.ones((len(position), 1))
    else:
        base = np.floor(position).astype(np.int64)
        t = (position - base)[:, None]
        offsets, weights = (np.array([0, 1]), np.concatenate([1 - t, t], 1)) if method == "bilinear" else _cubic(t)
    index = base[:, None] + offsets
    return (np.clip(index, 0, size - 1) if period is None else index % period), weights


def _cubic(t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, offsets = -0.75, np.array([-1, 0, 1, 2])
    distance = np.abs(t - offsets)
    near = (a + 2) * distance**3 - (a + 3) * distance**2 + 1
    far = a * (distance**3 - 5 * distance**2 + 8 * distance - 4)
    return offsets, np.where(distance <= 1, near, far)


def _dense(index: np.ndarray, weights: np.ndarray, size: int) -> np.ndarray:
    matrix = np.zeros((len(index), size))
    np.add.at(matrix, (np.arange(len(index))[:, None], index), weights)
    return matrix.astype(np.float32)


def _sparse(index: np.ndarray, weights: np.ndarray, size: int) -> Any:
    from scipy.sparse import csr_matrix

    points = np.repeat(np.arange(len(index)), index.shape[1])
    return csr_matrix((weights.ravel().astype(np.float32), (points, index.ravel())), shape=(len(index), size))


def _contiguous(matrix: Any) -> Any:
    return np.ascontiguousarray(matrix) if isinstance(matrix, np.ndarray) else matrix
