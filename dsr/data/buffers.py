"""Reusable arrays for batches."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from dsr.data.fields import Fields


class Buffers:
    """One array for each name, allocated when it is first requested or its shape changes."""

    def __init__(self) -> None:
        self.arrays: dict[str, np.ndarray] = {}

    def get(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """(shape) float32, uninitialised; it replaces the array that was returned last under this name."""
        if name not in self.arrays or self.arrays[name].shape != shape:
            self.arrays[name] = np.empty(shape, np.float32)
        return self.arrays[name]

    def read(
        self, fields: "Fields", rows: np.ndarray, variables: list[int], windows: Sequence[tuple[slice, slice]] | None
    ) -> np.ndarray:
        """(n, [member,] variable, y, x) float32: chosen rows and variables of a field, whole or cut to `windows`."""
        *members, count, y, x = fields.shape[1:]
        chosen: Any = variables
        if variables == list(range(variables[0], variables[-1] + 1)):
            chosen = slice(variables[0], variables[-1] + 1)  # copies nothing
        if windows is None:
            out = self.get(fields.name, (len(rows), *members, len(variables), y, x))
            whole = variables == list(range(count))
            fields.read(rows, out, None if whole else [(..., chosen, slice(None), slice(None))] * len(rows))
        else:
            size = tuple(part.stop - part.start for part in windows[0])
            out = self.get(fields.name, (len(rows), *members, len(variables), *size))
            fields.read(rows, out, [(..., chosen, *window) for window in windows])
        return out
