"""What the network sees: channels, spread, base, missing values, bounds, the sun; the same from a model's folder."""

import json
from dataclasses import replace

import numpy as np
import pytest

from dsr.config import Data
from dsr.data.calendar import parse
from dsr.data.features import Features
from dsr.data.interpolate import Interpolation
from dsr.data.store import Store
from dsr.data.sun import cos_zenith
from dsr.errors import UserError
from tests.stores import write_tiny_store

EQUINOX = np.int64(np.datetime64("2023-03-20T12:07:30").astype("datetime64[s]").astype(int))
SOLSTICE = np.int64(np.datetime64("2023-06-21T12:01:50").astype("datetime64[s]").astype(int))


@pytest.fixture
def store(tiny_store):
    return Store(tiny_store)


def take(store, rows=(0, 3)):
    rows = np.array(rows)
    return store.low[rows], store.low_init_time[rows], store.low_lead_time[rows]


def test_channels_are_named_in_their_order(store):
    every = Features.of(store, Data(extras=["lead_time", "day_of_year"]))
    names = ["t", "u", "t_spread", "u_spread", "h", "lead_time", "day_of_year_sin", "day_of_year_cos"]
    assert every.channels == names
    inputs, base = every.inputs(*take(store))
    assert inputs.shape == (2, 8, 24, 24) and base.shape == (2, 2, 24, 24)
    assert inputs.dtype == base.dtype == np.float32
    assert Features.of(store, Data(low=["u"], static=[], members="control")).channels == ["u"]


def test_inputs_are_normalised_by_the_training_split(store):
    low, *times = take(store)
    found, _ = Features.of(store, Data(extras=["lead_time"])).inputs(low, *times)
    bicubic, statistics = Interpolation(store.low_index, (6, 6), "bicubic"), store.statistics
    t = statistics["low"]["t"]
    np.testing.assert_allclose(found[:, 0], (bicubic(low.mean(1)[:, 0]) - t["mean"]) / t["std"], atol=2e-4)
    np.testing.assert_allclose(found[:, 2], bicubic(low.std(1, ddof=1)[:, 0]) / t["std"], atol=1e-4)
    h = statistics["static"]["h"]
    np.testing.assert_allclose(found[1, 4], (store.static[0] - h["mean"]) / h["std"], atol=1e-5)
    assert np.unique(found[:, 5]).tolist() == [np.float32(1 / 24)]  # an hour, in days


def test_members_enter_as_asked(store):
    low, *times = take(store)
    for members, centre in (("mean", low.mean(1)), ("control", low[:, 0])):
        features = Features.of(store, Data(members=members))
        assert "t_spread" not in features.channels
        _, base = features.inputs(low, *times)
        np.testing.assert_allclose(base[:, 0], features.bicubic(centre[:, 0]), atol=1e-4)


def test_the_base_is_bicubic_or_the_training_mean(store):
    features = Features.of(store, Data())
    low, *times = take(store)
    _, base = features.inputs(low, *times)
    np.testing.assert_allclose(base[:, 0], features.bicubic(low.mean(1)[:, 0]), atol=1e-4)
    assert np.unique(base[:, 1]).tolist() == [np.float32(store.statistics["high"]["p"]["mean"])]
    np.testing.assert_allclose(
        features.scale, [store.statistics["residual"]["t"]["std"], store.statistics["high"]["p"]["std"]]
    )
    unseen = Features.of(store, Data(low=["u"]))  # without t among its inputs
    np.testing.assert_allclose(unseen.scale, [store.statistics["high"][name]["std"] for name in ("t", "p")])


def test_a_window_is_a_crop(store):
    features = Features.of(store, Data(extras=["day_of_year"]))
    window = slice(3, 11), slice(10, 18)
    whole, part = features.inputs(*take(store)), features.inputs(*take(store), window)
    for one, other in zip(whole, part, strict=True):
        np.testing.assert_allclose(other, one[:, :, *window], atol=1e-4)


def test_missing_values_are_refused_with_variable_and_count_or_filled(store):
    low, *times = take(store)
    low = low.copy()
    low[0, 1, 1, 2, :3] = np.nan
    low[1, 0, 1, 0, 0] = np.inf
    with pytest.raises(UserError, match=r"missing \(u 4 of 216 each\)"):
        Features.of(store, Data()).inputs(low, *times)
    filled, _ = Features.of(store, Data(fill=True)).inputs(low, *times)
    low[~np.isfinite(low)] = store.statistics["low"]["u"]["mean"]
    expected, _ = Features.of(store, Data()).inputs(low, *times)
    np.testing.assert_array_equal(filled, expected)


def test_a_store_with_missing_values_is_refused_before_anything_starts(tiny_store):
    store = Store(tiny_store)
    store.statistics["low"]["u"]["missing"] = 7
    with pytest.raises(UserError, match=r"values are missing \(u 7\).*--set dsr.data.fill=true"):
        Features.of(store, Data())
    assert Features.of(store, Data(fill=True)).fill
    assert Features.of(store, Data(low=["t"])).low[0].name == "t"


def test_fields_are_clipped_at_physical_bounds(store):
    features = Features.of(store, Data())
    base, output = np.zeros((1, 2, 2, 2), np.float32), np.full((1, 2, 2, 2), -3, np.float32)
    found = features.physical(base, output)
    np.testing.assert_allclose(found[:, 0], -3 * features.scale[0])  # t has none
    assert (found[:, 1] == 0).all()  # p is bounded below by 0
    assert (base == 0).all()
    assert (features.physical(base, -output)[:, 1] == 3 * features.scale[1]).all()


def test_a_name_that_the_store_lacks_is_refused(store):
    cases = {"low": "t, u", "high": "t, p", "static": "h"}
    for group, have in cases.items():
        with pytest.raises(UserError, match=rf"dsr.data.{group}: no variable q there; the store has {have}"):
            Features.of(store, Data(**{group: ["q"]}))
    with pytest.raises(UserError, match="solar_zenith needs latitude and longitude"):
        Features.of(store, Data(extras=["solar_zenith"]))


def test_a_models_folder_gives_the_same_inputs(store):
    features = Features.of(store, Data(low=["u", "t"], extras=["lead_time", "day_of_year"]))
    features.latitude, features.longitude = np.zeros((24, 24)), np.ones((24, 24))
    features.extras.append("solar_zenith")
    low, *times = take(store)
    low = low[:, :, ::-1]  # in the order of the features
    values = json.loads(json.dumps(features.to_json()))
    again = Features.restore(values, {name: array.copy() for name, array in features.arrays().items()})
    assert again.channels == features.channels
    for one, other in zip(features.inputs(low, *times), again.inputs(low, *times), strict=True):
        assert one.tobytes() == other.tobytes()


def test_a_field_that_never_changes_is_not_divided_by_zero(tmp_path):
    write_tiny_store(tmp_path / "a.zarr")
    store = Store(tmp_path / "a.zarr")
    store.statistics["low"]["u"]["std"] = store.statistics["static"]["h"]["std"] = 0.0
    inputs, _ = Features.of(store, Data()).inputs(*take(store))
    assert np.isfinite(inputs).all()


def test_the_season_is_that_of_the_datas_own_year(store):
    """In a year of 360 days of 30 each, the day of the year is an angle in degrees."""
    features = replace(Features.of(store, Data(extras=["day_of_year"])), calendar="360_day")
    times = np.array([parse(f"2063-{month:02}-30T12:00", "360_day") for month in (2, 6)])
    low, *_ = take(store)
    found, _ = features.inputs(low, times, np.zeros(2, int))
    angles = np.degrees(np.arctan2(found[:, -2, 0, 0], found[:, -1, 0, 0])) % 360
    np.testing.assert_allclose(angles, [59.5, 179.5], atol=1e-4)
    again = Features.restore(json.loads(json.dumps(features.to_json())), features.arrays())
    assert again.calendar == "360_day" and Features.of(store, Data()).calendar == store.calendar


@pytest.mark.parametrize("calendar", ["noleap", "360_day", "all_leap"])
def test_the_sun_follows_the_datas_own_year(calendar):
    """Noon at the tropic of Cancer, when the year is as far as on 21 June: overhead, a century away from 1970."""
    days = {"noleap": 365, "360_day": 360, "all_leap": 366}[calendar]
    day = round(171.5 / 365 * days)
    midsummer = np.array([(93 * days + day) * 86400 + 43320])
    found = cos_zenith(midsummer, np.array([[23.44]]), np.array([[0.0]]), calendar)
    assert found.item() == pytest.approx(1.0, abs=0.002)


@pytest.mark.parametrize(
    ("time", "latitude", "longitude", "expected"),
    [
        (EQUINOX, 0, 0, 1.0),  # overhead at noon
        (EQUINOX, 60, 0, 0.5),
        (EQUINOX, 90, 0, 0.0),
        (EQUINOX, 0, 180, -1.0),  # midnight
        (EQUINOX, 0, 90, 0.0),  # sunset in the east
        (EQUINOX + 6 * 3600, 0, -90, 1.0),  # noon, six hours later, in the west
        (SOLSTICE, 23.44, 0, 1.0),
        (SOLSTICE, -66.56, 0, 0.0),
        (SOLSTICE, 51.5, 0, np.cos(np.radians(51.5 - 23.44))),
    ],
)
def test_the_sun_stands_where_it_should(time, latitude, longitude, expected):
    found = cos_zenith(np.array([time]), np.array([[float(latitude)]]), np.array([[float(longitude)]]))
    assert found.shape == (1, 1, 1) and found.dtype == np.float32
    assert found.item() == pytest.approx(expected, abs=0.012)  # half a degree and a little
