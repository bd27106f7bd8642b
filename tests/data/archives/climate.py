"""Climate models as their archives give them: EURO-CORDEX, CMIP6 and UKCP18, in their own calendars."""

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from .truth import LATITUDE, LONGITUDE, PACKED, Field, Truth, degrees, files, grid, rain, temperature, unrotated


def _days(calendar: str, count: int, hour: int = 12, year: int = 2001) -> tuple[str, ...]:
    """`count` days from 1 January on, of a calendar whose months are told here."""
    months = {"360_day": [30] * 12, "noleap": [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]}[calendar]
    dates = [(month + 1, day + 1) for month, length in enumerate(months) for day in range(length)]
    return tuple(f"{year}-{month:02d}-{day:02d}T{hour:02d}:00:00" for month, day in dates[:count])


def _daily(name: str, field: np.ndarray, units: str) -> Field:
    """A day's mean, or its rain's amount, which is what the recipes ask for; stamped at its noon."""
    interval = (-12, 12)
    return Field(field * 86400, "kg m-2", "sum", interval) if name == "pr" else Field(field, units, "mean", interval)


def cordex(folder: Path, days: int = 90, calendar: str = "noleap") -> Truth:
    """tas and pr of EURO-CORDEX, daily means on a rotated pole, as the ESGF gives them; across the end of February."""
    mapping = {
        **{"grid_mapping_name": "rotated_latitude_longitude", "grid_north_pole_latitude": 39.25},
        **{"grid_north_pole_longitude": -162.0},
    }
    row, column = -0.88 + 0.11 * np.arange(16), -1.1 + 0.11 * np.arange(20)  # 50.75 N 18 E is the point [8, 10]
    latitude, longitude = unrotated((39.25, -162), row, column)
    steps, day = np.arange(days), {"units": "days since 1949-12-01T00:00:00Z", "calendar": calendar}
    first = {"noleap": (2001 - 1949) * 365 - 334, "360_day": (2001 - 1949) * 360 - 330}[calendar]
    values = {
        "tas": (temperature(latitude, longitude, steps), "K", "air_temperature", "lon lat height"),
        "pr": (rain(latitude, longitude, steps) / 86400, "kg m-2 s-1", "precipitation_flux", "lon lat"),
    }
    fields = {}
    for name, (field, units, standard_name, coordinates) in values.items():
        data = xr.Dataset(
            {
                name: (
                    ("time", "rlat", "rlon"),
                    field.astype("f4"),
                    {
                        **{"standard_name": standard_name, "units": units, "cell_methods": "time: mean"},
                        **{
                            "coordinates": coordinates,
                            "grid_mapping": "rotated_pole",
                            "missing_value": np.float32(1e20),
                        },
                    },
                ),
                "rotated_pole": ((), b"", mapping),
                "time_bnds": (("time", "bnds"), first + steps[:, None] + [0.0, 1.0]),
                "lat": (("rlat", "rlon"), latitude, LATITUDE),
                "lon": (("rlat", "rlon"), longitude, LONGITUDE),
            },
            {
                "time": (
                    "time",
                    first + steps + 0.5,
                    {"standard_name": "time", "bounds": "time_bnds", "axis": "T"} | day,
                ),
                "rlat": ("rlat", row, {"standard_name": "grid_latitude", "units": "degrees", "axis": "Y"}),
                "rlon": ("rlon", column, {"standard_name": "grid_longitude", "units": "degrees", "axis": "X"}),
            },
            {"Conventions": "CF-1.4", "project_id": "CORDEX", "CORDEX_domain": "EUR-11"},
        )
        if name == "tas":
            height = {"standard_name": "height", "units": "m", "positive": "up", "axis": "Z"}
            data["height"] = ((), 2.0, height)
        no_fill = {key: {"_FillValue": None} for key in ("lat", "lon", "time", "rlat", "rlon", "time_bnds")}
        path = files(folder) / f"{name}_EUR-11_MOHC-HadGEM2-ES_historical_r1i1p1_KNMI-RACMO22E_v2_day_2001.nc"
        data.to_netcdf(
            path, encoding=no_fill | {name: PACKED | {"_FillValue": np.float32(1e20)}}, unlimited_dims="time"
        )
        fields[name] = _daily(name, field, units)
    return Truth(latitude, longitude, _days(calendar, days), fields, calendar)


def cmip6(folder: Path, days: int = 90) -> Truth:
    """tas and pr of a CMIP6 model (HighResMIP of the Met Office), daily, in a calendar of 360 days."""
    rows, columns = -46.75 + 0.5 * np.arange(16), 0.25 + 0.75 * np.arange(24)
    latitude, longitude = grid(rows, columns)
    steps, first = np.arange(days), 151 * 360  # 2001-01-01
    values = {
        "tas": (temperature(latitude, longitude, steps), "K", "air_temperature", "area: time: mean"),
        "pr": (rain(latitude, longitude, steps) / 86400, "kg m-2 s-1", "precipitation_flux", "area: time: mean"),
    }
    fields = {}
    for name, (field, units, standard_name, methods) in values.items():
        attributes = {"standard_name": standard_name, "units": units, "cell_methods": methods}
        attributes |= {"cell_measures": "area: areacella", "missing_value": np.float32(1e20)}
        data = xr.Dataset(
            {
                name: (("time", "lat", "lon"), field.astype("f4"), attributes),
                "time_bnds": (("time", "bnds"), first + steps[:, None] + [0.0, 1.0]),
                "lat_bnds": (("lat", "bnds"), rows[:, None] + [-0.25, 0.25]),
                "lon_bnds": (("lon", "bnds"), columns[:, None] + [-0.375, 0.375]),
            },
            {
                "time": (
                    "time",
                    first + steps + 0.5,
                    {
                        **{"bounds": "time_bnds", "units": "days since 1850-01-01", "calendar": "360_day"},
                        **{"axis": "T", "long_name": "time", "standard_name": "time"},
                    },
                ),
                "lat": ("lat", rows, LATITUDE | {"bounds": "lat_bnds", "axis": "Y"}),
                "lon": ("lon", columns, LONGITUDE | {"bounds": "lon_bnds", "axis": "X"}),
            },
            {"Conventions": "CF-1.7 CMIP-6.2", "mip_era": "CMIP6", "variant_label": "r1i1p1f1"},
        )
        if name == "tas":
            data = data.assign_coords(height=((), 2.0, {"standard_name": "height", "units": "m", "positive": "up"}))
            data["tas"].encoding["coordinates"] = "height"
        path = files(folder) / f"{name}_day_HadGEM3-GC31-HM_hist-1950_r1i1p1f1_gn_20010101-20010330.nc"
        data.to_netcdf(path, encoding={name: PACKED | {"_FillValue": np.float32(1e20)}}, unlimited_dims="time")
        fields[name] = _daily(name, field, units)
    return Truth(latitude, longitude, _days("360_day", days), fields, "360_day")


def ukcp18(folder: Path, days: int = 90) -> Truth:
    """tas and pr of UKCP18's regional projections, 12 km on the British grid, one member, 360 days a year."""
    mapping = {
        **{"grid_mapping_name": "transverse_mercator", "longitude_of_prime_meridian": 0.0},
        **{"semi_major_axis": 6377563.396, "semi_minor_axis": 6356256.909, "longitude_of_central_meridian": -2.0},
        **{"latitude_of_projection_origin": 49.0, "false_easting": 400000.0, "false_northing": -100000.0},
        **{"scale_factor_at_central_meridian": 0.9996012717},
    }
    y, x = 198000.0 + 12000 * np.arange(16), 354000.0 + 12000 * np.arange(20)
    airy = "+proj=tmerc +lat_0=49 +lon_0=-2 +k=0.9996012717 +x_0=400000 +y_0=-100000 +a=6377563.396 +b=6356256.909"
    latitude, longitude = degrees(airy, y, x)
    steps, stamps = np.arange(days), _days("360_day", days)
    first = (2001 - 1970) * 360 * 24
    values = {
        "tas": (temperature(latitude, longitude, steps) - 273.15, "degC", "air_temperature"),
        "pr": (rain(latitude, longitude, steps), "mm/day", "lwe_precipitation_rate"),
    }
    fields = {}
    for name, (field, units, standard_name) in values.items():
        attributes = {"standard_name": standard_name, "units": units, "cell_methods": "time: mean"}
        attributes |= {"long_name": name, "label_units": units, "grid_mapping": "transverse_mercator"}
        data = xr.Dataset(
            {
                name: (
                    ("ensemble_member", "time", "projection_y_coordinate", "projection_x_coordinate"),
                    field[None].astype("f4"),
                    attributes,
                ),
                "transverse_mercator": ((), np.int32(0), mapping),
                "time_bnds": (("time", "bnds"), first + 24.0 * (steps[:, None] + [0, 1])),
                "projection_y_coordinate_bnds": (("projection_y_coordinate", "bnds"), y[:, None] + [-6000.0, 6000.0]),
                "projection_x_coordinate_bnds": (("projection_x_coordinate", "bnds"), x[:, None] + [-6000.0, 6000.0]),
            },
            {
                "ensemble_member": (
                    "ensemble_member",
                    np.array([4], "i4"),
                    {"units": "1", "long_name": "ensemble_member"},
                ),
                "ensemble_member_id": ("ensemble_member", np.array(["HadREM3-GA705-r001i1p00605"], "S27")),
                "time": (
                    "time",
                    first + 24.0 * steps + 12,
                    {
                        **{"axis": "T", "bounds": "time_bnds", "units": "hours since 1970-01-01 00:00:00"},
                        **{"calendar": "360_day", "standard_name": "time"},
                    },
                ),
                "yyyymmdd": ("time", np.array([stamp[:10].replace("-", "") for stamp in stamps], "S64")),
                "month_number": ("time", np.array([int(stamp[5:7]) for stamp in stamps], "i4"), {"units": "1"}),
                "year": ("time", np.full(days, 2001, "i4"), {"units": "1"}),
                "latitude": (("projection_y_coordinate", "projection_x_coordinate"), latitude, LATITUDE),
                "longitude": (("projection_y_coordinate", "projection_x_coordinate"), longitude, LONGITUDE),
                "projection_y_coordinate": (
                    "projection_y_coordinate",
                    y,
                    {
                        **{"axis": "Y", "bounds": "projection_y_coordinate_bnds", "units": "m"},
                        **{"standard_name": "projection_y_coordinate"},
                    },
                ),
                "projection_x_coordinate": (
                    "projection_x_coordinate",
                    x,
                    {
                        **{"axis": "X", "bounds": "projection_x_coordinate_bnds", "units": "m"},
                        **{"standard_name": "projection_x_coordinate"},
                    },
                ),
            },
            {"Conventions": "CF-1.5", "collection": "land-rcm", "resolution": "12km", "scenario": "rcp85"},
        )
        path = files(folder) / f"{name}_rcp85_land-rcm_uk_12km_04_day_20010101-20010330.nc"
        encoding: dict[str, Any] = {
            name: PACKED | {"_FillValue": np.float32(1e20)},
            "ensemble_member_id": {"char_dim_name": "string27"},
            "yyyymmdd": {"char_dim_name": "string64"},
        }
        data.to_netcdf(path, encoding=encoding)
        fields[name] = _daily(name, field / 86400 if name == "pr" else field, units)
    return Truth(latitude, longitude, stamps, fields, "360_day")
