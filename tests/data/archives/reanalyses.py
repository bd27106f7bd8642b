"""ERA5 and what is made of it: the Climate Data Store new and old, ERA5-Land, and the cloud's Zarr archives."""

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from .truth import LATITUDE, LONGITUDE, PACKED, Field, Truth, files, grid, hours_after, rain, temperature


def _cds(name: str, step_type: str, units: str, kind: str = "fc") -> dict[str, Any]:
    """What the Climate Data Store's converter leaves of GRIB in a variable's attributes."""
    long = {"t2m": "2 metre temperature", "tp": "Total precipitation"}[name]
    short = {"t2m": "2t", "tp": "tp"}[name]
    return {
        **{"GRIB_paramId": {"t2m": 167, "tp": 228}[name], "GRIB_dataType": kind, "GRIB_typeOfLevel": "surface"},
        **{"GRIB_stepUnits": 1, "GRIB_stepType": step_type, "GRIB_gridType": "regular_ll"},
        **{"GRIB_missingValue": 3.4028234663852886e38, "GRIB_uvRelativeToGrid": 0, "GRIB_shortName": short},
        **{"GRIB_cfName": "unknown", "GRIB_cfVarName": name, "GRIB_name": long, "GRIB_units": units},
        **{"GRIB_totalNumber": 0, "GRIB_surface": 0.0, "long_name": long, "units": units, "standard_name": "unknown"},
    }


def _from_cds(
    path: Path, name: str, values: np.ndarray, attributes: dict[str, Any], place: Any, times: np.ndarray, old: int
):
    """A file as the Climate Data Store gives it; all but the first `old` times are of ERA5T."""
    rows, columns = place
    data = xr.Dataset(
        {name: (("valid_time", "latitude", "longitude"), values.astype("f4"), attributes)},
        {
            "number": (
                (),
                0,
                {"long_name": "ensemble member numerical id", "units": "1", "standard_name": "realization"},
            ),
            "valid_time": ("valid_time", times, {"long_name": "time", "standard_name": "time"}),
            "latitude": ("latitude", rows, LATITUDE | {"stored_direction": "decreasing"}),
            "longitude": ("longitude", columns, LONGITUDE),
            "expver": ("valid_time", np.where(np.arange(len(times)) < old, "0001", "0005").astype(object)),
        },
        {"GRIB_centre": "ecmf", "GRIB_subCentre": 0, "Conventions": "CF-1.7"},
    )
    time = {"units": "seconds since 1970-01-01", "calendar": "proleptic_gregorian", "dtype": "i8", "_FillValue": None}
    data.to_netcdf(path, encoding={"valid_time": time, name: PACKED | {"_FillValue": np.float32("nan")}})


def _hourly(start: str, count: int) -> np.ndarray:
    return np.datetime64(start, "ns") + np.arange(count) * np.timedelta64(1, "h").astype("m8[ns]")


def era5_cds(folder: Path, hours: int = 96) -> Truth:
    """t2m and tp of ERA5 from the new Climate Data Store, hourly, its last day still ERA5T."""
    rows, columns = 46 - 0.25 * np.arange(20), 4 + 0.25 * np.arange(24)
    latitude, longitude = grid(rows, columns)
    steps, times = np.arange(hours), _hourly("2024-06-01T00", hours)
    warm, wet = temperature(latitude, longitude, steps), rain(latitude, longitude, steps)
    place = rows, columns
    _from_cds(
        files(folder) / "data_stream-oper_stepType-instant.nc",
        *("t2m", warm, _cds("t2m", "instant", "K", "an"), place, times, hours - 24),
    )
    _from_cds(
        folder / "data_stream-oper_stepType-accum.nc",
        *("tp", wet / 1000, _cds("tp", "accum", "m"), place, times, hours - 24),
    )
    fields = {"t2m": Field(warm, "K"), "tp": Field(wet, "kg m-2", "sum", (-1, 0))}
    return Truth(latitude, longitude, hours_after("2024-06-01", steps), fields)


def era5_land(folder: Path, days: int = 4) -> Truth:
    """t2m and tp of ERA5-Land from the new Climate Data Store: tp is a total since 00 UTC, whose stamp 00 UTC ends the
    day before. What the first stamp's hour brought cannot be known, so the truth begins an hour later."""
    rows, columns = 45.5 - 0.1 * np.arange(20), 5 + 0.1 * np.arange(24)
    latitude, longitude = grid(rows, columns)
    steps, times = np.arange(24 * days + 1), _hourly("2024-06-01T00", 24 * days + 1)
    warm, wet = temperature(latitude, longitude, steps), rain(latitude, longitude, steps)
    daily = wet[1:].reshape(days, 24, *latitude.shape).cumsum(1).reshape(-1, *latitude.shape)
    total = np.concatenate([24 * wet[:1], daily])
    for name, values, attributes in (
        ("t2m", warm, _cds("t2m", "instant", "K")),
        ("tp", total / 1000, _cds("tp", "accum", "m")),
    ):
        path = files(folder) / f"era5_land_{name}.nc"
        _from_cds(path, name, values, attributes, (rows, columns), times, len(times))
    fields = {"t2m": Field(warm[1:], "K"), "tp": Field(wet[1:], "kg m-2", "sum", (-1, 0))}
    return Truth(latitude, longitude, hours_after("2024-06-01", steps[1:]), fields)


def era5_cds_until_2024(folder: Path, hours: int = 96) -> Truth:
    """t2m and tp of ERA5 from the Climate Data Store as it was: packed, ERA5 and ERA5T along their own dimension."""
    rows, columns = (46 - 0.25 * np.arange(20)).astype("f4"), (4 + 0.25 * np.arange(24)).astype("f4")
    latitude, longitude = grid(rows.astype("f8"), columns.astype("f8"))
    steps, final = np.arange(hours), hours - 24
    warm, wet = temperature(latitude, longitude, steps), rain(latitude, longitude, steps)
    data = xr.Dataset(coords={
        "longitude": ("longitude", columns, {"units": "degrees_east", "long_name": "longitude"}),
        "latitude": ("latitude", rows, {"units": "degrees_north", "long_name": "latitude"}),
        "expver": ("expver", np.array([1, 5], "i4"), {"long_name": "expver"}),
        "time": ("time", _hourly("2024-06-01T00", hours), {"long_name": "time"}),
    })  # fmt: skip
    encoding: dict[str, Any] = {
        "time": {"dtype": "i4", "units": "hours since 1900-01-01 00:00:00.0", "calendar": "gregorian"}
    }
    for name, values, units, long_name in (
        ("t2m", warm, "K", "2 metre temperature"),
        ("tp", wet / 1000, "m", "Total precipitation"),
    ):
        both = np.full((hours, 2, *latitude.shape), np.nan)
        both[:final, 0], both[final:, 1] = values[:final], values[final:]
        data[name] = (("time", "expver", "latitude", "longitude"), both, {"units": units, "long_name": long_name})
        low, high = float(values.min()), float(values.max())
        encoding[name] = {"dtype": "i2", "scale_factor": (high - low) / 65532, "add_offset": (high + low) / 2}
        encoding[name] |= {"_FillValue": np.int16(-32767), "missing_value": np.int16(-32767)}
    data.attrs["Conventions"] = "CF-1.6"
    data.to_netcdf(files(folder) / "adaptor.mars.internal.nc", format="NETCDF3_64BIT", encoding=encoding)
    fields = {"t2m": Field(warm, "K"), "tp": Field(wet, "kg m-2", "sum", (-1, 0))}
    return Truth(latitude, longitude, hours_after("2024-06-01", steps), fields)


def arco_era5(folder: Path, hours: int = 96) -> Truth:
    """2 m temperature, rain and temperature on levels of the analysis-ready, cloud-optimised ERA5 (Zarr 2)."""
    rows, columns = 50 - 0.25 * np.arange(16), (354 + 0.25 * np.arange(40)) % 360  # across Greenwich
    columns = np.sort(columns)
    columns = np.concatenate([columns[columns > 180], columns[columns < 180]])
    latitude, longitude = grid(rows, columns)
    steps = np.arange(hours)
    warm, wet = temperature(latitude, longitude, steps), rain(latitude, longitude, steps)
    levels = np.array([500, 850], "i4")
    dims = ("time", "latitude", "longitude")
    data = xr.Dataset(
        {
            "2m_temperature": (
                dims,
                warm.astype("f4"),
                {"long_name": "2 metre temperature", "short_name": "t2m", "units": "K"},
            ),
            "total_precipitation": (
                dims,
                (wet / 1000).astype("f4"),
                {"long_name": "Total precipitation", "short_name": "tp", "units": "m"},
            ),
            "temperature": (
                ("time", "level", "latitude", "longitude"),
                (warm[:, None] - np.array([25.0, 8.0])[:, None, None]).astype("f4"),
                {"long_name": "Temperature", "short_name": "t", "units": "K", "standard_name": "air_temperature"},
            ),
        },
        {
            "time": ("time", _hourly("2021-03-01T00", hours)),
            "level": ("level", levels),
            "latitude": ("latitude", rows.astype("f4"), {"units": "degrees_north", "long_name": "latitude"}),
            "longitude": ("longitude", columns.astype("f4"), {"units": "degrees_east", "long_name": "longitude"}),
        },
    )
    encoding: dict[str, Any] = {name: {"chunks": (1, *data[name].shape[1:])} for name in data}
    encoding["time"] = {"units": "hours since 1900-01-01", "calendar": "proleptic_gregorian", "dtype": "i8"}
    data.to_zarr(files(folder) / "arco_era5.zarr", zarr_format=2, consolidated=True, encoding=encoding)
    fields = {
        "2m_temperature": Field(warm, "K"),
        "total_precipitation": Field(wet, "kg m-2", "sum", (-1, 0)),
        "t850": Field(warm - 8, "K"),
    }
    return Truth(latitude, longitude, hours_after("2021-03-01", steps), fields)


def weatherbench2(folder: Path, runs: int = 24) -> Truth:
    """Forecasts of WeatherBench 2 (`prediction_timedelta`, longitude before latitude, the globe) and ERA5 beside them;
    the truth is ERA5's."""
    lead = 6 * np.arange(3)
    truth = None
    for name, size, kept in (("era5", 2, False), ("hres", 4, True)):
        rows, columns = (
            -90 + 180 / 32 * size / 2 * np.arange(64 // size + 1),
            360 / 64 * size / 2 * np.arange(128 // size),
        )
        latitude, longitude = grid(rows, columns)
        hours = 12 * np.arange(runs)[:, None] + lead if kept else 6 * np.arange(2 * runs + 3)
        warm, wet = (f(latitude, longitude, hours.ravel()).swapaxes(-1, -2) for f in (temperature, rain))
        dims = (("time", "prediction_timedelta") if kept else ("time",)) + ("longitude", "latitude")
        shape = (*hours.shape, *warm.shape[1:])
        data = xr.Dataset(
            {
                "2m_temperature": (
                    dims,
                    warm.reshape(shape).astype("f4"),
                    {"units": "K", "long_name": "2 metre temperature"},
                ),
                "total_precipitation_6hr": (
                    dims,
                    (wet.reshape(shape) / 1000).astype("f4"),
                    {"units": "m", "long_name": "Total precipitation", "short_name": "tp"},
                ),
            },
            {
                "time": _hourly("2020-01-01T00", 1)
                + (hours[:, 0] if kept else hours) * np.timedelta64(3600 * 10**9, "ns"),
                "longitude": ("longitude", columns),
                "latitude": ("latitude", rows),
            },
        )
        encoding: dict[str, Any] = {"time": {"units": "hours since 2016-01-01", "dtype": "i8"}}
        if kept:
            data["prediction_timedelta"] = ("prediction_timedelta", lead.astype("i8"), {"units": "hours"})
            data["total_precipitation_6hr"][:, 0] = np.nan  # nothing falls before the start
        else:
            fields = {
                "2m_temperature": Field(warm.swapaxes(-1, -2), "K"),
                "total_precipitation_6hr": Field(wet.swapaxes(-1, -2), "kg m-2", "sum", (-6, 0)),
            }
            truth = Truth(latitude, longitude, hours_after("2020-01-01", hours), fields)
        data.to_zarr(files(folder) / f"{name}.zarr", zarr_format=2, consolidated=True, encoding=encoding)
    assert truth is not None
    return truth
