"""Interpolation from the low grid to the high grid, from the fractional low index of every high point."""

from typing import Any

import numpy as np

METHODS = ("nearest", "bilinear", "bicubic")


class Interpolation:
    """A linear map from fields on the low grid to fields on the high grid.

    `low_index` is two (Y, X) float64 arrays, the fractional low row and column of each high point; taps outside the
    low domain take its nearest edge cell. Bicubic is cubic convolution (Keys 1981, doi:10.1109/TASSP.1981.1163711) with
    a = -3/4, as in torch and OpenCV: on weather fields it beats Keys' own -1/2. Where rows depend on y only and
    columns on x only, the map is two small matrices; otherwise (different projections) it is one sparse matrix.
    """

    def __init__(self, low_index: tuple[np.ndarray, np.ndarray], low_shape: tuple[int, int], method: str):
        rows, columns = low_index
        self.shape, self.low_shape = rows.shape, tuple(low_shape)
        tolerance = 1e-6  # of a low cell: far below any effect, far above float64 noise in coordinates
        self.separable = bool(np.ptp(rows, axis=1).max() < tolerance and np.ptp(columns, axis=0).max() < tolerance)
        if self.separable:
            self.left = _matrix(rows[:, 0], low_shape[0], method)
            self.right = np.ascontiguousarray(_matrix(columns[0], low_shape[1], method).T)
        else:
            self.sparse = _sparse(rows.ravel(), columns.ravel(), low_shape, method)

    def __call__(self, low: np.ndarray) -> np.ndarray:
        """(..., y, x) on the low grid -> (..., Y, X) on the high grid, float32. NaN spreads to what it touches."""
        low = np.asarray(low, np.float32)
        if self.separable:
            return self.left @ low @ self.right
        flat = low.reshape(-1, self.low_shape[0] * self.low_shape[1])
        return np.ascontiguousarray((self.sparse @ flat.T).T).reshape(*low.shape[:-2], *self.shape).astype(np.float32)

    def window(self, rows: slice, columns: slice) -> "Interpolation":
        """The same map onto a window of the high grid."""
        cut = object.__new__(Interpolation)
        cut.low_shape, cut.separable = self.low_shape, self.separable
        cut.shape = (rows.stop - rows.start, columns.stop - columns.start)
        if self.separable:
            cut.left, cut.right = self.left[rows], np.ascontiguousarray(self.right[:, columns])
        else:
            index = np.arange(self.shape[0] * self.shape[1]).reshape(self.shape)[rows, columns].ravel()
            cut.sparse = self.sparse[index]
        return cut


def _taps(position: np.ndarray, size: int, method: str) -> tuple[np.ndarray, np.ndarray]:
    """(n) fractional positions -> (n, taps) integer indices, clamped to the domain, and (n, taps) float64 weights."""
    position = np.clip(position, 0, size - 1)
    if method == "nearest":
        index = np.floor(position + 0.5).astype(np.int64)[:, None]
        return np.clip(index, 0, size - 1), np.ones_like(index, float)
    base = np.floor(position).astype(np.int64)
    t = (position - base)[:, None]
    if method == "bilinear":
        offsets, weights = np.array([0, 1]), np.concatenate([1 - t, t], 1)
    else:
        a = -0.75
        offsets = np.array([-1, 0, 1, 2])
        distance = np.abs(t - offsets)
        near = (a + 2) * distance**3 - (a + 3) * distance**2 + 1
        far = a * (distance**3 - 5 * distance**2 + 8 * distance - 4)
        weights = np.where(distance <= 1, near, far)
    return np.clip(base[:, None] + offsets, 0, size - 1), weights


def _matrix(position: np.ndarray, size: int, method: str) -> np.ndarray:
    index, weights = _taps(position, size, method)
    matrix = np.zeros((len(position), size))
    np.add.at(matrix, (np.arange(len(position))[:, None], index), weights)
    return matrix.astype(np.float32)


def _sparse(rows: np.ndarray, columns: np.ndarray, low_shape: tuple[int, int], method: str) -> Any:
    from scipy.sparse import csr_matrix

    row_index, row_weight = _taps(rows, low_shape[0], method)
    column_index, column_weight = _taps(columns, low_shape[1], method)
    index = row_index[:, :, None] * low_shape[1] + column_index[:, None, :]
    weight = row_weight[:, :, None] * column_weight[:, None, :]
    points = np.repeat(np.arange(len(rows)), weight.shape[1] * weight.shape[2])
    shape = (len(rows), low_shape[0] * low_shape[1])
    return csr_matrix((weight.ravel().astype(np.float32), (points, index.ravel())), shape=shape)
