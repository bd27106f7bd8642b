"""The store: whole or not at all, ordinary to xarray, its statistics by hand, its fingerprint of the content."""

import shutil

import numpy as np
import pytest
import xarray as xr
import zarr

import dsr.data.statistics as statistics_module
import dsr.data.store as stores
from dsr.data.grid import Grid
from dsr.data.store import Store, Variable, with_bounds
from dsr.data.writer import Writer
from dsr.errors import UserError
from tests.stores import four_samples, write_four_samples, write_tiny_store


def test_it_exists_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "store.zarr"
    with pytest.raises(RuntimeError, match="disk"), Writer(path, four_samples()) as writer:
        writer.low[0] = 0
        assert not path.exists()
        raise RuntimeError("disk")
    assert list(path.parent.iterdir()) == []
    write_four_samples(path)
    with pytest.raises(UserError, match="exists already"):
        Writer(path, four_samples())
    assert [p.name for p in path.parent.iterdir()] == ["store.zarr"]


def test_a_failure_at_the_end_leaves_nothing(tmp_path):
    with pytest.raises(UserError, match="q: every value of the training split is missing"):
        low = np.ones((4, 2, 2, 2), np.float32)
        low[:2, 1] = np.nan
        write_four_samples(tmp_path / "a.zarr", low)
    with pytest.raises(UserError, match="the training split is empty"):
        write_four_samples(tmp_path / "b.zarr", split=np.array([1, 1, 2, 2]))
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_a_store_is_refused(tmp_path):
    with pytest.raises(UserError, match="no store there"):
        Store(tmp_path / "none.zarr")
    zarr.open_group(tmp_path / "other.zarr", mode="w")
    with pytest.raises(UserError, match="not a dsr store"):
        Store(tmp_path / "other.zarr")
    (tmp_path / "file").write_text("text")
    with pytest.raises(UserError):
        Store(tmp_path / "file")


def test_reading_gives_what_was_written(tmp_path):
    store = write_four_samples(tmp_path / "it's #1, 50%41?" / "a.zarr")
    given = four_samples()
    assert (store.high_variables, store.low_variables) == (given.high_variables, given.low_variables)
    assert (store.shape, store.low_shape, store.members) == ((4, 4), (2, 2), None)
    assert np.array_equal(store.low[2], np.arange(16, 24).reshape(2, 2, 2))
    assert np.array_equal(store.high[3], np.arange(48, 64).reshape(1, 4, 4))
    assert np.array_equal(store.low_time, given.low_init_time + given.low_lead_time)
    assert np.array_equal(store.low_index, given.low_index)
    assert [store.samples(split).tolist() for split in stores.SPLITS] == [[0, 1], [2], [3]]
    assert store.mask("train").all()
    assert store.grid("high").same(four_samples().high_grid) and store.grid("high").bare
    assert (store.attributes["factor"], store.attributes["pairing"]) == (2, "coarsen")
    assert store.attributes["provenance"] == {"source": "a test"}


def test_one_chunk_is_one_time_with_all_variables(tmp_path):
    write_four_samples(tmp_path / "a.zarr")
    group = zarr.open_group(tmp_path / "a.zarr")
    assert group["high/field"].chunks == (1, 1, 4, 4) and group["low/field"].chunks == (1, 2, 2, 2)


def test_xarray_opens_it_and_open_gives_cf_variables(tiny_store):
    tree = xr.open_datatree(tiny_store, engine="zarr", chunks=None)
    assert tree["low"]["field"].dims == ("sample", "member", "variable", "y", "x")
    opened = stores.open(tiny_store)
    t = opened["high"]["t"]
    assert t.dims == ("time", "y", "x") and t.attrs["units"] == "K" and t.attrs["standard_name"] == "air_temperature"
    assert opened["low"]["u"].dims == ("sample", "member", "y", "x") and opened["low"]["u"].attrs["units"] == "m s-1"
    assert opened["static"]["h"].attrs["units"] == "m"
    assert set(opened["high"].data_vars) == {"t", "p"}
    assert opened["high"]["time"].values[1] == np.datetime64("1970-01-02T01:00")
    np.testing.assert_array_equal(t.values[5], Store(tiny_store).high[5][0])


def test_statistics_by_hand_of_the_training_split_only_without_missing_values(tmp_path):
    high = np.full((4, 1, 4, 4), 1e9, np.float32)
    high[0], high[1] = [1, 2, 3, 4], [5, 6, 7, np.nan]  # along x
    low = np.full((4, 2, 2, 2), -1e9, np.float32)
    low[:2, 0], low[:2, 1] = 3, [[[0, 2], [0, 2]], [[0, 2], [np.nan, 2]]]
    found = write_four_samples(tmp_path / "a.zarr", low, high).statistics
    values = np.array([1, 2, 3, 4, 5, 6, 7])
    assert found["high"]["t"]["mean"] == pytest.approx(4)
    assert found["high"]["t"]["std"] == pytest.approx(values.std())
    assert (found["high"]["t"]["minimum"], found["high"]["t"]["maximum"]) == (1, 7)
    q = np.array([0, 2, 0, 2, 0, 2, 2])
    assert found["low"]["q"]["mean"] == pytest.approx(q.mean()) and found["low"]["q"]["std"] == pytest.approx(q.std())
    assert (found["low"]["t"]["missing"], found["low"]["q"]["missing"]) == (0, 1)
    assert Store(tmp_path / "a.zarr").counts.tolist() == [[16], [12], [-1], [-1]]
    assert found["residual"]["t"]["mean"] == pytest.approx(1)  # bicubic of a constant 3
    assert found["residual"]["t"]["std"] == pytest.approx(values.std())


def test_statistics_of_many_batches_are_those_of_all(tmp_path, monkeypatch):
    write_tiny_store(tmp_path / "a.zarr")
    whole = Store(tmp_path / "a.zarr")
    train = whole.low[whole.samples("train")].astype(float)
    for i, name in enumerate(("t", "u")):
        assert whole.statistics["low"][name]["mean"] == pytest.approx(train[:, :, i].mean(), rel=1e-12)
        assert whole.statistics["low"][name]["std"] == pytest.approx(train[:, :, i].std(), rel=1e-9)

    def sevens(array, rows):
        for start in range(0, len(rows), 7):
            yield rows[start : start + 7], array[rows[start : start + 7]]

    monkeypatch.setattr(statistics_module, "_batches", sevens)
    statistics, counts = statistics_module.of_store(whole)
    assert statistics["residual"]["t"]["std"] == pytest.approx(whole.statistics["residual"]["t"]["std"], rel=1e-9)
    assert counts.tolist() == whole.counts.tolist()


REGION = np.repeat([0, -1, 1, 2], 4).reshape(4, 4)


def test_a_split_by_region(tmp_path):
    high = np.full((4, 1, 4, 4), 1e9, np.float32)
    high[:, :, 0] = [1, 2, 3, 4]
    store = write_four_samples(tmp_path / "a.zarr", high=high, region=REGION)
    assert [store.samples(split).tolist() for split in stores.SPLITS] == [[0, 1, 2, 3]] * 3
    assert [store.mask(split).sum() for split in stores.SPLITS] == [4, 4, 4]
    assert store.mask("validation")[2].all()
    assert store.statistics["high"]["t"]["maximum"] == 4
    assert store.counts.tolist() == [[4]] * 4


@pytest.mark.parametrize(
    "change",
    [
        {"low_variables": [Variable("t", "K"), Variable("q", "1", "specific_humidity", lower=0.0)]},
        {"high_variables": [Variable("t", "degC", "air_temperature", "temperature", "time: point")]},
        {"time": np.arange(4) * 3600 + 1},
        {"low_lead_time": np.arange(4) * 7200},
        {"split": np.array([0, 0, 2, 1])},
        {"high_index": np.array([0, 1, 3, 2])},
        {"region": REGION},
        {"pairing": "valid-time"},
        {"static": {"h": np.ones((4, 4))}, "static_variables": [Variable("h", "m")]},
        {"high_grid": Grid(np.arange(4.0), np.arange(4.0))},
    ],
    ids=lambda change: "-".join(change),
)
def test_the_fingerprint_changes_with_what_training_sees(tmp_path, change):
    assert (
        write_four_samples(tmp_path / "a.zarr", **change).fingerprint
        != write_four_samples(tmp_path / "b.zarr").fingerprint
    )


def test_the_fingerprint_changes_with_any_value_and_not_with_where_it_came_from(tmp_path):
    plain = write_four_samples(tmp_path / "a.zarr").fingerprint
    assert write_four_samples(tmp_path / "b.zarr", provenance={"source": "elsewhere"}).fingerprint == plain
    shutil.copytree(tmp_path / "a.zarr", tmp_path / "c.zarr")
    assert Store(tmp_path / "c.zarr").fingerprint == plain
    for name in ("low", "high"):
        fields = {
            name: np.arange(32 if name == "low" else 64, dtype=np.float32).reshape(
                4, -1, *(2, 2) if name == "low" else (4, 4)
            )
        }
        fields[name][3, 0, 1, 1] += 1e-3
        assert write_four_samples(tmp_path / f"{name}.zarr", **fields).fingerprint != plain


def test_bounds_follow_from_the_standard_name():
    assert with_bounds(Variable("r", "%", "relative_humidity")) == Variable(
        "r", "%", "relative_humidity", lower=0.0, upper=100.0
    )
    assert with_bounds(Variable("c", "1", "cloud_area_fraction")).upper == 1.0
    assert with_bounds(Variable("p", "mm", "precipitation_amount")).lower == 0.0
    assert with_bounds(Variable("t", "K", "air_temperature")).lower is None
    own = Variable("p", "mm", "precipitation_amount", upper=5.0)
    assert with_bounds(own) == own
