"""From archives to a store: coarsening, pairing, streaming, and everything that can be wrong."""

import json
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from dsr.data.archive import Archive
from dsr.data.info import describe
from dsr.data.interpolate import Interpolation
from dsr.data.prepare import prepare_from_options
from dsr.data.store import Store
from dsr.errors import UserError

from .archives import HOUR, START, analysis, forecasts

pytestmark = pytest.mark.filterwarnings("ignore")
RECIPES = Path(__file__).resolve().parents[2] / "ds_configs/recipes"


def made(tmp_path, high, low=None, recipe=None, **options):
    """Write the archives, prepare a store by options or by a recipe, and open it."""
    for name, archive in (("high.nc", high), ("low.nc", low)):
        (tmp_path / name).unlink(missing_ok=True)
        if archive is not None:
            archive.to_netcdf(tmp_path / name)
    if recipe is not None:
        files = {"high": {"files": ["high.nc"], **recipe.pop("high", {})}}
        if low is not None:
            files["low"] = {"files": ["low.nc"], **recipe.pop("low", {})}
        (tmp_path / "recipe.json").write_text(json.dumps(files | recipe))
        prepare_from_options(recipe=tmp_path / "recipe.json", output=tmp_path / "store", **options)
    else:
        paths = {"high": [str(tmp_path / "high.nc")], "low": [str(tmp_path / "low.nc")] if low is not None else []}
        prepare_from_options(recipe=None, output=tmp_path / "store", **paths, **options)
    return Store(tmp_path / "store")


def read(array, rows=slice(None)):
    return array[rows]


def refused(tmp_path, message, *args, **kwargs):
    """The message of the refusal, after which nothing was left behind."""
    with pytest.raises(UserError, match=message) as refusal:
        made(tmp_path, *args, **kwargs)
    left = [p.name for p in tmp_path.iterdir()]
    assert "store" not in left and not any("partial" in name for name in left)
    assert str(refusal.value).count("\n") < 2
    return str(refusal.value)


def test_labels_by_coarsening(tmp_path):
    truth = analysis(100, (9, 14))
    store = made(tmp_path, truth, factor=4, gap=5)
    assert store.shape == (8, 12) and store.low_shape == (2, 3) and store.attributes["pairing"] == "coarsen"
    np.testing.assert_array_equal(read(store.high)[:, 0], truth["t2m"].values[:, :8, :12])
    cells = np.cos(np.deg2rad(truth["latitude"].values))[:8, None] * np.ones(12)
    weighted = (truth["t2m"].values[7, :8, :12] * cells).reshape(2, 4, 3, 4).sum((1, 3))
    expected = weighted / cells.reshape(2, 4, 3, 4).sum((1, 3))
    np.testing.assert_allclose(read(store.low, 7)[0], expected, rtol=1e-6)
    counts = [len(store.samples(name)) for name in ("train", "validation", "test")]
    assert counts == [63, 13, 14] and (np.diff(store.samples("validation")) == 1).all()
    assert "cropped from 9 x 14 to 8 x 12 points" in describe(tmp_path / "store")


def test_same_run_pairs_keep_each_forecast(tmp_path):
    low = forecasts(30, (1, 2, 3), (5, 7), step=1.0)
    high = forecasts(30, (2, 3, 4), (16, 24))
    store = made(tmp_path, high, low, pairing="same-run")
    assert len(store.high_index) == 60 and set(store.low_lead_time) == {7200, 10800}
    np.testing.assert_array_equal(store.low_init_time, np.asarray(store.group["high/init_time"])[store.high_index])
    np.testing.assert_array_equal(read(store.low)[:, 0, 0, 0], read(store.high, store.high_index)[:, 0, 0, 0])
    assert store.low_index[0][::4, 0] == pytest.approx([0, 1, 2, 3])
    assert store.attributes["factor"] == 4 and store.low_shape == (5, 7)  # the low context is kept
    assert "60 dropped" not in describe(tmp_path / "store") and "30 dropped" in describe(tmp_path / "store")


def test_several_runs_may_verify_at_the_same_time(tmp_path):
    low = forecasts(20, (6, 12, 18), (4, 6), every=6, step=1.0)[["t2m"]]
    store = made(tmp_path, analysis(150, (12, 20)), low, pairing="valid-time")
    assert len(store.high_index) == 60 and len(store.time) == 22
    np.testing.assert_array_equal(store.low_time, store.time[store.high_index])
    assert (np.diff(store.time) > 0).all()
    valid = [set(store.low_time[store.samples(name)]) for name in ("train", "validation", "test")]
    assert not valid[0] & valid[1] and not valid[1] & valid[2]


def test_where_both_pairings_fit_and_differ_one_must_be_chosen(tmp_path):
    low = forecasts(30, (24, 48), (5, 7), step=1.0)
    high = forecasts(30, (24, 48), (16, 24))
    message = refused(tmp_path, "choose one", high, low)
    assert "same-run (60 pairs)" in message and "valid-time (60 pairs)" in message
    once = made(tmp_path, high.isel(lead_time=[0]), low.isel(lead_time=[0]))  # both the same
    assert once.attributes["pairing"] == "same-run"


def test_low_members_on_the_high_grid_are_coarsened(tmp_path):
    truth = analysis(40, (9, 12))
    members = xr.concat([truth + k for k in range(3)], "realization").assign_coords(realization=[0, 1, 2])
    store = made(tmp_path, truth, members, factor=4)
    assert store.members == 3 and store.low_shape == (2, 3) and store.shape == (8, 12)
    low = read(store.low, 5)
    np.testing.assert_allclose(low[1] - low[0], 1, atol=1e-4)


def test_units_meet_and_variables_need_not(tmp_path):
    high = analysis(60, (16, 24)).assign(gust=lambda d: d["t2m"].assign_attrs(units="m s-1", standard_name="") / 40)
    low = analysis(60, (5, 7), step=1.0).assign(msl=lambda d: (d["t2m"] * 360).assign_attrs(units="Pa"))
    low["t2m"] = (low["t2m"] - 273.15).assign_attrs(units="degC", standard_name="air_temperature")
    store = made(tmp_path, high, low)
    assert [v.name for v in store.high_variables] == ["t2m", "gust"]
    assert [(v.name, v.units) for v in store.low_variables] == [("t2m", "K"), ("msl", "Pa")]
    np.testing.assert_allclose(read(store.low, 0)[0, 0, 0], read(store.high, 0)[0, 0, 0], rtol=1e-6)


def test_a_recipe_chooses_renames_and_takes_differences(tmp_path):
    rain = {"variables": {"rain": {"source": "tp", "units": "kg m-2", "accumulated": True}}}
    high, low = forecasts(20, (1, 2, 3), (16, 24)), forecasts(20, (1, 2, 3), (5, 7), step=1.0)
    high["tp"][3, 2, 0, 0] -= 0.005002
    store = made(tmp_path, high, low, {"high": rain, "low": rain, "pairing": "same-run"})
    assert [v.name for v in store.high_variables] == ["rain"] and store.high_variables[0].lower == 0
    assert store.high_variables[0].cell_methods == "time: sum"
    np.testing.assert_allclose(read(store.high)[:3, 0, 2, 2], [1, 3, 5], rtol=1e-5)
    assert "rain: 1 of 23,040 (0.0 %) small falls of the total, clipped to 0" in describe(tmp_path / "store")


def test_amounts_over_different_intervals_are_no_pair(tmp_path):
    rain = {"variables": {"tp": {"accumulated": True}}}
    high, low = forecasts(20, (1, 2, 3, 4), (16, 24)), forecasts(20, (1, 2, 4), (5, 7), step=1.0)
    store = made(tmp_path, high, low, {"high": rain, "low": rain, "pairing": "same-run"})
    assert set(store.low_lead_time) == {3600, 7200}
    assert "tp covers 2 h in the low archive and 1 h in the high one" in describe(tmp_path / "store")


def test_missing_targets_stay_missing_and_are_counted(tmp_path):
    truth = analysis(60, (16, 24))
    truth["t2m"][3, :6, :6] = np.nan
    store = made(tmp_path, truth, factor=4)
    assert np.isnan(read(store.high, 3)).sum() == 36 and np.isnan(read(store.low, 3)).sum() == 1
    assert "36 values of high are missing" in describe(tmp_path / "store")


def test_static_fields_stand_on_both_grids(tmp_path):
    analysis(1, (16, 24)).isel(time=0, drop=True).rename(t2m="orog").to_netcdf(tmp_path / "static.nc")
    store = made(tmp_path, analysis(60, (16, 24)), factor=4, static=[str(tmp_path / "static.nc")])
    assert store.static.shape == (1, 16, 24)
    assert np.asarray(store.group["low/static_orog"]).shape == (4, 6)
    assert np.asarray(store.group["low/static_orog"]).mean() == pytest.approx(store.static.mean(), rel=1e-4)


def test_a_dry_run_reads_few_fields_and_writes_nothing(tmp_path, monkeypatch):
    reads, read_field = [], Archive.read
    monkeypatch.setattr(Archive, "read", lambda self, i: reads.append(i) or read_field(self, i))
    low = forecasts(30, (1, 2, 3), (5, 7), step=1.0)
    forecasts(30, (2, 3, 4), (16, 24)).to_netcdf(tmp_path / "high.nc")
    low.to_netcdf(tmp_path / "low.nc")
    paths = {name: [str(tmp_path / f"{name}.nc")] for name in ("high", "low")}
    told = prepare_from_options(recipe=None, output=tmp_path / "s", dry_run=True, pairing="same-run", **paths)
    assert "60 by same-run, factor 4" in told and "30 dropped, first 2020-01-01T00:00 +1 h: no same-run partner" in told
    assert sorted(p.name for p in tmp_path.iterdir()) == ["high.nc", "low.nc"] and 0 < len(reads) <= 120


def test_an_archive_is_streamed(tmp_path):
    """The peak of memory does not grow with the archive, which is 64 MiB here."""
    times, shape = 256, (256, 256)
    coordinates = {"lat": 50 - 0.1 * np.arange(shape[0]), "lon": 0.1 * np.arange(shape[1])}
    coordinates["time"] = START + np.arange(times) * HOUR
    rng = np.random.default_rng(0)
    fields = rng.normal(size=(times, *shape)).astype("f4")
    data = xr.Dataset({"t": (("time", "lat", "lon"), fields, {"units": "K"})}, coordinates)
    data.to_zarr(tmp_path / "a.zarr", encoding={"t": {"chunks": (1, *shape)}}, consolidated=False)
    del data, fields
    options = {"high": [str(tmp_path / "a.zarr")], "factor": 4}
    prepare_from_options(recipe=None, output=tmp_path / "dry", dry_run=True, **options)  # modules take memory too
    tracemalloc.start()
    told = prepare_from_options(recipe=None, output=tmp_path / "dry", dry_run=True, **options)
    assert tracemalloc.get_traced_memory()[1] < 16 * 2**20 and "256 by coarsen" in told
    from dsr.data import prepare as module

    plan = module._plan(module.Recipe.from_options(**options))
    tracemalloc.reset_peak()
    for frame in range(times):
        plan.coarse(plan.high.read(frame))
    assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
    tracemalloc.stop()


# What can be wrong


def test_grids_that_do_not_overlap(tmp_path):
    elsewhere = analysis(60, (5, 7), step=1.0, north=20.0)
    message = refused(tmp_path, "the grids do not overlap", analysis(60, (16, 24)), elsewhere)
    assert "54.25 N .. 58 N" in message and "16 N .. 20 N" in message


def test_a_high_grid_that_reaches_beyond_the_low_one_is_cropped(tmp_path):
    store = made(tmp_path, analysis(60, (24, 32)), analysis(60, (5, 7), step=1.0))
    assert store.shape == (19, 27)
    assert "high grid cropped from 24 x 32 to 19 x 27" in describe(tmp_path / "store")


def test_times_that_do_not_match(tmp_path):
    low = analysis(60, (5, 7), step=1.0)
    low["time"] = low["time"] + np.timedelta64(30, "m")
    message = refused(tmp_path, "no time of the low archive", analysis(60, (16, 24)), low)
    assert "2020-01-01T00:30" in message


def test_units_that_cannot_be_converted(tmp_path):
    low = analysis(60, (5, 7), step=1.0)
    low["t2m"].attrs["units"] = "Pa"
    refused(tmp_path, 't2m: "Pa" cannot be converted to "K"', analysis(60, (16, 24)), low)


def test_one_time_step_only(tmp_path):
    refused(tmp_path, "only one initial time.*split by region", analysis(1, (16, 24)), factor=4)
    assert made(tmp_path, analysis(1, (16, 48)), factor=4, split="region").region is not None


def test_an_ensemble_as_truth(tmp_path):
    members = xr.concat([analysis(60), analysis(60)], "member").assign_coords(member=[0, 1])
    refused(tmp_path, "choose it with", members, factor=4)
    assert made(tmp_path, members, recipe={"high": {"members": [1]}, "factor": 4}).members is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give a low archive, or a factor"),
        ({"factor": 8}, "too small to be coarsened by 8"),
        ({"factor": 4, "gap": 1000}, "no run is left for train"),
    ],
)
def test_options_that_cannot_be(tmp_path, options, message):
    refused(tmp_path, message, analysis(60), **options)


def test_neither_or_both_of_recipe_and_options(tmp_path):
    with pytest.raises(UserError, match="give a recipe, or an archive with --high"):
        prepare_from_options(recipe=None, output=tmp_path / "store")
    with pytest.raises(UserError, match="give either the recipe"):
        prepare_from_options(recipe=tmp_path / "r.json", output=tmp_path / "store", factor=4)
    with pytest.raises(UserError, match="give either the recipe"):
        prepare_from_options(recipe=tmp_path / "r.json", output=tmp_path / "store", split="region")
    with pytest.raises(UserError, match="gap of a split by region, in high points"):
        prepare_from_options(recipe=None, output=tmp_path / "store", high=["a.nc"], factor=4, split="region", gap=6)
    with pytest.raises(UserError, match="give the store to write"):
        prepare_from_options(recipe=None, output=None, high=["a.nc"], factor=4)


def test_an_output_that_exists_is_left_alone(tmp_path):
    (tmp_path / "store").write_text("precious")
    with pytest.raises(UserError, match="exists already"):
        made(tmp_path, analysis(60), factor=4)
    assert (tmp_path / "store").read_text() == "precious"


@pytest.mark.parametrize("where", ["file", "/proc"])
def test_no_place_to_write(tmp_path, where):
    analysis(60).to_netcdf(tmp_path / "high.nc")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="store: cannot be written there"):
        prepare_from_options(recipe=None, output=tmp_path / where / "store", high=[str(tmp_path / "high.nc")], factor=4)


def test_a_full_disk_leaves_nothing(tmp_path):
    """The limit on a file's size stands in for the disk's: both fail in the middle of writing a field."""
    fields = np.random.default_rng(0).normal(280, 5, (60, 64, 96)).astype("f4")
    truth = analysis(60, (64, 96)).assign(t2m=(("time", "latitude", "longitude"), fields, {"units": "K"}))
    truth.to_netcdf(tmp_path / "high.nc")
    script = (
        "import resource, sys, pathlib\n"
        "from dsr.data.prepare import prepare_from_options\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (16384, 16384))\n"
        "try: prepare_from_options(recipe=None, output=pathlib.Path('out/store'), high=['high.nc'], factor=4)\n"
        "except OSError as error: print(error); sys.exit(1)\n"
    )
    root = str(Path(__file__).resolve().parents[2])
    environment = {
        "PYTHONPATH": root,
        "PATH": "/usr/bin:/bin",
        "PYTHONDONTWRITEBYTECODE": "1",
    }  # the limit cuts it short
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and "File too large" in done.stdout, done.stderr
    assert list((tmp_path / "out").iterdir()) == []


def test_a_file_that_breaks_while_it_is_read_leaves_nothing(tmp_path, monkeypatch):
    analysis(60).to_netcdf(tmp_path / "high.nc", encoding={"t2m": {"zlib": True, "chunksizes": (1, 8, 12)}})
    broken = bytearray((tmp_path / "high.nc").read_bytes())
    broken[-2000:-500] = bytes(1500)
    (tmp_path / "high.nc").write_bytes(broken)
    with pytest.raises(OSError, match=r"high.nc: t2m cannot be read .*is the file whole.*at 2020-01"):
        prepare_from_options(recipe=None, output=tmp_path / "store", high=[str(tmp_path / "high.nc")], factor=4)
    assert [p.name for p in tmp_path.iterdir()] == ["high.nc"]


# Real data


@pytest.mark.slow
def test_era5_gives_the_published_errors_of_interpolation(real_data, tmp_path):
    prepare_from_options(recipe=RECIPES / "era5_uk_x4.json", output=tmp_path / "store", root=real_data)
    store = Store(tmp_path / "store")
    rows = store.samples("test")
    assert (len(store.samples("train")), len(rows)) == (540, 130) and store.shape == (32, 48)
    truth, low = read(store.high, store.high_index[rows]), read(store.low, rows)
    for method, expected in (("nearest", 0.822), ("bilinear", 0.740)):
        error = Interpolation(store.low_index, store.low_shape, method)(low) - truth
        assert np.sqrt((error**2).mean()) == pytest.approx(expected, abs=0.002)


@pytest.mark.slow
@pytest.mark.parametrize(("factor", "low"), [(2, "16 x 24"), (8, "4 x 6")])
def test_era5_at_the_other_factors(real_data, factor, low):
    told = prepare_from_options(recipe=RECIPES / f"era5_uk_x{factor}.json", output=None, root=real_data, dry_run=True)
    assert low in told and "train 540, validation 26, test 130 samples" in told


@pytest.mark.slow
def test_meteonet_pairs_by_run_on_nodes(real_data, tmp_path):
    prepare_from_options(recipe=RECIPES / "meteonet_nw.json", output=tmp_path / "store", root=real_data)
    store = Store(tmp_path / "store")
    assert len(store.high_index) == 24 and store.attributes["factor"] == 4 and store.low_shape == (58, 80)
    np.testing.assert_allclose(store.low_index[0][::4, 0], range(57), atol=1e-6)
    rain = [v.name for v in store.high_variables].index("tp")
    assert read(store.high)[:, rain].min() >= 0 and read(store.high)[:, rain].max() < 5
    assert (store.high_variables[rain].lower, store.high_variables[rain].units) == (0, "kg m-2")
    assert [v.name for v in store.static_variables] == ["topography", "land_sea_mask"]
    told = describe(tmp_path / "store")
    assert "255,462 of 1,716,120 (14.9 %) small falls of the total" in told and "node-registered" in told
    every = store.high_variables + store.low_variables + store.static_variables
    assert not any("unknown" in (v.standard_name, v.units, v.long_name) for v in every)


def test_mogreps_pairs_by_valid_time(real_data, tmp_path):
    prepare_from_options(recipe=RECIPES / "mogreps_uk.json", output=tmp_path / "store", root=real_data)
    store = Store(tmp_path / "store")
    assert store.members == 12 and store.low_shape == (50, 50) and set(store.low_lead_time) == {43200}
    assert store.grid("high").mapping["grid_mapping_name"] == "lambert_azimuthal_equal_area"
    onto = Interpolation(store.low_index, store.low_shape, "bilinear")
    error = onto(read(store.low).mean(1)) - read(store.high, store.high_index)
    np.testing.assert_allclose(np.sqrt((error**2).mean((2, 3)))[:, 1], [1.06, 0.95], atol=0.02)
    np.testing.assert_allclose(np.sqrt((error**2).mean((2, 3)))[:, 0], [0.68, 0.60], atol=0.03)
