"""Forecast fields as a CF-conformant file: NetCDF or Zarr, written field by field, whole or not at all."""

import contextlib
import os
import warnings
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from dsr import __version__
from dsr.data.calendar import EPOCH
from dsr.data.domain import Domain
from dsr.data.grid import Grid
from dsr.data.store import Store, Variable
from dsr.errors import UserError
from dsr.files import whole_file, whole_folder
from dsr.urls import cleaned

CONVENTIONS = "CF-1.11"
SUFFIXES = (".nc", ".zarr")
CHUNK = 1024  # points along each side of a chunk, at most


def check(path: Path) -> None:
    """Raise UserError, before anything is computed, if `create` could not write."""
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path}: the name selects NetCDF or Zarr: it must end in .nc or .zarr")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise UserError(f"{path.parent}: no such folder, or no permission to write there")
    if path.exists():
        raise UserError(f"{path} exists already: give another output path, or remove it first")


@contextlib.contextmanager
def create(path: Path, *layout: Any, **more: Any) -> Iterator[dict[str, Any]]:
    """Yield {variable: array} to be filled: `arrays["t"][..., i, :, :] = field`, float32, ([realization,] time, y, x).

    The other arguments are those of `describe`. Compressed without loss.
    """
    coordinates, dims, attributes = describe(*layout, **more)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    coordinates.attrs["history"] = f"{now}: written by dsr {__version__}"
    write = _netcdf if path.suffix == ".nc" else _zarr
    with write(path, coordinates, dims, attributes) as arrays:
        yield arrays


def describe(
    grid: Grid,
    variables: Sequence[Variable],
    init_time: np.ndarray,
    lead_time: np.ndarray,
    *,
    attributes: dict[str, str],
    bounds: np.ndarray | None = None,
    members: Sequence[int] | None = None,
    calendar: str = "proleptic_gregorian",
) -> tuple[Any, tuple[str, ...], dict[str, dict[str, str]]]:
    """A forecast without its fields: (dataset of undecoded coordinates, fields' dimensions, {variable: attributes}).

    init_time and lead_time: (n) int64 seconds; bounds: (n, 2) int64 seconds between which sums, means and extremes
    are taken; attributes: title and source. With increasing valid times, the dimension is `time`. If several runs have
    the same valid time, which CF does not allow for a coordinate, the dimension is `forecast`, and time,
    forecast_reference_time and forecast_period lie along it.
    """
    along = "time" if np.all(np.diff(init_time + lead_time) > 0) else "forecast"
    coordinates = _horizontal(grid.to_dataset()).assign_coords(_times(init_time, lead_time, bounds, along, calendar))
    if members is not None:
        realization = {"standard_name": "realization", "long_name": "ensemble member", "units": "1"}
        coordinates = coordinates.assign_coords(realization=("realization", np.array(members, np.int32), realization))
    dims = (*(["realization"] if members is not None else []), along, *_rows_and_columns(coordinates))
    coordinates.attrs = {"Conventions": CONVENTIONS, **cleaned(attributes)}
    return coordinates, dims, {variable.name: _attributes(variable, coordinates, dims) for variable in variables}


def covers_period(variable: Variable) -> bool:
    """Whether its values are sums, means or extremes over a period, for which CF requires time bounds."""
    return "time:" in variable.cell_methods and "time: point" not in variable.cell_methods


def export_forecast(store: Store, split: str, path: Path) -> None:
    """Write the first low-resolution run of a split, with lead times and members, in the form of a user's forecast."""
    samples = store.samples(split)
    run = samples[store.low_init_time[samples] == store.low_init_time[samples[0]]]
    times, variables = (store.low_init_time[run], store.low_lead_time[run]), store.low_variables
    bounds = None
    if any(map(covers_period, variables)):
        bounds = (times[0] + times[1])[:, None] + np.array(Domain.of(store).interval)
    members = range(store.members) if store.members else None
    about = {"title": f"A low-resolution forecast of {store.path}", "source": str(store.attributes["provenance"])}
    writing = create(
        path,
        store.grid("low"),
        variables,
        *times,
        attributes=about,
        bounds=bounds,
        members=members,
        calendar=store.calendar,
    )
    with writing as arrays:
        for i, sample in enumerate(run):
            fields = store.low[sample].swapaxes(0, -3)  # variable first
            for variable, field in zip(variables, fields, strict=True):
                arrays[variable.name][..., i, :, :] = field


@contextlib.contextmanager
def _netcdf(path: Path, coordinates: Any, dims: tuple[str, ...], described: dict[str, Any]) -> Iterator[dict[str, Any]]:
    import netCDF4

    try:
        with whole_file(path) as temporary:
            # As plain variables: for coordinates, xarray would write a global attribute that is not in CF.
            coordinates.reset_coords().to_netcdf(temporary, engine="netcdf4", format="NETCDF4")
            with netCDF4.Dataset(temporary, "a") as file:
                arrays, chunks = {}, _chunks(coordinates, dims)
                for name, attributes in described.items():
                    arrays[name] = file.createVariable(name, "f4", dims, compression="zlib", chunksizes=chunks)
                    arrays[name].setncatts(attributes)
                yield arrays
    except RuntimeError as error:
        if "NetCDF" not in str(error):
            raise
        raise OSError(f"{path}: cannot be written ({error}): is the disk full?") from error  # HDF5 does not tell


@contextlib.contextmanager
def _zarr(path: Path, coordinates: Any, dims: tuple[str, ...], described: dict[str, Any]) -> Iterator[dict[str, Any]]:
    import zarr

    with whole_folder(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "Consolidated metadata"
        )  # not yet in the Zarr v3 specification, but xarray reads it
        coordinates.reset_coords().to_zarr(temporary, mode="w", zarr_format=3, consolidated=False)
        group = zarr.open_group(temporary, mode="r+", zarr_format=3)
        shape, chunks = tuple(coordinates.sizes[dim] for dim in dims), _chunks(coordinates, dims)
        yield {
            name: group.create_array(
                name, shape=shape, chunks=chunks, dtype="float32", dimension_names=dims, attributes=attributes
            )
            for name, attributes in described.items()
        }
        zarr.consolidate_metadata(temporary, zarr_format=3)


def _chunks(coordinates: Any, dims: tuple[str, ...]) -> tuple[int, ...]:
    """One field, or a part of it if it is large."""
    return (*(1 for _ in dims[:-2]), *(min(coordinates.sizes[dim], CHUNK) for dim in dims[-2:]))


def _horizontal(grid: Any) -> Any:
    """The coordinates of a grid with CF names: dimensions are latitude and longitude if possible."""
    if "latitude" in grid.variables and grid["latitude"].ndim == 1:
        grid = grid.swap_dims(y="latitude", x="longitude").drop_vars(["y", "x"])
    grid = grid.copy()
    for dim, axis in zip(_rows_and_columns(grid), "YX", strict=True):
        grid[dim].attrs["axis"] = axis
    for variable in grid.variables.values():
        variable.encoding = {"_FillValue": None}  # coordinates have no missing values
    return grid


def _rows_and_columns(coordinates: Any) -> tuple[str, str]:
    return ("y", "x") if "y" in coordinates.dims else ("latitude", "longitude")


def _times(init: np.ndarray, lead: np.ndarray, bounds: np.ndarray | None, along: str, calendar: str) -> dict[str, Any]:
    """Valid time with its bounds, reference time and forecast period, in float64, which every CF version allows."""
    exact = {"_FillValue": None}
    since = {"units": EPOCH, "calendar": calendar}
    if calendar in ("standard", "proleptic_gregorian"):  # CF has no leap seconds in model calendars
        since["units_metadata"] = "leap_seconds: none"
    valid = (init + lead).astype(float)
    time = {"standard_name": "time", **({"axis": "T"} if along == "time" else {}), **since}
    run = {"standard_name": "forecast_reference_time", **since}
    coordinates: dict[str, Any] = {
        "time": (along, valid, time, exact),
        "forecast_reference_time": (along, init.astype(float), run, exact),
        "forecast_period": (along, lead.astype(float), {"standard_name": "forecast_period", "units": "s"}, exact),
    }
    if bounds is not None:
        time["bounds"] = "time_bnds"
        coordinates["time_bnds"] = ((along, "bnds"), bounds.astype(float), {}, exact)
    return coordinates


def _attributes(variable: Variable, coordinates: Any, dims: tuple[str, ...]) -> dict[str, str]:
    methods = variable.cell_methods
    if "time_bnds" in coordinates and "time:" not in methods:
        methods = f"time: point {methods}".strip()
    auxiliary = [str(name) for name in coordinates.coords if name not in (*dims, "crs", "time_bnds")]
    attributes = {
        "standard_name": variable.standard_name,
        "long_name": variable.long_name or ("" if variable.standard_name else variable.name),
        "units": variable.units,
        "units_metadata": "temperature: on_scale" if variable.standard_name.endswith("temperature") else "",
        "cell_methods": methods,
        "coordinates": " ".join(auxiliary),
        "grid_mapping": "crs" if "crs" in coordinates.coords else "",
    }
    return {key: value for key, value in attributes.items() if value}
