"""From files as services write them to a prediction: a shipped recipe, real ranks, and where the prediction lies."""

import bz2
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from dsr.data import prepare as stores
from dsr.data.recipe import load
from dsr.predict import predict
from tests import ranks

from .archives import grib_services
from .archives.grib import points
from .archives.netcdf import written

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
RECIPES = Path(__file__).resolve().parents[2] / "ds_configs/recipes"
UPDATES = ("gradient_accumulation_steps=4", 'dsr.budget={"updates": 20}')
EARTH = 6_371_000.0  # m


@dataclass
class Known:
    """The true high-resolution temperature: (point) values by valid time, at (point, 2) latitudes and longitudes."""

    variable: str
    places: np.ndarray
    fields: dict[str, np.ndarray]
    likeness: float  # what the prediction's correlation with it exceeds at least


def netcdf(root: Path, recipe: str, variable: str) -> Known:
    truth = written(root, recipe)
    values = truth.fields[variable].values.reshape(len(truth.times), -1)
    places = np.stack([truth.latitude.ravel(), truth.longitude.ravel()], 1)
    return Known(variable, places, dict(zip(truth.times, values, strict=True)), 0.9)


def grib(root: Path, high: str, *low: str) -> Known:
    for service in low:
        getattr(grib_services, service)(root)
    archive = getattr(grib_services, high)(root)
    copy = archive.file
    if copy.suffix == ".bz2":
        copy = root / "unpacked"
        copy.write_bytes(bz2.decompress(archive.file.read_bytes()))
    fields = {str(np.datetime64(init + lead, "s")): f.ravel() for (init, lead), f in archive.fields["t2m"].items()}
    return Known("t2m", next(points(copy))[:, :2], fields, -1 if low else 0.3)  # low and high are independent noise


def metres(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(a's points, b's points): distances between (point, 2) latitudes and longitudes."""
    (south, west), (north, east) = np.deg2rad(a.T)[..., None], np.deg2rad(b.T)[:, None]
    chord = np.sin((north - south) / 2) ** 2 + np.cos(south) * np.cos(north) * np.sin((east - west) / 2) ** 2
    return 2 * EARTH * np.arcsin(np.sqrt(chord))


CASES = {
    "wrf_nests": lambda root: netcdf(root, "wrf_nests", "T2"),
    "cordex_x4": lambda root: netcdf(root, "cordex_x4", "tas"),
    "ukcp18_x4": lambda root: netcdf(root, "ukcp18_x4", "tas"),
    "hrrr_x4": lambda root: grib(root, "hrrr"),
    "gefs_to_gfs": lambda root: grib(root, "gfs", "gefs"),
    "ecmwf_to_icon_d2": lambda root: grib(root, "icon_d2", "ecmwf_open_data"),
}


@pytest.mark.parametrize("name", CASES)
def test_prepared_trained_and_predicted_where_it_lies(tmp_path, monkeypatch, name):
    monkeypatch.setattr("dsr.data.openers.MANY", 10**6)  # small files: one process opens them soonest
    known = CASES[name](tmp_path)
    recipe = load(RECIPES / f"{name}.json", tmp_path)
    stores.prepare(recipe, tmp_path / "store.zarr")
    run = ranks.prepare(tmp_path / "run", tmp_path / "store.zarr", *UPDATES)
    log = tmp_path / "log"
    assert ranks.run_ranks(1, ranks.train_main, run.folder, log=log) == [0], log.read_text()
    low = [str(tmp_path / pattern) for pattern in (recipe.low or recipe.high).files]
    predict(run.folder, low, tmp_path / "high.nc")

    coder = xr.coders.CFDatetimeCoder(use_cftime=True)
    with xr.open_dataset(tmp_path / "high.nc", decode_times=coder, decode_coords="all") as data:
        field = data[known.variable].transpose(..., *data[known.variable].dims[-2:])
        latitude, longitude = xr.broadcast(*(data[k] for k in ("latitude", "longitude")))
        y, x = field.dims[-2:]
        places = np.stack([c.transpose(y, x).values.ravel() for c in (latitude, longitude)], 1)
        times = [time.isoformat() for time in np.atleast_1d(data["time"].values)]
        values = field.values.reshape(len(times), -1)
    away = metres(places, known.places)
    neighbours = metres(places[:2], places[:2])[0, 1]
    assert away.min(1).max() < 0.01 * neighbours  # every predicted point is a true one, to 1 % of a cell
    nearest = away.argmin(1)
    assert len(set(nearest)) == len(nearest) and len(set(times)) > 5 and set(times) <= set(known.fields)
    truth = np.stack([known.fields[time][nearest] for time in times])
    anomalies = [v - v.mean(1, keepdims=True) for v in (values, truth)]
    assert np.isfinite(values).all()
    assert np.corrcoef(anomalies[0].ravel(), anomalies[1].ravel())[0, 1] > known.likeness  # the right way round, too
