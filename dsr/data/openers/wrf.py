"""WRF output (wrfout files): xwrf gives times, names, units and destaggering; positions and totals follow WRF's rules.

Positions come from the model's latitude and longitude of every point. This also works in a cropped file, where the
domain's centre, which xwrf relies on, is that of the full domain; and xwrf does not support rotated grids.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from dsr.data.decoding import OPTIONS, Opened, series_of
from dsr.data.files import File
from dsr.data.series import Series, Span
from dsr.errors import UserError, first_line

RADIUS = 6_370_000.0  # m, of WRF's sphere; its latitudes are used as they are, without a change of datum
RAIN = ("RAINNC", "RAINC", "RAINSH")  # resolved, cumulus, shallow cumulus: their sum is the total
UNSTAGGERED = {"x_stag": "x", "y_stag": "y"}
EXTREME = re.compile("MAX|MIN|MEAN|STD")  # since the previous output, whose time is not given


def sniff(path: str, start: bytes) -> bool:
    """Whether it is a NetCDF file written by WRF."""
    if start[:3] != b"CDF" and start[1:4] != b"HDF":
        return False
    import netCDF4

    with netCDF4.Dataset(path) as file:
        return "MAP_PROJ" in file.ncattrs() and {"south_north", "west_east", "Time"} <= file.dimensions.keys()


def open_file(file: File, crs: Any = None) -> list[Series]:
    """Every variable with rows and columns, and RAIN, the total since the start of the run.

    Raises UserError if the grid is idealised or moves, or times or positions cannot be determined.
    """
    opened = Opened.now(_dataset, file.path)
    try:
        attributes = opened.dataset().attrs
    except UserError as error:
        raise UserError(f"{file.name}: {error}") from None
    return [_over_interval(series, attributes) for series in series_of(opened, file.name, crs=crs)]


def _over_interval(series: Series, attributes: dict[str, Any]) -> Series:
    """The series with the interval from its description in WRF."""
    description = series.attributes["long_name"].upper()
    if "OVER PREC_ACC_DT" in description:
        period = round(60 * float(attributes["PREC_ACC_DT"]))
        return _with_starts(series, "sum", lambda span: span.end - period)
    if description.startswith("ACCUMULATED"):
        return _with_starts(series, "sum", lambda span: 0)
    return series if EXTREME.search(series.name) else _with_starts(series, "point", lambda span: span.end)


def _with_starts(series: Series, statistic: str, start: Callable[[Span], int]) -> Series:
    return replace(
        series, statistic=statistic, keys={span._replace(start=start(span)): key for span, key in series.keys.items()}
    )


def _dataset(path: str) -> Any:
    """The file as a CF dataset, in which staggered variables and buckets are computed when they are read."""
    import xarray as xr
    import xwrf  # noqa: F401  it adds an accessor

    from dsr.data.decoding.lazy import Key, computed

    raw = xr.open_dataset(path, engine="netcdf4", chunks=None, **OPTIONS)
    if not {"XLAT", "XLONG"} <= raw.variables.keys():
        raise UserError("has no XLAT and XLONG, the positions of its points")
    for name in ("XLAT", "XLONG"):
        if raw[name].ndim == 3 and not np.array_equal(raw[name][0], raw[name][-1]):
            raise UserError("has a moving nest; dsr needs a fixed grid")
    mapping = _mapping(raw.attrs)
    for axis in ("south_north", "west_east"):  # a file may be cropped along only one of the two
        if raw.sizes.get(f"{axis}_stag") not in (None, raw.sizes[axis] + 1):
            raw = raw.drop_dims(f"{axis}_stag")
    try:  # like an idealised run, so that xwrf adds no projection
        dataset = raw.assign_attrs(MAP_PROJ=0).xwrf.postprocess(calculate_diagnostic_variables=False)
    except ValueError as error:
        raise UserError(f"its Times are not in WRF's form ({first_line(error)})") from error
    fields = {str(name): _field(array, dataset) for name, array in dataset.data_vars.items() if _has_grid(array)}
    rain = [fields[name] for name in RAIN if name in fields]
    for part in rain:
        part.attrs["standard_name"] = "precipitation_amount"
    if rain:
        attributes = {
            "units": "kg m-2",
            "standard_name": "precipitation_amount",
            "long_name": "accumulated precipitation",
        }

        def total(key: Key) -> np.ndarray:
            return np.sum([np.asarray(part[key], np.float64) for part in rain], axis=0)

        fields["RAIN"] = computed(rain[0].dims, rain[0].shape, attributes, total)
    for field in fields.values():
        field.attrs |= {
            "grid_mapping": "projection",
            "long_name": field.attrs.get("description", field.attrs.get("long_name")),
        }
    start = str(raw.attrs.get("SIMULATION_START_DATE", raw.attrs["START_DATE"])).replace("_", "T")
    coordinates = {name: dataset[name].variable for name in ("XLAT", "XLONG", "Time")}
    coordinates |= {
        "projection": xr.Variable((), 0, mapping),
        "forecast_reference_time": xr.Variable((), np.datetime64(start, "s")),
    }
    return xr.Dataset(fields, coordinates, raw.attrs)


def _has_grid(array: Any) -> bool:
    return {UNSTAGGERED.get(str(dim), str(dim)) for dim in array.dims} >= {"y", "x"} and array.dtype.kind in "fiu"


def _field(array: Any, dataset: Any) -> Any:
    """A variable unchanged, or with the overflows of its bucket added, or destaggered."""
    from dsr.data.decoding.lazy import Key, computed

    dims, overflows = array.dims, dataset.get(f"I_{array.name}")
    bucket = float(dataset.attrs.get("BUCKET_J" if str(array.name).startswith("AC") else "BUCKET_MM", -1))
    if overflows is not None and bucket > 0:

        def with_buckets(key: Key) -> np.ndarray:
            return np.asarray(array.variable[key], np.float64) + bucket * np.asarray(overflows.variable[key])

        return computed(dims, array.shape, array.attrs, with_buckets)
    stagger = next((str(dim) for dim in dims if dim in UNSTAGGERED), None)
    if stagger is None:
        return array.variable

    def destaggered(key: Key) -> np.ndarray:
        chosen = dict(zip(dims, key, strict=True))
        along = chosen.pop(stagger)
        part = array.isel(chosen).reset_coords(drop=True).xwrf.destagger(stagger, UNSTAGGERED[stagger])
        return part.isel({UNSTAGGERED[stagger]: along}).values

    shape = tuple(size - (dim == stagger) for dim, size in array.sizes.items())
    return computed(tuple(UNSTAGGERED.get(str(dim), dim) for dim in dims), shape, array.attrs, destaggered)


def _mapping(attributes: dict[str, Any]) -> dict[str, Any]:
    """The CF grid mapping of WRF's MAP_PROJ, without an origin of x and y. Raises UserError for an idealised plane."""
    kind = int(attributes["MAP_PROJ"])
    first, second, middle = (float(attributes.get(key, 0)) for key in ("TRUELAT1", "TRUELAT2", "STAND_LON"))
    sphere = {"earth_radius": RADIUS}
    if kind == 1:
        return sphere | {
            "grid_mapping_name": "lambert_conformal_conic",
            "standard_parallel": [first, second],
            "longitude_of_central_meridian": middle,
            "latitude_of_projection_origin": float(attributes["MOAD_CEN_LAT"]),
        }
    if kind == 2:
        return sphere | {
            "grid_mapping_name": "polar_stereographic",
            "standard_parallel": first,
            "straight_vertical_longitude_from_pole": middle,
            "latitude_of_projection_origin": float(np.copysign(90, first)),
        }
    if kind == 3:
        return sphere | {
            "grid_mapping_name": "mercator",
            "standard_parallel": first,
            "longitude_of_projection_origin": middle,
        }
    pole = float(attributes.get("POLE_LAT", 90))
    if kind == 6 and abs(pole) == 90:
        return {"grid_mapping_name": "latitude_longitude"}
    if kind == 6:
        return sphere | {
            "grid_mapping_name": "rotated_latitude_longitude",
            "grid_north_pole_latitude": pole,
            "grid_north_pole_longitude": 180 - middle,
            "north_pole_grid_longitude": float(attributes["POLE_LON"])
            - 180,  # WRF's domains are centred on 180 degrees
        }
    raise UserError(
        f"has MAP_PROJ {kind}: an idealised plane has no location on the earth"
        if kind == 0
        else f"MAP_PROJ {kind} is unknown"
    )
