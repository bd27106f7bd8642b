"""The shipped recipes of GRIB services, on files as those services write them: right amounts, right places."""

import bz2
from pathlib import Path

import numpy as np
import pytest

import dsr.data.store
from dsr.data.prepare import prepare_from_options
from dsr.data.store import Store

from .archives import grib_services as services
from .archives.grib import points

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
RECIPES = Path(__file__).resolve().parents[2] / "ds_configs/recipes"
KELVIN, MILLIMETRES = 0.01, 0.02  # what float32 and packing may change


def prepared(folder, recipe):
    """The store of a shipped recipe whose files lie below the folder, and what was said of it."""
    said = prepare_from_options(recipe=RECIPES / f"{recipe}.json", output=folder / "store", root=folder)
    return Store(folder / "store"), said


def check(store, part, archive, count):
    """Every field of a part of the store is the true one of its valid time, and lies where eccodes puts it."""
    data = dsr.data.store.open(store.path)[f"/{part}"]
    times = np.asarray(store.group[f"{part}/time"])
    assert len(times) == count
    for name, truth in archive.fields.items():
        by_time = {init + lead: field for (init, lead), field in truth.items()}
        wind = name == "speed"  # which turning does not change
        values = np.hypot(data["u10"].values, data["v10"].values) if wind else data[name].values
        for time, field in zip(times, values, strict=True):
            atol = MILLIMETRES if name in ("tp", "rain") else KELVIN
            np.testing.assert_allclose(field, by_time[int(time)], rtol=1e-4, atol=atol, err_msg=f"{name} at {time}")
    latitude, longitude = data["latitude"].values, data["longitude"].values
    if latitude.ndim == 1:
        longitude, latitude = np.meshgrid(longitude, latitude)
    listed = next(points(unpacked(archive.file)))
    cell = np.abs(np.diff(latitude, axis=0)).mean()
    for ours, true in ((latitude, listed[:, 0]), (longitude, listed[:, 1])):
        away = np.sort((ours.ravel() + 180) % 360) - np.sort((true + 180) % 360)
        assert np.abs(away).max() < 0.01 * cell


def unpacked(path):
    if path.suffix == ".bz2":
        path.with_suffix(".first").write_bytes(bz2.decompress(path.read_bytes()))
        return path.with_suffix(".first")
    return path


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    monkeypatch.setattr("dsr.data.openers.MANY", 10**6)


@pytest.mark.parametrize(
    ("service", "recipe", "frames"),
    [
        ("hrrr", "hrrr_x4", 24),
        ("arome", "arome_lambert_x4", 24),
        ("cosmo_rea6", "cosmo_rea6_x4", 191),
        ("stage_iv", "stage4_x4", 192),
        ("mrms", "mrms_x4", 192),
    ],
)
def test_an_archive_that_is_coarsened(tmp_path, service, recipe, frames):
    archive = getattr(services, service)(tmp_path)
    store, _ = prepared(tmp_path, recipe)
    check(store, "high", archive, frames)


@pytest.mark.parametrize(
    ("low", "high", "recipe", "pairs"),
    [
        ("era5", "era5_land", "era5_to_era5_land", 185),
        ("ecmwf_open_data", "icon_d2", "ecmwf_to_icon_d2", 16),
        ("gefs", "gfs", "gefs_to_gfs", 64),
    ],
)
def test_two_archives_that_are_paired(tmp_path, low, high, recipe, pairs):
    archives = {"low": getattr(services, low)(tmp_path), "high": getattr(services, high)(tmp_path)}
    store, _ = prepared(tmp_path, recipe)
    for part, archive in archives.items():
        check(store, part, archive, pairs)
    assert not any("is taken as" in problem for problem in store.attributes["provenance"]["problems"])
