"""Archives that people reported trouble with, prepared whole: what lies in the store is what the files say."""

import json

import cftime
import eccodes
import netCDF4
import numpy as np
import pytest
import xarray as xr

from dsr.config import Data
from dsr.data.features import Features
from dsr.data.interpolate import Interpolation
from dsr.data.prepare import prepare_from_options
from dsr.data.store import Store
from dsr.data.store import open as open_store

from .archives import HOUR

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]
LATITUDE, LONGITUDE = np.arange(58, 50, -0.25), np.arange(-10, -2, 0.25)
PLACES = {"lat": ("lat", LATITUDE, {"units": "degrees_north"}), "lon": ("lon", LONGITUDE, {"units": "degrees_east"})}
RANDOM = np.random.default_rng(0)


def prepared(tmp_path, high, low=None, recipe=None, **options):
    """The store of files that lie in the test's folder."""
    output = tmp_path / "store.zarr"
    if recipe is not None:
        (tmp_path / "recipe.json").write_text(json.dumps({"high": {"files": [high]}, "factor": 4} | recipe))
        prepare_from_options(recipe=tmp_path / "recipe.json", output=output)
    else:
        files = {"high": [high], "low": [low] if low else []}
        prepare_from_options(recipe=None, output=output, root=tmp_path, **files, **({} if low else {"factor": 4}))
    return Store(output)


def problems(store):
    return "\n".join(store.attributes["provenance"]["problems"])


def message(values, date, time, start, end, short_name="tp"):
    """An accumulated GRIB 2 field from north to south by 0.25 degrees from 58 N 10 W, over the steps start to end."""
    handle = eccodes.codes_grib_new_from_samples("regular_ll_sfc_grib2")
    ny, nx = values.shape
    keys = {
        "Ni": nx, "Nj": ny,
        "latitudeOfFirstGridPointInDegrees": 58.0, "latitudeOfLastGridPointInDegrees": 58.0 - 0.25 * (ny - 1),
        "longitudeOfFirstGridPointInDegrees": 350.0, "longitudeOfLastGridPointInDegrees": 350.0 + 0.25 * (nx - 1),
        "iDirectionIncrementInDegrees": 0.25, "jDirectionIncrementInDegrees": 0.25,
        "centre": "kwbc", "dataDate": date, "dataTime": time, "productDefinitionTemplateNumber": 8,
        "discipline": 0, "parameterCategory": 1, "parameterNumber": 8,
        "typeOfFirstFixedSurface": 1, "typeOfStatisticalProcessing": 1,
        "startStep": start, "endStep": end, "bitsPerValue": 24,
    }  # fmt: skip
    for key, value in keys.items():
        eccodes.codes_set(handle, key, value)
    eccodes.codes_set_values(handle, values.astype(float).ravel())
    data = eccodes.codes_get_message(handle)
    eccodes.codes_release(handle)
    return data


def test_a_rotated_pole_lies_where_it_is_and_pairs_with_a_global_driver(tmp_path):
    pole = {
        "grid_mapping_name": "rotated_latitude_longitude",
        "grid_north_pole_latitude": 39.25,
        "grid_north_pole_longitude": -162.0,
    }
    rlat, rlon = np.radians(np.arange(-6.0, 1.0, 0.22)[:32]), np.radians(np.arange(-10.5, -3, 0.22)[:32])
    phi, lam = np.meshgrid(rlat, rlon, indexing="ij")
    tilt = np.radians(90 - 39.25)  # the formulas of the rotation, by hand
    latitude = np.degrees(np.arcsin(np.cos(tilt) * np.sin(phi) + np.sin(tilt) * np.cos(phi) * np.cos(lam)))
    east = np.arctan2(np.cos(phi) * np.sin(lam), np.cos(tilt) * np.cos(phi) * np.cos(lam) - np.sin(tilt) * np.sin(phi))
    longitude = np.degrees(east) - 162.0 + 180.0

    def field(lat, lon, day):
        return 283 - (lat - 45) * 1.5 + 3 * np.sin(np.radians(lon) * 8) + np.sin(day / 5)

    days = np.datetime64("2001-01-01T12", "ns") + np.arange(60) * 24 * HOUR
    values = np.stack([field(latitude, longitude, day) for day in range(60)]).astype("f4")
    attributes = {"units": "K", "standard_name": "air_temperature", "grid_mapping": "rotated_pole"}
    xr.Dataset(
        {"tas": (("time", "rlat", "rlon"), values, attributes), "rotated_pole": ((), 0, pole)},
        {
            "time": days,
            "rlat": ("rlat", np.degrees(rlat), {"units": "degrees", "standard_name": "grid_latitude"}),
            "rlon": ("rlon", np.degrees(rlon), {"units": "degrees", "standard_name": "grid_longitude"}),
        },
    ).to_netcdf(tmp_path / "high.nc")
    lat, lon = np.arange(90, -90.5, -1.0), np.arange(0, 360, 1.0)
    world = np.stack([field(lat[:, None], (lon + 180) % 360 - 180, day) for day in range(60)]).astype("f4")
    xr.Dataset(
        {"tas": (("time", "lat", "lon"), world, {"units": "K", "standard_name": "air_temperature"})},
        {
            "time": days,
            "lat": ("lat", lat, {"units": "degrees_north"}),
            "lon": ("lon", lon, {"units": "degrees_east"}),
        },
    ).to_netcdf(tmp_path / "low.nc")
    store = prepared(tmp_path, "high.nc", "low.nc")
    np.testing.assert_allclose(store.grid("high").latitude, latitude, atol=1e-9)
    np.testing.assert_allclose(store.grid("high").longitude % 360, longitude % 360, atol=1e-9)
    np.testing.assert_allclose(store.low_index[0], 90 - latitude, atol=1e-9)
    bicubic = Interpolation(store.low_index, store.low_shape, "bicubic")(store.low[0])
    assert np.abs(bicubic - store.high[0]).max() < 0.15  # of 16 K; cubic convolution at 1 degree


def test_a_year_of_360_days_keeps_its_dates(tmp_path):
    dates = [(y, m, d) for y in range(2060, 2064) for m in range(1, 13) for d in range(1, 31, 3)]
    times = np.array([cftime.Datetime360Day(*date, 12) for date in dates])
    values = RANDOM.normal(283, 0.5, (len(times), 32, 32)).astype("f4")
    data = xr.Dataset({"tas": (("time", "lat", "lon"), values, {"units": "K"})}, {"time": times, **PLACES})
    data.to_netcdf(tmp_path / "ukcp.nc", encoding={"time": {"units": "hours since 1970-01-01", "calendar": "360_day"}})
    ranges = {"train": ["2060-01-01", "2061-12-30"], "validation": ["2062-01-01", "2062-12-30"]}
    splits = {"splits": {"by": "time", **ranges, "test": ["2063-01-01", "2063-12-30"]}}
    store = prepared(tmp_path, "ukcp.nc", recipe=splits)
    held = open_store(store.path)["low"].time.values
    found = {name: held[store.samples(name)] for name in ("train", "validation", "test")}
    assert {name: (str(t[0])[:10], str(t[-1])[:10]) for name, t in found.items()} == {
        "train": ("2060-01-01", "2061-12-28"),
        "validation": ("2062-01-01", "2062-12-28"),
        "test": ("2063-01-01", "2063-12-28"),
    }
    features = Features.of(store, Data(extras=["day_of_year"]))
    phase = np.degrees(np.arctan2(*features.scalars(store.low_init_time, store.low_lead_time).T)) % 360
    day = np.array([time.dayofyr - 0.5 for time in times])
    np.testing.assert_allclose((phase - day + 180) % 360 - 180, 0, atol=1e-3)


def test_buckets_that_restart_every_six_hours_are_taken_apart(tmp_path):
    rain = RANDOM.gamma(1.0, 1.0, (10, 8, 32, 32))
    for day, three in enumerate(rain):
        out = b""
        for i in range(8):
            bucket = three[i] if i % 2 == 0 else three[i - 1] + three[i]
            out += message(bucket, 20240501 + day, 0, i * 3 // 6 * 6, (i + 1) * 3)
        (tmp_path / f"gefs.{day}.grib2").write_bytes(out)
    store = prepared(tmp_path, "gefs.*.grib2")
    np.testing.assert_allclose(store.high[:][:, 0].reshape(rain.shape), rain, atol=1e-5)
    assert store.attributes["provenance"]["intervals"]["high"] == {"tp": [[-3.0, 0.0]]}


@pytest.mark.parametrize(("units", "mean"), [(None, 0.002), ("kg m-2", 2.0)])
def test_files_of_different_units_become_one(tmp_path, units, mean):
    rain = RANDOM.gamma(1, 2, (80, 32, 32))
    for name, start, values, unit in (
        ("tp_2023.nc", "2023-12-01", rain[:40] / 1000, "m"),
        ("tp_2024.nc", "2024-01-01", rain[40:], "kg m-2"),
    ):
        time = np.datetime64(start, "ns") + np.arange(40) * 6 * HOUR
        data = {"tp": (("time", "lat", "lon"), values.astype("f4"), {"units": unit})}
        xr.Dataset(data, {"time": time, **PLACES}).to_netcdf(tmp_path / name)
    variables = {"high": {"files": ["tp_*.nc"], "variables": {"tp": {"units": units}}}} if units else {}
    store = prepared(tmp_path, "tp_*.nc", recipe=variables)
    np.testing.assert_allclose(store.high[:][:, 0], rain * mean / 2, rtol=1e-6)
    assert "tp is in kg m-2 and in m in different files" in problems(store)
    assert "no file gives the interval" in problems(store)


def test_totals_since_midnight_become_hours(tmp_path):
    rain = RANDOM.gamma(0.5, 0.4, (10, 24, 32, 32)) / 1000
    time = np.datetime64("2024-06-01T01", "ns") + np.arange(240) * HOUR
    attributes = {"units": "m", "GRIB_stepType": "accum", "GRIB_cfVarName": "tp", "standard_name": "unknown"}
    total = rain.cumsum(1).reshape(-1, 32, 32).astype("f4")
    data = xr.Dataset(
        {"tp": (("valid_time", "lat", "lon"), total, attributes)},
        {
            "valid_time": ("valid_time", time, {"standard_name": "time"}),
            "number": 0,
            "expver": ("valid_time", np.array(["0001"] * 240, object)),
            **PLACES,
        },
    )
    data.to_netcdf(tmp_path / "land.nc")
    store = prepared(tmp_path, "land.nc")
    np.testing.assert_allclose(store.high[:][:, 0], rain.reshape(-1, 32, 32), atol=2e-9)
    assert open_store(store.path)["high"].tp.attrs["cell_methods"] == "time: sum"


def test_only_hours_that_a_message_holds_are_there(tmp_path):
    out, truth = b"", {}
    for hour in range(240):
        valid = np.datetime64("2024-06-01", "h") + hour
        of_day = hour % 24
        step = of_day - 6 if 7 <= of_day <= 18 else (of_day - 18) % 24
        init = valid - step
        truth[valid] = RANDOM.gamma(0.5, 0.4, (32, 32))
        day = str(init)
        out += message(truth[valid], int(day[:10].replace("-", "")), int(day[11:13]) * 100, step - 1, step)
    (tmp_path / "era5_tp.grib").write_bytes(out)
    store = prepared(tmp_path, "era5_tp.grib")
    times = store.time.astype("M8[s]").astype("M8[h]")
    assert len(times) == 240 and set(times) == set(truth)
    for row, time in enumerate(times):
        np.testing.assert_allclose(store.high[row][0], truth[time], atol=1e-5)


def test_members_may_be_named_by_texts(tmp_path):
    time = np.datetime64("2001-01-01", "ns") + np.arange(60) * 24 * HOUR
    values = 280 + RANDOM.normal(0, 1, (3, 60, 32, 32)) + 10 * np.arange(3)[:, None, None, None]
    high = {"tas": (("time", "lat", "lon"), values[0].astype("f4"), {"units": "K"})}
    xr.Dataset(high, {"time": time, **PLACES}).to_netcdf(tmp_path / "high.nc")
    low = values.reshape(3, 60, 8, 4, 8, 4).mean((3, 5)).astype("f4")
    places = {
        "lat": ("lat", LATITUDE.reshape(8, 4).mean(1), {"units": "degrees_north"}),
        "lon": ("lon", LONGITUDE.reshape(8, 4).mean(1), {"units": "degrees_east"}),
    }
    names = np.array(["r1i1p1f1", "r2i1p1f1", "r3i1p1f1"], object)
    fields = {"tas": (("member_id", "time", "lat", "lon"), low, {"units": "K"})}
    xr.Dataset(fields, {"time": time, **places, "member_id": names}).to_netcdf(tmp_path / "low.nc")
    store = prepared(tmp_path, "high.nc", "low.nc")
    assert store.members == 3 and not problems(store)
    np.testing.assert_allclose(store.low[:].mean((0, 2, 3, 4)), [280, 290, 300], atol=0.1)


def test_a_global_low_grid_goes_on_across_its_seam(tmp_path):
    time = np.datetime64("2001-01-01", "ns") + np.arange(30) * 24 * HOUR

    def write(name, lat, lon):
        wave = 280 + 20 * np.cos(np.radians(lat))[:, None] * np.sin(np.radians(lon * 6))
        values = (wave + 0.1 * np.arange(30)[:, None, None]).astype("f4")
        places = {"lat": ("lat", lat, {"units": "degrees_north"}), "lon": ("lon", lon, {"units": "degrees_east"})}
        data = {"tas": (("time", "lat", "lon"), values, {"units": "K"})}
        xr.Dataset(data, {"time": time, **places}).to_netcdf(tmp_path / name)

    write("low.nc", np.arange(-88.0, 89, 4), np.arange(0.0, 360, 4))
    for name, longitudes in (("world.nc", np.arange(0.0, 360, 2)), ("seam.nc", np.arange(-20.0, 22, 2))):
        (tmp_path / name.removesuffix(".nc")).mkdir()
        write(name, np.arange(-60.0, 61, 2), longitudes)
        folder = tmp_path / name.removesuffix(".nc")
        files = {"high": [str(tmp_path / name)], "low": [str(tmp_path / "low.nc")]}
        prepare_from_options(recipe=None, output=folder / "store.zarr", **files)
        store = Store(folder / "store.zarr")
        up = Interpolation(store.low_index, store.low_shape, "bicubic")(store.low[0])[0]
        error = np.abs(up - store.high[0][0]).max(0)
        at_the_seam = np.abs((longitudes + 180) % 360 - 180) <= 8
        assert error[at_the_seam].max() <= error[~at_the_seam].max() < 0.25, error


@pytest.mark.parametrize(
    ("units", "start"),
    [("days since 1950-01-01", "1950-01-01"), ("days since 1-1-1 00:00:0.0", "0001-01-01")],
)
def test_floating_times_meet_the_hours_that_they_stand_for(tmp_path, units, start):
    hours = np.arange(240)
    days = (np.datetime64("2023-11-16") - np.datetime64(start)).astype(int) + (2 if start[0] == "0" else 0)
    for name, step, numbers, told in (
        ("high.nc", 0.25, hours, "hours since 2023-11-16 00:00:00"),
        ("low.nc", 1.0, np.round(days + hours / 24, 6), units),
    ):
        with netCDF4.Dataset(tmp_path / name, "w") as file:
            size = int(8 / step)
            for dim, values, unit in (
                ("time", numbers, told),
                ("lat", 50 + step * (np.arange(size) + 0.5), "degrees_north"),
                ("lon", -10 + step * (np.arange(size) + 0.5), "degrees_east"),
            ):
                file.createDimension(dim, len(values))
                variable = file.createVariable(dim, np.asarray(values).dtype, (dim,))
                variable.units = unit
                variable[:] = values
            field = file.createVariable("t2m", "f4", ("time", "lat", "lon"))
            field.units = "K"
            field[:] = 280 + 0.01 * hours[:, None, None] + RANDOM.normal(0, 0.1, (240, size, size))
    store = prepared(tmp_path, "high.nc", "low.nc")
    assert len(store.high_index) == 240 and not (store.low_time % 3600).any()
    np.testing.assert_array_equal(store.low_time, store.time[store.high_index])
