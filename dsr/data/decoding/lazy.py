"""A dataset variable that is computed from others when it is read. Imports xarray: import this module late."""

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

Key = tuple[int | slice, ...]


class _Computed(BackendArray):
    def __init__(self, shape: tuple[int, ...], compute: Callable[[Key], np.ndarray], dtype: type[np.floating]):
        self.shape, self.dtype, self.compute = shape, np.dtype(dtype), compute

    def __getitem__(self, key: Any) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.BASIC, self.compute)


def computed(
    dims: tuple[Any, ...],
    shape: tuple[int, ...],
    attributes: dict[Any, Any],
    compute: Callable[[Key], np.ndarray],
    dtype: type[np.floating] = np.float64,
) -> xr.Variable:
    """A lazy variable; `compute(key)` returns the part selected by `key`, an int or a slice along each dimension."""
    return xr.Variable(dims, indexing.LazilyIndexedArray(_Computed(shape, compute, dtype)), attributes)
