"""NetCDF 3 and 4, and HDF5 files with dimension scales, with the variables of all their groups."""

from pathlib import Path
from typing import Any

from dsr.data.decoding import OPTIONS, Opened, series_of
from dsr.data.files import File
from dsr.data.series import Series


def sniff(path: str, start: bytes) -> bool:
    return start[:3] == b"CDF" or start[1:4] == b"HDF"


def open_file(file: File, crs: Any = None) -> list[Series]:
    """Raises OSError if a classic file is shorter than its header says: the library would return zeros for the rest."""
    import netCDF4

    with netCDF4.Dataset(file.path) as dataset:
        groups = list(_groups(dataset))
        if dataset.data_model.startswith("NETCDF3"):
            expected = sum(variable.size * variable.dtype.itemsize for variable in dataset.variables.values())
            if expected > Path(file.path).stat().st_size:
                raise OSError("it is shorter than its header says")
    return [s for group in groups for s in series_of(Opened.now(_dataset, file.path, group), file.name, crs=crs)]


def _groups(group: Any) -> list[str]:
    """The paths of all groups that hold variables."""
    paths = [group.path] if group.variables else []
    return paths + [path for child in group.groups.values() for path in _groups(child)]


def _dataset(path: str, group: str) -> Any:
    import warnings

    import xarray as xr

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about attributes that name missing coordinates
        if group == "/":
            return xr.open_dataset(path, engine="netcdf4", chunks=None, **OPTIONS)
        tree: Any = xr.open_datatree(path, engine="netcdf4", chunks=None, **OPTIONS)
        return tree[group].to_dataset(inherit=True)
