"""Scores of fields against the truth: cells weighted by area, missing truth masked, in physical units."""

from typing import Any

import numpy as np

POOLED = ("rmse", "mae", "bias", "correlation", "anomaly_correlation")


def per_sample(prediction: Any, truth: Any, weights: Any, references: dict[str, Any]) -> Any:
    """What the pooled scores of a batch are made of; `pool` takes it, joined along `sample`.

    prediction (method, sample, variable, y, x), truth (sample, variable, y, x) and weights (y, x): float64 DataArrays.
    Each of `references` (broadcastable to truth) names a correlation of departures from it. Returns a Dataset
    (method, sample, variable): `weight` of the points with truth, the weighted means `mse`, `mae` and `bias`
    (prediction minus truth), and the means and products of the departures. Truth that is missing is left out; a
    prediction that is missing where there is truth makes its scores NaN, not better.
    """
    import xarray as xr
    from scores.continuous import additive_bias, mae, mse

    valid = truth.notnull()
    area = weights * valid
    kept = ("method", "sample", "variable")
    pair = {"fcst": prediction, "obs": truth, "preserve_dims": kept, "weights": weights}
    result = xr.Dataset({"mse": mse(**pair), "mae": mae(**pair), "bias": additive_bias(**pair)})
    total = area.sum(("y", "x"))
    for name, reference in references.items():
        p, t = prediction.where(valid, 0.0) - reference, truth.where(valid, 0.0) - reference
        products = {"p": (p,), "t": (t,), "pp": (p, p), "tt": (t, t), "pt": (p, t)}
        for key, factors in products.items():
            result[f"{name}_{key}"] = xr.dot(*factors, area, dim=("y", "x")) / total
    complete = (prediction.notnull() | ~valid).all(("y", "x"))
    return result.where(complete).assign(weight=total)


def pool(samples: Any) -> Any:
    """Pooled scores (method, variable) of `per_sample`'s Dataset.

    RMSE (root of the pooled mean square), MAE, bias, and the correlations over all points and samples together; NaN
    where a method gives no value, or a field has no variance.
    """
    import xarray as xr

    present = samples.weight > 0

    def mean(name: str) -> Any:
        weighted = (samples[name] * samples.weight).where(present, 0.0)
        return weighted.sum("sample", skipna=False) / samples.weight.sum("sample")

    result = xr.Dataset({"rmse": np.sqrt(mean("mse")), "mae": mean("mae"), "bias": mean("bias")})
    for name in (key.removesuffix("_pt") for key in samples.data_vars if str(key).endswith("_pt")):
        p, t = mean(f"{name}_p"), mean(f"{name}_t")
        variances = (mean(f"{name}_pp") - p**2) * (mean(f"{name}_tt") - t**2)
        covariance = mean(f"{name}_pt") - p * t
        result[name] = covariance / np.sqrt(variances.where(variances > 1e-12 * mean(f"{name}_tt") ** 2))
    return result


def ssim(prediction: np.ndarray, truth: np.ndarray, data_range: float, inside: np.ndarray) -> float:
    """Mean structural similarity (Wang et al. 2004, doi:10.1109/TIP.2003.819861) of two (Y, X) fields, 7 x 7 windows.

    Only windows that lie wholly `inside` ((Y, X) bool) and hold no missing value count; NaN where there are none.
    """
    from scipy.ndimage import minimum_filter
    from skimage.metrics import structural_similarity

    window = 7
    if min(truth.shape) < window or data_range <= 0:
        return float("nan")
    good = inside & np.isfinite(prediction) & np.isfinite(truth)
    whole = minimum_filter(good, size=window, mode="constant", cval=False)
    if not whole.any():
        return float("nan")
    fields = (np.where(good, field, 0.0).astype(np.float64) for field in (prediction, truth))
    _, similarity = structural_similarity(*fields, data_range=data_range, win_size=window, full=True)
    return float(similarity[whole].mean())


def spectrum(fields: np.ndarray, spacing: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Radially averaged power spectra of (..., Y, X) fields with cells of `spacing` (dy, dx) km.

    By the discrete cosine transform, which needs neither detrending nor a window on a limited area (Denis et al. 2002,
    doi:10.1175/1520-0493(2002)130<1812:SDOTDA>2.0.CO;2). Returns the wavelengths (bin) in km, falling, down to twice
    the coarser spacing, and the mean variance of a mode in each annulus (..., bin), in units squared.
    """
    from scipy.fft import dctn

    ny, nx = fields.shape[-2:]
    power = dctn(np.asarray(fields, np.float64), axes=(-2, -1), norm="ortho") ** 2 / (ny * nx)
    ky, kx = np.arange(ny) / (2 * ny * spacing[0]), np.arange(nx) / (2 * nx * spacing[1])
    width = max(ky[1], kx[1])
    ring = np.rint(np.hypot(ky[:, None], kx[None]) / width).astype(int).ravel()
    rings = np.arange(1, int(1 / (2 * max(spacing) * width)) + 1)
    member = (ring == rings[:, None]).astype(np.float64)
    average = power.reshape(*power.shape[:-2], -1) @ (member / member.sum(1, keepdims=True)).T
    return 1 / (rings * width), average
