"""Bicubic interpolation where the network runs: weighted sums of low values, each added in one order.

A high value is the sum of its own taps alone: unlike those of a matrix product, its bits depend neither on what else is
in a batch nor on the number of threads. The taps are those of `dsr.data.interpolate`: outside the low domain its edge,
or round the earth.
"""

from __future__ import annotations

from functools import reduce

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from dsr.data import interpolate
from dsr.data.interpolate import Index, Taps, Window


def bicubic(low_index: Index, low_shape: tuple[int, int]) -> nn.Module:
    """A module: (field, y, x) float32 and, for a part of the high grid, its Window -> (field, Y, X)."""
    along = interpolate.axes(low_index, low_shape, "bicubic")
    return Separable(*along) if along else Scattered(low_index, low_shape)


class Separable(nn.Module):
    """Where rows depend on y only and columns on x only: 4 taps along x, then 4 along y."""

    rows: Tensor
    row_weights: Tensor
    columns: Tensor
    column_weights: Tensor

    def __init__(self, rows: Taps, columns: Taps):
        super().__init__()
        keep(self, rows=rows[0], row_weights=rows[1], columns=columns[0], column_weights=columns[1])

    def forward(self, fields: Tensor, window: Window | None = None) -> Tensor:
        count, height, _ = fields.shape
        taps = self.columns, self.column_weights, self.rows, self.row_weights
        if window:
            rows, columns = window
            taps = taps[0][columns], taps[1][columns], taps[2][rows], taps[3][rows]
        table = fields.permute(2, 1, 0).flatten(1)
        table = _sums(table, taps[0], taps[1]).T.reshape(height, -1)
        high = _sums(table, taps[2], taps[3])
        return high.view(len(high), count, -1).transpose(0, 1)


class Scattered(nn.Module):
    """Anywhere: 16 taps for each high point, which for a large domain are worked out anew at each call."""

    taps: Tensor
    weights: Tensor

    def __init__(self, low_index: Index, low_shape: tuple[int, int]):
        super().__init__()
        self.low_index, self.low_shape = low_index, low_shape
        self.kept = low_index[0].size <= interpolate.KEPT
        if self.kept:
            tiles = [taps for _, taps in interpolate.tiles(low_index, low_shape, "bicubic")]
            index, weights = (np.concatenate(parts) for parts in zip(*tiles, strict=True))
            keep(self, taps=index, weights=weights)

    def forward(self, fields: Tensor, window: Window | None = None) -> Tensor:
        window = window or (slice(None), slice(None))
        table = fields.flatten(1).T
        rows, columns = (part[window] for part in self.low_index)
        if self.kept:
            shape = (*self.low_index[0].shape, -1)
            index, weights = (each.view(shape)[window].flatten(0, 1) for each in (self.taps, self.weights))
            return _sums(table, index, weights).T.unflatten(1, rows.shape)
        high = fields.new_empty(len(fields), *rows.shape)
        part = Index(rows, columns, self.low_index.period)
        for tile, taps in interpolate.tiles(part, self.low_shape, "bicubic"):
            index, weights = (tensor(each).to(fields.device) for each in taps)
            high[:, tile] = _sums(table, index, weights).T.unflatten(1, (-1, rows.shape[1]))
        return high


def keep(module: nn.Module, **arrays: np.ndarray) -> None:
    """Hold constants on the module's device; a state_dict, which is what was learned, does not hold them."""
    for name, array in arrays.items():
        module.register_buffer(name, tensor(array), persistent=False)


def tensor(array: np.ndarray) -> Tensor:
    """Integers as int32, all else as float32."""
    return torch.from_numpy(array.astype(np.int32 if np.issubdtype(array.dtype, np.integer) else np.float32))


def _sums(table: Tensor, taps: Tensor, weights: Tensor) -> Tensor:
    """(row, width) -> (point, width): of each point the sum over its taps, in their order, of weight x row.

    taps and weights: (point, tap) int32 and float32.
    """
    if torch.compiler.is_exporting():  # other formats know no such sum
        return reduce(torch.add, [table[taps[:, i]] * weights[:, i, None] for i in range(taps.shape[1])])
    table = table.flatten().view(table.shape)  # torch rounds otherwise where a row's values do not lie side by side
    return functional.embedding_bag(taps, table, per_sample_weights=weights, mode="sum")
