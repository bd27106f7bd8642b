"""Metrics against hand-worked values, the libraries and their definitions."""

import numpy as np
import pytest
import xarray as xr
from scores.continuous import mae, rmse
from skimage.metrics import structural_similarity

from dsr.verify.metrics import METRICS
from dsr.verify.metrics.spectrum import spectrum
from dsr.verify.scoring import Tally, Truth


def pooled(prediction: np.ndarray, truth: np.ndarray, area: np.ndarray, mean: float = 0.0) -> dict[str, float]:
    """The scores of (sample, Y, X) fields, by way of two batches."""
    tally = Tally({name: METRICS.make(name) for name in METRICS.table if name not in ("ssim", "anomaly_correlation")})
    for part in np.array_split(np.arange(len(truth)), 2):
        fields = truth[part, None]
        tally.add(Truth.of(fields, area, mean=np.full((1, 1, 1), mean)), {"m": prediction[part, None]})
    return {name: tally.values(name, "m").item() for name in tally.metrics}


def ssim(prediction: np.ndarray, truth: np.ndarray, span: float) -> float:
    """The structural similarity of two fields (Y, X)."""
    tally = Tally({"ssim": METRICS.make("ssim")})
    area = np.ones(truth.shape)
    tally.add(Truth.of(truth[None, None], area, span=np.full((1, 1, 1), span)), {"m": prediction[None, None]})
    return tally.values("ssim", "m").item()


def test_rmse_is_the_root_of_the_pooled_mean_square_with_weights():
    truth = np.zeros((2, 1, 2))
    found = pooled(np.array([[[3.0, 0.0]], [[-1.0, 4.0]]]), truth, np.array([[3.0, 1.0]]))
    assert found["rmse"] == pytest.approx(np.sqrt((3 * 9 + 3 * 1 + 16) / 8))
    assert found["mae"] == pytest.approx((9 + 3 + 4) / 8)
    assert found["bias"] == pytest.approx((9 - 3 + 4) / 8)


def test_missing_truth_is_left_out_and_a_missing_prediction_is_not_rewarded():
    random = np.random.default_rng(0)
    prediction, truth = random.normal(size=(2, 6, 5, 4))
    weights = random.uniform(0.5, 1.5, (5, 4))
    truth[random.random(truth.shape) < 0.3] = np.nan
    truth[3] = np.nan
    found = pooled(prediction, truth, weights)
    fields = xr.DataArray(prediction), xr.DataArray(truth)
    area = xr.DataArray(weights, dims=("dim_1", "dim_2"))
    assert found["rmse"] == pytest.approx(rmse(*fields, weights=area).item())
    assert found["mae"] == pytest.approx(mae(*fields, weights=area).item())
    there = np.isfinite(truth)
    covariance = np.cov(prediction[there], truth[there], aweights=np.broadcast_to(weights, truth.shape)[there])
    assert found["correlation"] == pytest.approx(covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1]))
    prediction[0, 0, 0] = np.nan
    truth[0, 0, 0] = 1.0
    assert np.isnan(pooled(prediction, truth, weights)["rmse"])


def test_correlation_does_not_depend_on_where_departures_start_nor_exists_without_variance():
    random = np.random.default_rng(0)
    truth = 280 + random.normal(size=(4, 6, 6))
    prediction = truth + random.normal(size=truth.shape)
    found = [pooled(prediction, truth, np.ones((6, 6)), mean)["correlation"] for mean in (0.0, 280.0)]
    assert found == pytest.approx([np.corrcoef(prediction.ravel(), truth.ravel())[0, 1]] * 2)
    assert np.isnan(pooled(np.full_like(truth, 280.0), truth, np.ones((6, 6)), 280.0)["correlation"])


def test_ssim_is_the_library_s_and_windows_with_missing_values_do_not_count():
    random = np.random.default_rng(0)
    truth = 1e3 + random.normal(size=(20, 24))
    prediction = truth + 0.5 * random.normal(size=truth.shape)
    assert ssim(truth, truth, 6.0) == pytest.approx(1)
    library = structural_similarity(prediction, truth, data_range=6.0)
    assert ssim(prediction, truth, 6.0) == pytest.approx(library, rel=1e-9)
    spoiled, gap = prediction.copy(), truth.copy()
    spoiled[:, 12:] = 1e3
    gap[:, 12:] = np.nan
    left = ssim(prediction[:, :12], truth[:, :12], 6.0)
    assert ssim(spoiled, gap, 6.0) == pytest.approx(left)
    assert np.isnan(ssim(truth[:5], truth[:5], 6.0)) and np.isnan(ssim(truth, truth, 0.0))


@pytest.mark.parametrize("spacing", [(2.0, 2.0), (3.0, 2.0)])
def test_spectrum_peaks_at_the_known_wavelength(spacing):
    y, x = np.arange(60) * spacing[0], np.arange(80) * spacing[1]
    for wavelength in (16.0, 40.0):
        wave = np.cos(2 * np.pi * (x[None] * 0.8 + y[:, None] * 0.6) / wavelength)
        wavelengths, power = spectrum(np.stack([wave, 3 * wave]), spacing)
        assert wavelengths[power[0].argmax()] == pytest.approx(wavelength, rel=0.1)
        assert np.allclose(power[1], 9 * power[0])


def test_spectrum_of_white_noise_is_flat_and_holds_the_variance():
    noise = 2 * np.random.default_rng(0).normal(size=(200, 32, 32))
    wavelengths, power = spectrum(noise, (1.0, 1.0))
    assert wavelengths[0] == pytest.approx(64) and wavelengths[-1] == pytest.approx(2)
    assert power.mean(0) == pytest.approx(4 / 32**2, rel=0.2)
