"""What the network sees, as described: channels, missing values, bounds, the sun; the same from a model's folder."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from dsr.config import Data
from dsr.data.calendar import parse
from dsr.data.features import Features
from dsr.data.store import Store
from dsr.data.sun import solar_fields, solar_scalars
from dsr.errors import UserError
from dsr.models.downscaler import Downscaler
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
    low, scalars = every.arguments(*take(store))
    assert scalars.shape == (2, 3) and scalars.dtype == low.dtype == np.float32
    assert np.unique(scalars[:, 0]).tolist() == [np.float32(1 / 24)]  # an hour, in days
    assert Features.of(store, Data(low=["u"], static=[], members="control")).channels == ["u"]


def test_an_output_of_one_is_a_standard_deviation(store):
    statistics = store.statistics
    scale = [statistics["residual"]["t"]["std"], statistics["high"]["p"]["std"]]
    np.testing.assert_allclose(Features.of(store, Data()).scale, scale)
    unseen = Features.of(store, Data(low=["u"]))  # without t among its inputs
    np.testing.assert_allclose(unseen.scale, [statistics["high"][name]["std"] for name in ("t", "p")])


def test_missing_values_are_refused_with_variable_and_count_or_filled(store):
    low, *times = take(store)
    low = low.copy()
    low[0, 1, 1, 2, :3] = np.nan
    low[1, 0, 1, 0, 0] = np.inf
    with pytest.raises(UserError, match=r"missing \(u 4 of 216 each\)"):
        Features.of(store, Data()).arguments(low, *times)
    filled, _ = Features.of(store, Data(fill=True)).arguments(low, *times)
    low[~np.isfinite(low)] = store.statistics["low"]["u"]["mean"]
    np.testing.assert_array_equal(filled, low)


def test_a_store_with_missing_values_is_refused_before_anything_starts(tiny_store):
    store = Store(tiny_store)
    store.statistics["low"]["u"]["missing"] = 7
    with pytest.raises(UserError, match=r"values are missing \(u 7\).*--set dsr.data.fill=true"):
        Features.of(store, Data())
    assert Features.of(store, Data(fill=True)).fill
    assert Features.of(store, Data(low=["t"])).low[0].name == "t"


def test_fields_are_clipped_at_physical_bounds(store):
    found = Features.of(store, Data()).clip(np.full((1, 2, 2, 2), -3, np.float32))
    assert (found[:, 0] == -3).all() and (found[:, 1] == 0).all()  # t has no bounds, p is bounded below


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
    low = low[:, :, ::-1].copy()  # in the order of the features
    values = json.loads(json.dumps(features.to_json()))
    again = Features.restore(values, {name: array.copy() for name, array in features.arrays().items()})
    assert again.channels == features.channels
    found = [
        Downscaler(each, torch.nn.Identity()).inputs(*map(torch.from_numpy, each.arguments(low, *times)))
        for each in (features, again)
    ]
    assert torch.equal(*found)


def test_a_field_that_never_changes_is_not_divided_by_zero(tmp_path):
    write_tiny_store(tmp_path / "a.zarr")
    store = Store(tmp_path / "a.zarr")
    store.statistics["low"]["u"]["std"] = store.statistics["static"]["h"]["std"] = 0.0
    features = Features.of(store, Data())
    inputs = Downscaler(features, torch.nn.Identity()).inputs(*map(torch.from_numpy, features.arguments(*take(store))))
    assert inputs.isfinite().all()


def test_the_season_is_that_of_the_datas_own_year(store):
    """In a year of 360 days of 30 each, the day of the year is an angle in degrees."""
    features = replace(Features.of(store, Data(extras=["day_of_year"])), calendar="360_day")
    times = np.array([parse(f"2063-{month:02}-30T12:00", "360_day") for month in (2, 6)])
    found = features.scalars(times, np.zeros(2, int))
    angles = np.degrees(np.arctan2(*found.T)) % 360
    np.testing.assert_allclose(angles, [59.5, 179.5], atol=1e-4)
    again = Features.restore(json.loads(json.dumps(features.to_json())), features.arrays())
    assert again.calendar == "360_day" and Features.of(store, Data()).calendar == store.calendar


@pytest.mark.parametrize("calendar", ["noleap", "360_day", "all_leap"])
def test_the_sun_follows_the_datas_own_year(calendar):
    """Noon at the tropic of Cancer, when the year is as far as on 21 June: overhead, a century away from 1970."""
    days = {"noleap": 365, "360_day": 360, "all_leap": 366}[calendar]
    day = round(171.5 / 365 * days)
    midsummer = np.array([(93 * days + day) * 86400 + 43320])
    found = solar_scalars(midsummer, calendar) @ solar_fields(np.array([23.44]), np.array([0.0]))
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
    fields = solar_fields(np.array([float(latitude)]), np.array([float(longitude)]))
    found = solar_scalars(np.array([time]), "proleptic_gregorian") @ fields
    assert found.item() == pytest.approx(expected, abs=0.012)  # half a degree and a little
