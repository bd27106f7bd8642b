"""Prediction: from the forecast that a user has, through a network, to a CF-conformant file."""

import dataclasses
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cftime
import numpy as np
import pytest
import torch
import xarray as xr

from dsr import predict
from dsr.config import Data
from dsr.data import output as outputs
from dsr.data import recipe as recipes
from dsr.data.domain import Domain
from dsr.data.features import Features
from dsr.data.grid import Grid, block_mean
from dsr.data.prepare import prepare
from dsr.data.store import Layout, Store, Variable
from dsr.data.writer import Writer
from dsr.errors import UserError
from dsr.models.networks.deepdownscale import DeepDownscale
from dsr.run import Run

pytestmark = pytest.mark.slow

HOUR = 3600
LEADS = np.arange(1, 4) * HOUR
LAMBERT = {
    "grid_mapping_name": "lambert_azimuthal_equal_area",
    "latitude_of_projection_origin": 54.9,
    "longitude_of_projection_origin": -2.5,
    "false_easting": 0.0,
    "false_northing": 0.0,
    "semi_major_axis": 6378137.0,
    "semi_minor_axis": 6356752.314140356,
}
T = Variable("t", "K", "air_temperature", "air temperature at 2 m")
P = Variable("p", "kg m-2", "precipitation_amount", cell_methods="time: sum", lower=0.0)
U = Variable("u", "m s-1", "eastward_wind")
H = Variable("h", "m", "surface_altitude")
HILL = np.outer(np.arange(24), np.arange(24)).astype(np.float32)


def plane(rows: int, step: int, projected: bool = False) -> Grid:
    """A square grid of cells that are `step` high cells wide; all begin in the same corner."""
    index = (np.arange(rows) + 0.5) * step
    return Grid(index * 2000, index * 2000, LAMBERT) if projected else Grid(58 - index * 0.1, index * 0.1 - 5)


def waves(variables: tuple[Variable, ...], grid: Grid, phase: float) -> np.ndarray:
    """(variable, y, x) float32, a function of the place."""
    x, y = ((values - values[0]) / 20000 * (1 if grid.projected else 20000) for values in (grid.x, grid.y))
    wave = np.sin(x + phase) * np.cos(y[:, None])
    plausible = {"t": 280 + 5 * wave, "p": np.maximum(wave, 0), "u": 10 * wave}
    return np.stack([plausible[v.name] for v in variables]).astype(np.float32)


def write_store(path: Path, projected: bool, members: int | None, high: tuple[Variable, ...], recipe: Any) -> Store:
    """20 training, 20 validation and 20 test samples on 6 x 6 and 24 x 24 points, at leads of 1 and 2 h."""
    high_grid, low_grid = plane(24, 1, projected), plane(6, 4, projected)
    init = np.arange(30) * 24 * HOUR
    layout = Layout(
        high_variables=list(high),
        low_variables=[T, U],
        high_grid=high_grid,
        low_grid=low_grid,
        time=np.sort(np.concatenate([init + HOUR, init + 2 * HOUR])),
        low_init_time=np.repeat(init, 2),
        low_lead_time=np.tile([HOUR, 2 * HOUR], 30),
        high_index=np.arange(60),
        split=np.repeat([0, 1, 2], 20),
        low_index=high_grid.index_on(low_grid),
        factor=4,
        pairing="same-run",
        splits={"by": "time"},
        provenance={"recipe": recipe, "citation": "nobody (2026), CC0"},
        members=members,
        static={"h": HILL},
        static_variables=[H],
    )
    with Writer(path, layout) as writer:
        for i in range(60):
            writer.high[i] = waves(high, high_grid, i)
            low = waves((T, U), low_grid, i)
            writer.low[i] = low if members is None else low + np.arange(members)[:, None, None, None]
    return Store(path)


def untrained(
    folder: Path, store: Store, extras: tuple[str, ...] = (), seen: Any = "mean_spread", **settings: Any
) -> Path:
    """A run that was never trained: its network has random weights, and departs from bicubic by about a tenth."""
    features, domain = Features.of(store, Data(extras=list(extras), members=seen)), Domain.of(store)
    model = DeepDownscale(name="deepdownscale", width=8, blocks=1, **settings)
    torch.manual_seed(0)
    network = model.build(features)
    torch.nn.init.normal_(network.tail.weight, std=1.0)
    description = {"network": model.model_dump(), "features": features.to_json(), "domain": domain.to_json()}
    arrays = {name: torch.from_numpy(np.array(a)) for name, a in (features.arrays() | domain.arrays()).items()}
    folder.mkdir(exist_ok=True)
    Run(folder).save_model(network.state_dict(), arrays, description)
    return folder


@pytest.fixture(scope="module")
def make_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Make a run, or give the one that was made like it."""
    made: dict[str, Path] = {}

    def make(projected=False, members=None, high=(T,), recipe=None, **settings: Any) -> Path:
        key = repr((projected, members, high, recipe, settings))
        if key not in made:
            folder = tmp_path_factory.mktemp("run")
            store = write_store(folder / "store.zarr", projected, members, high, recipe or {})
            made[key] = untrained(folder / "run", store, ("solar_zenith", "day_of_year", "lead_time"), **settings)
        return made[key]

    return make


def write_forecast(path: Path, grid: Grid, init=None, lead=LEADS, members=None) -> Path:
    """A low-resolution forecast of t and u as users have them; one run unless `init` says otherwise."""
    init = np.full(len(lead), 100 * 24 * HOUR) if init is None else init
    dims = ("time", *(["realization"] if members else []), "y", "x")
    fields = np.stack([waves((T, U), grid, i) for i in range(len(lead))], 1)
    if members:
        fields = fields[:, :, None] + np.arange(members)[:, None, None]
    since = {"units": "seconds since 1970-01-01"}
    dataset = grid.to_dataset().assign_coords(
        time=("time", init + lead, {"standard_name": "time", **since}),
        forecast_reference_time=("time", init, {"standard_name": "forecast_reference_time", **since}),
    )
    if members:
        dataset = dataset.assign_coords(realization=("realization", np.arange(members)))
    for variable, values in zip((T, U), fields, strict=True):
        mapping = {"grid_mapping": "crs"} if grid.projected else {}
        dataset[variable.name] = (dims, values, {"units": variable.units, **mapping})
    dataset.to_netcdf(path)
    return path


def change(path: Path, how: Callable[[xr.Dataset], xr.Dataset]) -> Path:
    """A changed copy of a file."""
    with xr.open_dataset(path, decode_times=False) as dataset:
        copy = path.with_stem(path.stem + "_changed")
        how(dataset.load()).to_netcdf(copy)
    return copy


def opened(path: Path) -> xr.Dataset:
    with xr.open_dataset(path, engine="zarr" if path.suffix == ".zarr" else "netcdf4", decode_coords="all") as dataset:
        return dataset.load()


def complaints(path: Path) -> str:
    """All that compliance-checker has to say of a file, down to recommendations; "" if nothing."""
    checker = Path(sys.executable).with_name("compliance-checker")
    done = subprocess.run([checker, "--test", "cf", "--criteria", "strict", path], capture_output=True, text=True)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# The network


def test_a_loaded_network_is_the_trained_one_in_any_batches(make_run, monkeypatch):
    run = make_run(high=(T, P))
    store = Store(run.parent / "store.zarr")
    low, init, lead = store.low[:7], store.low_init_time[:7], store.low_lead_time[:7]
    network = predict.load(run / "model")
    together = network(low, init, lead)
    expected, base = network.module.predict(*network.features.arguments(low, init, lead))
    np.testing.assert_allclose(together, expected, atol=1e-4)
    monkeypatch.setattr(predict, "POINTS", 3 * 24 * 24)
    np.testing.assert_allclose(network(low, init, lead), together, atol=1e-4)
    assert together.shape == (7, 2, 24, 24) and together.dtype == np.float32
    assert np.abs(together[:, 0] - base[:, 0]).max() > 0.01  # it is not only the interpolation
    assert together[:, 1].min() == 0  # clipped


# The file


@pytest.mark.parametrize("projected", [False, True], ids=["latlon", "projected"])
def test_the_file_says_what_the_network_said_and_conforms_to_cf(make_run, tmp_path, projected):
    run = make_run(projected)
    source = write_forecast(tmp_path / "low.nc", plane(6, 4, projected))
    for suffix in (".nc", ".zarr"):
        told = predict.predict(run, [str(source)], tmp_path / f"high{suffix}")
        assert "times: 3; runs: 1" in told and "leads: 1 to 3 h" in told
    netcdf, zarr = opened(tmp_path / "high.nc"), opened(tmp_path / "high.zarr")
    xr.testing.assert_identical(netcdf.drop_attrs(), zarr.drop_attrs())
    with xr.open_dataset(source) as low:
        fields = np.stack([low["t"], low["u"]], 1)
        init = low.forecast_reference_time.values.astype("datetime64[s]").astype(int)
    expected = predict.load(run / "model")(fields, init, LEADS)
    np.testing.assert_allclose(netcdf["t"], expected[:, 0], atol=1e-4)
    assert netcdf["t"].dims == (("time", "y", "x") if projected else ("time", "latitude", "longitude"))
    assert netcdf["t"].attrs["standard_name"] == "air_temperature" and netcdf["t"].attrs["units"] == "K"
    assert {"forecast_reference_time", "forecast_period", "latitude", "longitude"} <= set(netcdf["t"].coords)
    assert netcdf.attrs["Conventions"] == "CF-1.11" and "nobody (2026)" in netcdf.attrs["comment"]
    assert ("crs" in netcdf.coords) == projected
    assert complaints(tmp_path / "high.nc") == ""


def test_amounts_have_bounds_of_time(make_run, tmp_path):
    source = write_forecast(tmp_path / "low.nc", plane(6, 4))
    predict.predict(make_run(high=(T, P)), [str(source)], tmp_path / "high.nc")
    high = opened(tmp_path / "high.nc")
    assert high["p"].attrs["cell_methods"] == "time: sum" and high["t"].attrs["cell_methods"] == "time: point"
    bounds = high["time_bnds"].values
    assert (bounds[:, 1] == high["time"].values).all() and (np.diff(bounds) == np.timedelta64(1, "h")).all()
    assert complaints(tmp_path / "high.nc") == ""


def test_runs_that_verify_at_the_same_time_lie_along_a_forecast_dimension(make_run, tmp_path):
    init = 24 * HOUR * 100 + np.array([0, 0, HOUR, HOUR])
    lead = np.array([1, 2, 1, 2]) * HOUR
    source = write_forecast(tmp_path / "low.nc", plane(6, 4), init, lead)
    dataset = xr.open_dataset(source).load()  # rows of one dimension, as the writer cannot name two equal times
    dataset.rename_dims(time="forecast").reset_index("time").to_netcdf(tmp_path / "runs.nc")
    predict.predict(make_run(), [str(tmp_path / "runs.nc")], tmp_path / "high.nc")
    high = opened(tmp_path / "high.nc")
    assert high["t"].dims == ("forecast", "latitude", "longitude")
    assert high["time"].dims == ("forecast",) and len(np.unique(high["time"])) == 3
    assert high["forecast_period"].values.tolist() == lead.tolist()
    assert complaints(tmp_path / "high.nc") == ""


def test_a_file_in_another_calendar_keeps_it_and_its_seasons(make_run, tmp_path):
    run = make_run()
    source = write_forecast(tmp_path / "low.nc", plane(6, 4))

    def in_360_day(dataset):
        for name in ("time", "forecast_reference_time"):
            dataset[name].attrs["calendar"] = "360_day"
        return dataset

    told = predict.predict(run, [str(change(source, in_360_day))], tmp_path / "high.nc")
    assert "the first 1970-04-11T00:00" in told  # 100 days after 1 January
    assert "caution: the input has calendar 360_day, the training data had proleptic_gregorian" in told
    high = opened(tmp_path / "high.nc")
    assert high["time"].values[0] == cftime.Datetime360Day(1970, 4, 11, 1)
    assert "units_metadata" not in xr.open_dataset(tmp_path / "high.nc", decode_times=False)["time"].attrs
    assert complaints(tmp_path / "high.nc") == ""
    network = predict.load(run / "model")
    network = dataclasses.replace(network, features=dataclasses.replace(network.features, calendar="360_day"))
    with xr.open_dataset(source) as low:
        fields = np.stack([low["t"], low["u"]], 1)
    expected = network(fields, np.full(3, 100 * 24 * HOUR), LEADS)
    np.testing.assert_allclose(high["t"], expected[:, 0], atol=1e-4)


def test_values_far_beyond_training_are_cautioned_about(make_run, tmp_path):
    run = make_run()
    source = write_forecast(tmp_path / "low.nc", plane(6, 4))
    assert "caution" not in predict.predict(run, [str(source)], tmp_path / "usual.nc")

    def hot(dataset):
        dataset["t"][1] += 40  # one time of three
        return dataset

    told = predict.predict(run, [str(change(source, hot))], tmp_path / "hot.nc").splitlines()
    (caution,) = [line for line in told if line.startswith("caution")]
    trained = Store(run.parent / "store.zarr").statistics["low"]["t"]
    with xr.open_dataset(source) as low:
        lowest, highest = float(low["t"].min()), float(low["t"][1].max()) + 40
    assert caution == (
        f"caution: t is {lowest:.4g} to {highest:.4g} K in the input, {trained['minimum']:.4g} to "
        f"{trained['maximum']:.4g} in training; 33 % of its values lie beyond that by more than a standard deviation "
        f"({trained['std']:.3g})"
    )


# Members


def test_an_ensemble_enters_together_where_the_network_was_trained_on_one(make_run, tmp_path):
    run = make_run(members=3)
    source = write_forecast(tmp_path / "low.nc", plane(6, 4), members=5)
    assert "members: 5" in predict.predict(run, [str(source)], tmp_path / "high.nc")
    assert "realization" not in opened(tmp_path / "high.nc").dims
    single = write_forecast(tmp_path / "single.nc", plane(6, 4))
    with pytest.raises(UserError, match="a single forecast"):
        predict.predict(run, [str(single)], tmp_path / "single_high.nc")


@pytest.mark.parametrize("seen", ["control", "mean"])
def test_a_single_forecast_is_its_own_control_and_mean(make_run, tmp_path, seen):
    run = make_run(members=3, seen=seen)
    single = write_forecast(tmp_path / "single.nc", plane(6, 4))
    predict.predict(run, [str(single)], tmp_path / "high.nc")
    assert np.isfinite(opened(tmp_path / "high.nc")["t"]).all()


def test_any_other_network_predicts_every_member(make_run, tmp_path):
    run = make_run()
    source = write_forecast(tmp_path / "low.nc", plane(6, 4), members=3)
    predict.predict(run, [str(source)], tmp_path / "high.nc")
    high = opened(tmp_path / "high.nc")
    assert high["t"].dims == ("realization", "time", "latitude", "longitude")
    assert complaints(tmp_path / "high.nc") == ""
    one = change(source, lambda d: d.isel(realization=2))
    predict.predict(run, [str(one)], tmp_path / "one.nc")
    np.testing.assert_allclose(high["t"].isel(realization=2), opened(tmp_path / "one.nc")["t"], atol=1e-4)


# What users have


def test_units_names_rows_and_margins_may_differ(make_run, tmp_path):
    recipe = {"high": {"files": ["x"]}, "low": {"files": ["x"], "variables": {"t": {"source": "2t"}, "u": {}}}}
    run = make_run(recipe=recipe)
    source = write_forecast(tmp_path / "low.nc", plane(6, 4))
    predict.predict(run, [str(source)], tmp_path / "high.nc")  # under its own name
    expected = opened(tmp_path / "high.nc")["t"]

    def disguise(dataset: xr.Dataset) -> xr.Dataset:
        celsius = (dataset["t"] - 273.15).assign_attrs(units="degC")
        other = dataset.assign({"2t": celsius}).drop_vars("t").sel(y=slice(None, None, -1))
        return other.pad(x=(0, 1), y=(2, 0), constant_values=5.0).assign_coords(
            x=("x", np.append(other["x"], other["x"][-1] + 0.4), other["x"].attrs),
            y=("y", np.insert(other["y"].values, 0, other["y"].values[0] - [0.8, 0.4]), other["y"].attrs),
        )

    disguised = change(change(source, lambda d: d.drop_vars(["latitude", "longitude"])), disguise)
    predict.predict(run, [str(disguised)], tmp_path / "other.nc")
    np.testing.assert_allclose(opened(tmp_path / "other.nc")["t"], expected, atol=1e-3)


def test_input_as_fine_as_the_high_grid_is_coarsened_where_training_coarsened(make_run, tmp_path):
    recipe = {"high": {"files": ["x"]}, "factor": 4}
    fine_grid, coarse_grid = plane(25, 1), plane(6, 4)  # a row and a column more, as a whole archive may have
    fine = write_forecast(tmp_path / "fine.nc", fine_grid)
    with xr.open_dataset(fine) as dataset:
        cells = fine_grid.area()
        means = {name: block_mean(dataset[name].values, cells, 4) for name in ("t", "u")}
    coarse = change(
        write_forecast(tmp_path / "coarse.nc", coarse_grid),
        lambda d: d.assign({name: (d[name].dims, means[name], d[name].attrs) for name in means}),
    )
    run = make_run(recipe=recipe)
    assert "coarsened by 4" in predict.predict(run, [str(fine)], tmp_path / "from_fine.nc")
    assert "coarsened" not in predict.predict(run, [str(coarse)], tmp_path / "from_coarse.nc")
    xr.testing.assert_allclose(opened(tmp_path / "from_fine.nc")["t"], opened(tmp_path / "from_coarse.nc")["t"])
    with pytest.raises(UserError, match="the network was trained on 6 x 6"):
        predict.predict(make_run(), [str(fine)], tmp_path / "refused.nc")


# Another domain


@pytest.fixture
def elsewhere(tmp_path: Path) -> dict[str, Path]:
    """A forecast and static fields on a larger domain of which the training's is the upper left corner."""
    static = plane(32, 1).to_dataset().assign(h=(("y", "x"), np.pad(HILL, (0, 8)), {"units": "m"}))
    static.to_netcdf(tmp_path / "static.nc")
    return {"low": write_forecast(tmp_path / "low.nc", plane(8, 4)), "static": tmp_path / "static.nc"}


def test_another_domain(make_run, tmp_path, elsewhere):
    static = elsewhere["static"]
    predict.predict(make_run(), [str(elsewhere["low"])], tmp_path / "high.nc", grid=static, static=static)
    high = opened(tmp_path / "high.nc")
    assert high["t"].shape == (3, 32, 32) and complaints(tmp_path / "high.nc") == ""
    predict.predict(make_run(), [str(elsewhere["low"])], tmp_path / "home.nc")
    home = opened(tmp_path / "home.nc")["t"]
    inner = dict(latitude=slice(0, 8), longitude=slice(0, 8))  # away from the seam, both see the same
    np.testing.assert_allclose(high["t"].isel(inner), home.isel(inner), atol=1e-3)


def test_another_domain_is_refused_where_it_cannot_be(make_run, tmp_path, elsewhere):
    low, static, out = [str(elsewhere["low"])], elsewhere["static"], tmp_path / "high.nc"
    with pytest.raises(UserError, match="learned values for each point"):
        predict.predict(make_run(place=True), low, out, grid=static, static=static)
    with pytest.raises(UserError, match="needs --static: a file with h"):
        predict.predict(make_run(), low, out, grid=static)
    with pytest.raises(UserError, match="--static needs --grid"):
        predict.predict(make_run(), low, out, static=static)
    far = change(static, lambda d: d.assign_coords(x=d["x"] + 2, longitude=d["longitude"] + 2))
    with pytest.raises(UserError, match="but the input only"):
        predict.predict(make_run(), low, out, grid=far, static=far)
    assert not out.exists()


# Round the earth


def test_a_network_of_the_globe_has_no_seam(tmp_path):
    """Input from 0 or from 180 W gives the same fields, and a field that is turned the same fields, turned."""
    low_grid = Grid(80 - 20.0 * np.arange(9), 20.0 * np.arange(18))
    high_grid = Grid(87.5 - 5.0 * np.arange(36), -7.5 + 5.0 * np.arange(72))
    store = write_globe(tmp_path / "store.zarr", high_grid, low_grid)
    run = untrained(tmp_path / "run", store)
    features = predict.load(run / "model").features
    assert features.periodic and features.low_index.period == 18
    shifted = Grid(low_grid.y, np.roll(low_grid.x, 9))
    field = np.random.default_rng(0).normal(280, 5, size=(9, 18)).astype(np.float32)
    found = []
    for name, grid, values in (
        ("zero", low_grid, field),
        ("west", Grid(shifted.y, shifted.x - 360), np.roll(field, 9, -1)),
        ("turned", low_grid, np.roll(field, 2, -1)),
    ):
        dataset = grid.to_dataset().assign_coords(time=("time", [0], {"units": "hours since 2000-01-01"}))
        dataset = dataset.drop_vars(["latitude", "longitude"])
        dataset["t"] = (("time", "y", "x"), values[None], {"units": "K", "standard_name": "air_temperature"})
        dataset.to_netcdf(tmp_path / f"{name}.nc")
        predict.predict(run, [str(tmp_path / f"{name}.nc")], tmp_path / f"{name}_high.nc")
        found.append(opened(tmp_path / f"{name}_high.nc")["t"].values)
    np.testing.assert_allclose(found[1], found[0], atol=1e-4)
    np.testing.assert_allclose(found[2], np.roll(found[0], 8, -1), atol=1e-3)


def write_globe(path: Path, high_grid: Grid, low_grid: Grid) -> Store:
    layout = Layout(
        high_variables=[T],
        low_variables=[T],
        high_grid=high_grid,
        low_grid=low_grid,
        time=np.arange(6) * 24 * HOUR,
        low_init_time=np.arange(6) * 24 * HOUR,
        low_lead_time=np.zeros(6, int),
        high_index=np.arange(6),
        split=np.repeat([0, 1, 2], 2),
        low_index=high_grid.index_on(low_grid),
        factor=4,
        pairing="coarsen",
        splits={"by": "time"},
        provenance={},
    )
    with Writer(path, layout) as writer:
        for i in range(6):
            writer.high[i], writer.low[i] = (waves((T,), grid, i) for grid in (high_grid, low_grid))
    return Store(path)


# Bad input


BAD = {
    "a variable that is missing": (lambda d: d.drop_vars("u"), "no variable u"),
    "units that cannot be converted": (lambda d: d.assign(t=d["t"].assign_attrs(units="m")), "cannot be converted"),
    "another grid": (lambda d: d.assign_coords(x=d["x"] + 0.2), "the network was trained on 6 x 6"),
    "missing values": (lambda d: d.where(d["y"] < 57.5), "values are missing.*t 6, u 6 of 36"),
}


@pytest.mark.parametrize("what", BAD)
def test_wrong_input_is_refused_and_leaves_nothing(make_run, tmp_path, what):
    how, message = BAD[what]
    source = write_forecast(tmp_path / "low.nc", plane(6, 4))
    changed = change(source, lambda d: how(d.drop_vars(["latitude", "longitude"])))
    with pytest.raises(UserError, match=message):
        predict.predict(make_run(), [str(changed)], tmp_path / "high.nc")
    assert left_in(tmp_path) == ["low.nc", "low_changed.nc"]


def test_missing_values_are_filled_when_asked(make_run, tmp_path):
    source = write_forecast(tmp_path / "low.nc", plane(6, 4))
    holes = change(source, lambda d: d.assign(t=d["t"].where(d["x"] > -4)))
    predict.predict(make_run(), [str(holes)], tmp_path / "high.nc", fill=True)
    assert opened(tmp_path / "high.nc")["t"].notnull().all()


def test_wrong_paths_are_refused_before_anything_is_read(make_run, tmp_path):
    run = make_run()
    (tmp_path / "there.nc").touch()
    for name, message in {
        "there.nc": "exists already",
        "high.tif": "NetCDF or Zarr",
        "no/high.nc": "no such folder",
    }.items():
        with pytest.raises(UserError, match=message):
            predict.predict(run, ["no.nc"], tmp_path / name)
    with pytest.raises(UserError, match="no such file"):
        predict.predict(run, [str(tmp_path / "no.nc")], tmp_path / "high.nc")
    with pytest.raises(UserError, match="no trained network"):
        predict.predict(tmp_path, ["no.nc"], tmp_path / "high.nc")
    assert (tmp_path / "there.nc").stat().st_size == 0


def test_a_folder_without_permission_is_refused(make_run, tmp_path):
    tmp_path.chmod(0o500)
    if os.access(tmp_path, os.W_OK):
        pytest.skip("this user may write anywhere")
    with pytest.raises(UserError, match="no permission"):
        predict.predict(make_run(), ["no.nc"], tmp_path / "high.nc")


def test_a_truncated_file_is_refused(make_run, tmp_path):
    source = write_forecast(tmp_path / "low.nc", plane(6, 4))
    source.write_bytes(source.read_bytes()[:5000])
    with pytest.raises(UserError, match="is the file whole"):
        predict.predict(make_run(), [str(source)], tmp_path / "high.nc")


def test_the_command_on_a_full_disk_leaves_nothing_half_written(make_run, tmp_path):
    """Exit code 1, one line, no file; and it all runs without deepspeed."""
    source = write_forecast(tmp_path / "low.nc", plane(6, 4))
    code = """if True:
        import resource, sys, dsr.cli, dsr.predict
        run, source, *outputs = sys.argv[1:]
        for output, size in zip(outputs, (1000, 20000, 1000)):  # in the coordinates, in the fields
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
            try:
                dsr.cli.main(["predict", run, source, "-o", output])
            except SystemExit as end:
                print("exit code", end.code)
        assert "deepspeed" not in sys.modules
    """
    outputs = [tmp_path / "one.nc", tmp_path / "two.nc", tmp_path / "high.zarr"]
    command = [sys.executable, "-c", code, make_run(), source, *outputs]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["exit code 1"] * 3, done.stdout + done.stderr
    assert done.returncode == 0 and done.stderr.count("error: ") == 3 and "Traceback" not in done.stderr
    assert left_in(tmp_path) == ["low.nc"]


# Real data


@pytest.mark.slow
def test_a_real_forecast(real_data, tmp_path):
    recipe = recipes.load(Path("ds_configs/recipes/meteonet_nw.json"), real_data)
    prepare(recipe, tmp_path / "store.zarr")
    run = untrained(tmp_path / "run", Store(tmp_path / "store.zarr"))
    source = [str(real_data / f"meteonet_NW/arpege_{part}_NW_20180501000000.grib") for part in ("2m", "10m", "PRECIP")]
    with pytest.raises(UserError, match="no variable msl"):
        predict.predict(run, source, tmp_path / "high.nc")
    source.append(str(real_data / "meteonet_NW/arpege_P_sea_level_NW_20180501000000.grib"))
    assert "left out: 1" in predict.predict(run, source, tmp_path / "high.nc")
    high = opened(tmp_path / "high.nc")
    assert high["tp"].shape == (24, 227, 315) and high["forecast_period"].values.tolist() == [
        *np.arange(1, 25) * 3600.0
    ]
    assert high["tp"].min() == 0 and 90_000 < high["msl"].min() < high["msl"].max() < 110_000
    assert (np.diff(high["time_bnds"]) == np.timedelta64(1, "h")).all()
    assert "unknown" not in str([v.attrs for v in high.variables.values()])
    assert complaints(tmp_path / "high.nc") == ""
    shutil.rmtree(tmp_path / "store.zarr")


def test_a_forecast_to_bring_along(make_run, tmp_path):
    run = make_run(projected=True, members=3)
    outputs.export_forecast(Store(run.parent / "store.zarr"), "test", tmp_path / "low.nc")
    assert complaints(tmp_path / "low.nc") == ""
    assert "times: 2; runs: 1" in predict.predict(run, [str(tmp_path / "low.nc")], tmp_path / "high.nc")
