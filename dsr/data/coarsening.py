"""The mean of a high-resolution field over each cell of any low grid, from the positions of the high points on it."""

from typing import Any

import numpy as np

from dsr.data.grid import Grid, Index

COVERED = 0.75  # share of a low cell: if less of it is known, the mean represents another place
MOST = (
    4_000_000  # high points with individual weights; in larger grids only every second or third row and column is used
)


class Coarsening:
    """A map from fields on a high grid to a low grid, cells weighted by their area.

    Each high point represents a box as wide as the spacing of the points, weighted by its overlap with the low cell:
    this is exact for blocks of cells, and centred if low points coincide with high points.
    """

    def __init__(self, high: Grid, low: Grid, index: Index):
        """`index` is `high.index_on(low)`."""
        rows, columns = index
        low_shape, wraps = low.shape, low.periodic
        self.low_shape, self.stride = low_shape, 1
        self.separable = bool(np.ptp(rows, axis=1).max() < 1e-6 and np.ptp(columns, axis=0).max() < 1e-6)
        if not self.separable:
            self.stride = int(np.ceil(np.sqrt(rows.size / MOST)))
            rows, columns = (i[:: self.stride, :: self.stride] for i in (rows, columns))
        self.area = high.area()[:: self.stride, :: self.stride]
        if self.separable:
            self.left = _sparse(_overlaps(rows[:, :1], low_shape[0], False), low_shape[0])
            self.right = _sparse(_overlaps(columns[:1].T, low_shape[1], wraps), low_shape[1])
        else:
            (row, height), (column, width) = (
                _overlaps(i, size, periodic)
                for i, size, periodic in ((rows, low_shape[0], False), (columns, low_shape[1], wraps))
            )
            cells = row[:, :, None] * low_shape[1] + column[:, None, :]
            overlaps = (cells.reshape(rows.size, -1), (height[:, :, None] * width[:, None, :]).reshape(rows.size, -1))
            self.matrix = _sparse(overlaps, low_shape[0] * low_shape[1])

    def __call__(self, high: np.ndarray) -> np.ndarray:
        """(Y, X) on the high grid -> (y, x) float32 on the low grid; NaN if less than COVERED of a cell is known."""
        field = np.asarray(high, np.float64)[:: self.stride, :: self.stride]
        known = np.isfinite(field)
        weight = self._sum(np.where(known, self.area, 0.0))
        total = self._sum(np.where(known, field, 0.0) * self.area)
        covered = self._sum(known.astype(np.float64)) >= COVERED
        return np.where(covered, total / np.where(covered, weight, 1), np.nan).astype(np.float32)

    def _sum(self, field: np.ndarray) -> np.ndarray:
        if self.separable:
            return (self.right @ (self.left @ field).T).T
        return (self.matrix @ field.ravel()).reshape(self.low_shape)


def _overlaps(position: np.ndarray, size: int, wraps: bool) -> tuple[np.ndarray, np.ndarray]:
    """The cells along one axis of the low grid that each point's box overlaps, (n, taps), and the share of each cell.

    `position` is the fractional index of all points; a box outside the grid has no overlap.
    """
    steps = [np.median(np.abs(np.diff(position, axis=k))) for k in (0, 1) if position.shape[k] > 1]
    width = float(np.hypot(*steps)) if len(steps) > 1 else float(steps[0])  # the side of a rotated square
    start = position.ravel() - width / 2
    first = np.floor(start + 0.5).astype(np.int64)[:, None]
    cells = first + np.arange(int(np.ceil(width)) + 1)
    overlap = np.minimum(start[:, None] + width, cells + 0.5) - np.maximum(start[:, None], cells - 0.5)
    overlap = np.clip(overlap, 0, None)
    if wraps:
        return cells % size, overlap
    inside = (cells >= 0) & (cells < size)
    return np.where(inside, cells, 0), np.where(inside, overlap, 0)


def _sparse(overlaps: tuple[np.ndarray, np.ndarray], cells: int) -> Any:
    """(cells, points): the sparse matrix that sums over the points of each cell."""
    from scipy.sparse import csr_matrix

    index, weight = overlaps
    points = np.repeat(np.arange(len(index)), index.shape[1])
    return csr_matrix((weight.ravel(), (index.ravel(), points)), shape=(cells, len(index)))
