"""Zarr groups, here or at a URL, of either format."""

import warnings
from pathlib import Path
from typing import Any

from dsr.data.decoding import OPTIONS, Opened, series_of
from dsr.data.files import File
from dsr.data.series import Series


def sniff(path: str, start: bytes) -> bool:
    return "://" in path or Path(path).is_dir()


def open_file(file: File, crs: Any = None) -> list[Series]:
    return series_of(Opened.now(_dataset, file.path), file.name, crs=crs)


def _dataset(path: str) -> Any:
    import xarray as xr

    from dsr.data.store import refuse_pickle

    refuse_pickle()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # consolidated metadata, and types that the Zarr v3 text does not have yet
        return xr.open_dataset(path, engine="zarr", chunks=None, **OPTIONS)
