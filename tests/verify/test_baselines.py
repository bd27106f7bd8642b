"""Baselines on small stores where the right answer is known."""

import numpy as np
import pytest

from dsr.data.interpolate import Interpolation
from dsr.data.samples import Samples, read
from dsr.data.store import Variable
from dsr.models.ridge import Everywhere, Ridge, Windows
from dsr.verify.evaluate import fit_baselines
from dsr.verify.training import Training, _Mean
from tests.stores import DAY, HOUR, block_mean, features, make, thirds


def fitted(store, ft) -> dict:
    """Every baseline that the store allows, fitted."""
    return fit_baselines(Training(store, ft))[0]


def ridge(store, ft) -> Ridge:
    return fitted(store, ft)["ridge"].regression


def predicted(store, ft, split="test") -> tuple[dict[str, np.ndarray], Samples]:
    """Every baseline's prediction of a whole split, within bounds, and the split."""
    samples = next(read(store, ft, store.samples(split)))
    return {name: ft.clip(baseline(samples)) for name, baseline in fitted(store, ft).items()}, samples


def error(fields: np.ndarray, samples: Samples) -> float:
    return float(np.sqrt(np.nanmean((fields - samples.truth) ** 2)))


def linear_pair(n: int, ny: int, nx: int, factor: int, reach: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Random low fields (n, 1, y, x), and a fixed linear map of them (of cells within reach) to the high grid."""
    random = np.random.default_rng(0)
    low = random.normal(280, 3, (n, 1, ny, nx))
    points = random.normal(size=(ny * factor, nx * factor, ny, nx)) / 10
    if reach is not None:
        row, column = np.arange(ny * factor) // factor, np.arange(nx * factor) // factor
        near = np.abs(row[:, None] - np.arange(ny)) <= reach, np.abs(column[:, None] - np.arange(nx)) <= reach
        points *= near[0][:, None, :, None] & near[1][None, :, None, :]
    high = np.einsum("nyx,YXyx->nYX", low[:, 0] - 280, points)[:, None] + 280
    return high, low


def test_batches_hold_every_sample_once_in_order_whatever_their_size(tiny_store):
    from dsr.data.store import Store

    store = Store(tiny_store)
    ft = features(store)
    parts = list(read(store, ft, store.samples("train"), values=5000))
    assert len(parts) > 3
    truth = np.concatenate([samples.truth for samples in parts])
    assert np.array_equal(truth, store.high[store.high_index[store.samples("train")]])


def test_ridge_recovers_an_exact_linear_map(tmp_path):
    high, low = linear_pair(150, 4, 5, 4, None)
    fields, batch = predicted(store := make(tmp_path / "s.zarr", high, low, thirds(100, 25, 25)), features(store))
    assert error(fields["bicubic"], batch) > 1
    assert error(fields["ridge"], batch) < 1e-3


def test_ridge_in_windows_recovers_a_local_linear_map(tmp_path):
    high, low = linear_pair(160, 34, 34, 2, 1)
    store = make(tmp_path / "s.zarr", high, low, thirds(120, 20, 20), factor=2)
    ft = features(store)
    design = ridge(store, ft).design
    assert isinstance(design, Windows) and design.tiles > 500
    fields, batch = predicted(store, ft)
    assert error(fields["ridge"], batch) < 0.02 * error(fields["bicubic"], batch)


def test_ridge_chooses_its_penalty_on_validation(tmp_path):
    random = np.random.default_rng(0)
    noise = random.normal(280, 1, (120, 1, 16, 16))  # nothing to be learned from an unrelated low field
    store = make(tmp_path / "noise.zarr", noise, random.normal(280, 1, (120, 1, 4, 4)), thirds(60, 30, 30))
    assert ridge(store, features(store)).penalties[0][0] >= 0.1
    high, low = linear_pair(120, 4, 4, 4, None)
    clean = make(tmp_path / "clean.zarr", high, low, thirds(60, 30, 30))
    assert ridge(clean, features(clean)).penalties[0][0] <= 1e-4


def test_ridge_sees_spread_and_lead_time_and_the_sun(tmp_path):
    random = np.random.default_rng(0)
    n = 240
    init, lead = np.arange(n) // 4 * DAY, np.arange(n) % 4 * 3 * HOUR
    low = 280 + random.normal(0, random.uniform(0.5, 3, (n, 1, 1, 1, 1)), (n, 6, 1, 3, 3))
    spread = low.std(1, ddof=1)
    sun = np.cos(2 * np.pi * lead / DAY)[:, None, None, None]
    high = 280 + np.repeat(np.repeat(spread, 4, 2), 4, 3) + sun + lead[:, None, None, None] / DAY
    where = np.linspace(50, 53, 12)
    store = make(tmp_path / "s.zarr", high, low, thirds(160, 40, 40), init=init, lead=lead, latitude=where)
    seen, batch = predicted(store, features(store, ("solar_zenith", "lead_time")))
    assert error(seen["ridge"], batch) < 0.05
    blind, batch = predicted(store, features(store, members="mean"))
    assert error(blind["ridge"], batch) > 0.3


def test_ridge_is_one_regression_where_the_split_is_by_region(tmp_path):
    random = np.random.default_rng(0)
    low = random.normal(280, 1, (6, 1, 8, 8))
    hill = random.uniform(0, 1000, (32, 32)).astype(np.float32)
    region = np.full((32, 32), -1, np.int8)
    region[:, :18], region[:14, 20:], region[18:, 20:] = 0, 1, 2
    static = {"static": {"topography": hill}, "static_variables": [Variable("topography", "m", "surface_altitude")]}
    store = make(tmp_path / "s.zarr", np.zeros((6, 1, 32, 32)), low, np.zeros(6), region=region, **static)
    smooth = Interpolation(store.low_index, (8, 8), "bicubic")(low)
    store = make(tmp_path / "t.zarr", smooth - 0.0065 * hill + 2, low, np.zeros(6), region=region, **static)
    assert isinstance(ridge(store, features(store)).design, Everywhere)
    fields, batch = predicted(store, features(store))
    assert np.abs(fields["ridge"] - batch.truth).max() < 0.01
    assert np.ptp(fields["bicubic_bias"] - fields["bicubic"]) < 1e-3  # one value everywhere


def test_a_missing_target_leaves_other_points_as_they_were(tmp_path):
    high, low = linear_pair(150, 4, 4, 4, None)
    holed = high.copy()
    holed[::3, 0, 2, 3] = np.nan
    holed[:, 0, 9, 9] = np.nan  # never observed, as beyond a radar's range
    whole, _ = predicted(store := make(tmp_path / "a.zarr", high, low, thirds(100, 25, 25)), features(store))
    fields, _ = predicted(store := make(tmp_path / "b.zarr", holed, low, thirds(100, 25, 25)), features(store))
    other = np.ones((16, 16), bool)
    other[2, 3] = other[9, 9] = False
    for method in ("ridge", "bicubic_bias", "climatology"):
        assert np.allclose(fields[method][..., other], whole[method][..., other], atol=1e-3)
    assert np.isfinite(fields["ridge"][:, 0, 2, 3]).all()


def test_lapse_rate_is_recovered_and_applied(tmp_path):
    random = np.random.default_rng(0)
    hill = random.uniform(0, 2000, (16, 16)).astype(np.float32)
    coarse = block_mean(hill, 4)
    low = 290 + random.normal(size=(30, 1, 1, 1)) - 0.005 * coarse  # (n, 1, y, x)
    static = {
        "static": {"topography": hill},
        "low_static": {"topography": coarse},
        "static_variables": [Variable("topography", "m", "surface_altitude")],
    }
    first = make(tmp_path / "a.zarr", np.zeros((30, 1, 16, 16)), low, thirds(20, 5, 5), **static)
    smooth = Interpolation(first.low_index, (4, 4), "bicubic")
    high = smooth(low) - 0.005 * (hill - smooth(coarse)) + 0.5
    store = make(tmp_path / "b.zarr", high, low, thirds(20, 5, 5), **static)
    assert fitted(store, features(store))["elevation"].lapse_rates[0] == pytest.approx(-0.005, rel=1e-3)
    fields, batch = predicted(store, features(store))
    assert error(fields["elevation"], batch) == pytest.approx(0.5, abs=1e-2)  # the bias is not height's


def test_elevation_is_omitted_with_a_reason(tmp_path):
    high, low = linear_pair(20, 3, 3, 4, None)
    store = make(tmp_path / "s.zarr", high, low, thirds(10, 5, 5))
    assert "topography" in fit_baselines(Training(store, features(store)))[1]["elevation"]
    store = make(tmp_path / "q.zarr", high, low, thirds(10, 5, 5), high_names=("q",), low_names=("q",))
    assert "temperature" in fit_baselines(Training(store, features(store)))[1]["elevation"]


def test_bias_and_climatology_by_hour_are_training_means(tmp_path):
    random = np.random.default_rng(0)
    hours = np.tile([0, 12], 20)
    init = np.arange(40) // 2 * DAY + hours * HOUR
    pattern = random.normal(size=(12, 12))
    high = 280 + pattern + np.where(hours == 12, 5.0, 0.0)[:, None, None, None]
    low = np.full((40, 1, 3, 3), 280.0)
    fields, batch = predicted(
        store := make(tmp_path / "s.zarr", high, low, thirds(20, 10, 10), init=init), features(store)
    )
    assert np.allclose(fields["climatology"], batch.truth, atol=1e-4)
    assert np.allclose(fields["bicubic_bias"], 280 + pattern + 2.5, atol=1e-3)
    unseen = Training(store, features(store)).climatology(np.array([6 * HOUR]))
    assert np.allclose(unseen[0, 0], 280 + pattern + 2.5, atol=1e-3)


def test_the_running_mean_is_the_mean_whatever_is_missing():
    random = np.random.default_rng(0)
    fields = random.normal(1e5, 1, (40, 1, 6, 5)).astype(np.float32)
    fields[random.random(fields.shape) < 0.2] = np.nan
    fields[20:, 0, 2, 2], fields[:, 0, 0, 0] = np.nan, np.nan
    parts = [_Mean((1, 6, 5), 1e5 + 3) for _ in range(2)]
    for i, batch in enumerate(np.array_split(fields, 7)):
        parts[i % 2].add(batch)
    whole = _Mean.joined(parts)
    with np.errstate(invalid="ignore"):
        expected = np.nansum(fields, 0, dtype=np.float64) / np.isfinite(fields).sum(0)
    np.testing.assert_allclose(whole.value(), expected.astype(np.float32), rtol=2e-7)
    region = np.zeros((6, 5), bool)
    region[:, :3] = True
    expected = np.nanmean(fields[..., :3].astype(np.float64))
    np.testing.assert_allclose(whole.value(region), np.full((1, 6, 5), expected), rtol=2e-7)


def test_members_bounds_and_variables_that_low_lacks(tmp_path):
    random = np.random.default_rng(0)
    low = random.normal(0, 1, (20, 3, 2, 4, 4))
    high = random.normal(0, 1, (20, 2, 16, 16))
    store = make(tmp_path / "s.zarr", high, low, thirds(12, 4, 4), high_names=("q", "gust"), low_names=("u", "q"))
    fields, batch = predicted(store, features(store))
    bicubic = Interpolation(store.low_index, (4, 4), "bicubic")
    assert np.allclose(fields["control"][:, 0], np.maximum(bicubic(batch.low[:, 0, 1]), 0), atol=1e-6)
    assert np.allclose(fields["ensemble_mean"][:, 0], np.maximum(bicubic(batch.low.mean(1)[:, 1]), 0), atol=1e-6)
    assert all((f[:, 0] >= 0).all() for f in fields.values())
    for method, field in fields.items():
        assert np.isfinite(field[:, 1]).all() == (method in ("climatology", "ridge")), method
