"""Zarr groups, local or at a URL, in either format."""

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
    import zarr

    from dsr.data.codecs import NoPickle

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # consolidated metadata and types that are not yet in the Zarr v3 specification
        store: Any = NoPickle(zarr.open_group(path, mode="r").store, path)
        return xr.open_dataset(store, engine="zarr", chunks=None, **OPTIONS)
