"""Observations as they are given out: E-OBS, daily sums from morning to morning, and IMERG's HDF5 groups."""

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from .truth import LATITUDE, LONGITUDE, Field, Truth, degrees, files, grid, hours_after, rain, temperature


def eobs(folder: Path, days: int = 60) -> Truth:
    """tg and rr of E-OBS, packed, stamped where their day begins, without bounds; the sea is missing. Beside them
    ERA5's daily means and sums, stamped in the same way, at 0.5 degrees."""
    rows, columns = 40.05 + 0.1 * np.arange(20), 20.05 + 0.1 * np.arange(24)
    latitude, longitude = grid(rows, columns)
    steps = np.arange(days)
    sea = longitude + latitude > 64.2
    times = np.datetime64("2001-01-01", "ns") + steps * np.timedelta64(86400 * 10**9, "ns")
    values = {
        "tg": (
            temperature(latitude, longitude, steps) - 273.15,
            "Celsius",
            "air_temperature",
            "mean temperature",
            0.01,
        ),
        "rr": (rain(latitude, longitude, steps), "mm", "thickness_of_rainfall_amount", "rainfall", 0.1),
    }
    fields = {}
    for name, (field, units, standard_name, long_name, scale) in values.items():
        kept = np.round(np.where(sea, np.nan, field) / scale) * scale
        attributes = {"standard_name": standard_name, "long_name": long_name, "units": units}
        data = xr.Dataset(
            {name: (("time", "latitude", "longitude"), kept, attributes)},
            {
                "time": ("time", times, {"long_name": "Time in days", "standard_name": "time"}),
                "latitude": ("latitude", rows, LATITUDE | {"axis": "Y"}),
                "longitude": ("longitude", columns, LONGITUDE | {"axis": "X"}),
            },
            {"E-OBS_version": "29.0e", "Conventions": "CF-1.4"},
        )
        packed = {"dtype": "i2", "scale_factor": scale, "add_offset": 0.0, "_FillValue": np.int16(-9999)}
        time = {"units": "days since 1950-01-01 00:00", "calendar": "standard", "dtype": "i4"}
        path = files(folder) / f"{name}_ens_mean_0.1deg_reg_v29.0e.nc"
        data.to_netcdf(path, encoding={name: packed | {"zlib": True}, "time": time})
        mean = name == "tg"
        day = (-24, 0)
        fields["tas" if mean else "pr"] = (
            Field(kept, "degC", "mean", day) if mean else Field(kept, "kg m-2", "sum", day)
        )
    _era5_daily(folder, times, steps)
    return Truth(latitude, longitude, hours_after("2001-01-02", 24 * steps), fields)


def _era5_daily(folder: Path, times: np.ndarray, steps: np.ndarray) -> None:
    """The Climate Data Store's daily statistics of ERA5."""
    rows, columns = 42.5 - 0.5 * np.arange(7), 19.5 + 0.5 * np.arange(8)
    latitude, longitude = grid(rows, columns)
    for name, field, units in (
        ("t2m", temperature(latitude, longitude, steps), "K"),
        ("tp", rain(latitude, longitude, steps) / 1000, "m"),
    ):
        data = xr.Dataset(
            {name: (("valid_time", "latitude", "longitude"), field.astype("f4"), {"units": units})},
            {
                "number": ((), 0, {"standard_name": "realization", "units": "1"}),
                "valid_time": ("valid_time", times, {"standard_name": "time", "long_name": "time"}),
                "latitude": ("latitude", rows, LATITUDE),
                "longitude": ("longitude", columns, LONGITUDE),
            },
            {"Conventions": "CF-1.7"},
        )
        time = {"units": "days since 2001-01-01", "calendar": "proleptic_gregorian", "dtype": "i8"}
        data.to_netcdf(folder / f"era5_daily_{name}.nc", encoding={"valid_time": time})


def hyras(folder: Path, days: int = 60) -> Truth:
    """Daily rain of the German Weather Service from 06 to 06 UTC, stamped at 12 UTC of its first day, without bounds,
    on a Lambert cone of the European datum."""
    europe = "+proj=lcc +lat_0=52 +lon_0=10 +lat_1=35 +lat_2=65 +x_0=4000000 +y_0=2800000 +ellps=GRS80"
    mapping = {
        **{"grid_mapping_name": "lambert_conformal_conic", "standard_parallel": [35.0, 65.0]},
        **{"longitude_of_central_meridian": 10.0, "latitude_of_projection_origin": 52.0},
        **{"false_easting": 4000000.0, "false_northing": 2800000.0},
        **{"semi_major_axis": 6378137.0, "inverse_flattening": 298.257222101},
    }
    y, x = 2795000.0 + 1000 * np.arange(16), 3990000.0 + 1000 * np.arange(20)
    latitude, longitude = degrees(europe, y, x)
    steps = np.arange(days)
    times = np.datetime64("2001-01-01T12", "ns") + steps * np.timedelta64(86400 * 10**9, "ns")
    wet = rain(latitude, longitude, steps)
    attributes = {"standard_name": "precipitation_amount", "units": "mm", "long_name": "Daily Precipitation Sum"}
    data = xr.Dataset(
        {
            "pr": (("time", "y", "x"), wet.astype("f4"), attributes | {"grid_mapping": "crs"}),
            "crs": ((), np.int32(0), mapping),
        },
        {
            "time": ("time", times, {"standard_name": "time", "axis": "T"}),
            "y": ("y", y, {"units": "m", "standard_name": "projection_y_coordinate", "axis": "Y"}),
            "x": ("x", x, {"units": "m", "standard_name": "projection_x_coordinate", "axis": "X"}),
            "lat": (("y", "x"), latitude, LATITUDE),
            "lon": (("y", "x"), longitude, LONGITUDE),
        },
        {"Conventions": "CF-1.7", "title": "HYRAS-DE-PR"},
    )
    data["pr"].encoding = {"_FillValue": np.float32(-99999), "coordinates": "lon lat", "zlib": True}
    time = {"units": "hours since 1931-01-01 00:00:00", "calendar": "standard", "dtype": "f8"}
    data.to_netcdf(files(folder) / "pr_hyras_1_2001_v6-0_de.nc", encoding={"time": time})
    fields = {"pr": Field(wet, "kg m-2", "sum", (-24, 0))}
    return Truth(latitude, longitude, hours_after("2001-01-02T06", 24 * steps), fields)


def imerg(folder: Path, count: int = 20) -> Truth:
    """IMERG's final run, version 7: a file each half hour, in a group of HDF5, columns before rows, stamped when it
    begins, in the "julian" calendar, which these files say and whose dates are the real ones since 1900."""
    import netCDF4

    rows, columns = (10.05 + 0.1 * np.arange(16)).astype("f4"), (20.05 + 0.1 * np.arange(20)).astype("f4")
    latitude, longitude = grid(rows.astype("f8"), columns.astype("f8"))
    steps = np.arange(count)
    rate = rain(latitude, longitude, steps)
    rate[:, 3, 4] = np.nan
    since = "seconds since 1980-01-06 00:00:00 UTC"
    start = np.datetime64("2020-06-01T00:00:00")
    for step in steps:
        begin = start + int(step) * np.timedelta64(30, "m")
        end = begin + np.timedelta64(1799, "s")
        first, last = (np.datetime_as_string(time, "s").replace(":", "") for time in (begin, end))
        span = f"{first[:10].replace('-', '')}-S{first[11:]}-E{last[11:]}"
        name = f"3B-HHR.MS.MRG.3IMERG.{span}.{30 * step % 1440:04d}.V07B.HDF5"
        seconds = int((begin - np.datetime64("1980-01-06T00:00:00")).astype(int))
        with netCDF4.Dataset(files(folder) / name, "w") as file:
            file.FileHeader = "AlgorithmID=3IMERGHH;\nMissingData=;\n"
            group = file.createGroup("Grid")
            group.GridHeader = "Registration=CENTER;\nOrigin=SOUTHWEST;\n"
            for dim, size in {
                "time": None,
                "lon": len(columns),
                "lat": len(rows),
                "lonv": 2,
                "latv": 2,
                "nv": 2,
            }.items():
                group.createDimension(dim, size)

            def put(
                place: Any,
                name: str,
                kind: str,
                dims: tuple[str, ...],
                values: Any,
                fill: Any = None,
                **attributes: Any,
            ):
                variable = place.createVariable(name, kind, dims, fill_value=fill)
                variable.setncatts({"DimensionNames": ",".join(dims)} | attributes)
                variable[:] = values

            east = {"units": "degrees_east", "standard_name": "longitude", "bounds": "lon_bnds", "axis": "X"}
            north = {"units": "degrees_north", "standard_name": "latitude", "bounds": "lat_bnds", "axis": "Y"}
            clock = {"units": since, "standard_name": "time", "bounds": "time_bnds", "axis": "T", "calendar": "julian"}
            put(group, "lon", "f4", ("lon",), columns, **east)
            put(group, "lat", "f4", ("lat",), rows, **north)
            put(group, "time", "i4", ("time",), [seconds], **clock)
            put(group, "lon_bnds", "f4", ("lon", "lonv"), columns[:, None] + np.float32([-0.05, 0.05]))
            put(group, "lat_bnds", "f4", ("lat", "latv"), rows[:, None] + np.float32([-0.05, 0.05]))
            put(
                group,
                "time_bnds",
                "i4",
                ("time", "nv"),
                [[seconds, seconds + 1800]],
                units=since,
                coordinates="time nv",
            )
            values = np.where(np.isnan(rate[step]), -9999.9, rate[step]).T.astype("f4")[None]
            told = {"units": "mm/hr", "coordinates": "time lon lat", "CodeMissingValue": "-9999.9"}
            dims, fill = ("time", "lon", "lat"), np.float32(-9999.9)
            put(group, "precipitation", "f4", dims, values, fill, **told, LongName="Complete merged precipitation")
            inner = group.createGroup("Intermediate")
            put(inner, "MWprecipitation", "f4", dims, values, fill, **told)
    fields = {"precipitation": Field(rate, "mm h-1", "mean", (0, 0.5))}
    return Truth(latitude, longitude, hours_after("2020-06-01", 0.5 * steps), fields)
