"""Radially averaged power spectra of fields: a curve for each method rather than one score."""

from __future__ import annotations

from functools import lru_cache

import numpy as np


def spectrum(fields: np.ndarray, spacing: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Radially averaged power spectra of (..., Y, X) fields with cells of `spacing` (dy, dx) km.

    By the discrete cosine transform, which needs neither detrending nor a window on a limited area (Denis et al. 2002,
    doi:10.1175/1520-0493(2002)130<1812:SDOTDA>2.0.CO;2). Returns the wavelengths (bin) in km, decreasing, down to twice
    the coarser spacing, and the mean variance of a mode in each annulus (..., bin), in units squared.
    """
    from scipy.fft import dctn

    ny, nx = fields.shape[-2:]
    wavelengths, order, starts, counts = _annuli(ny, nx, *spacing)
    power = dctn(np.asarray(fields, np.float64), axes=(-2, -1), norm="ortho") ** 2 / (ny * nx)
    by_ring = power.reshape(*power.shape[:-2], -1)[..., order]
    return wavelengths, np.add.reduceat(by_ring, starts, axis=-1) / counts


@lru_cache(maxsize=4)
def _annuli(ny: int, nx: int, dy: float, dx: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The wavelength of each annulus; the modes sorted by annulus; where each starts; how many modes it has."""
    ky, kx = np.arange(ny) / (2 * ny * dy), np.arange(nx) / (2 * nx * dx)
    width = max(ky[1], kx[1])
    ring = np.rint(np.hypot(ky[:, None], kx[None]) / width).astype(int).ravel()
    rings = np.arange(1, int(1 / (2 * max(dy, dx) * width)) + 1)
    order = np.argsort(ring, kind="stable")
    starts, ends = (np.searchsorted(ring[order], rings, side) for side in ("left", "right"))
    return 1 / (rings * width), order[: ends[-1]], starts, ends - starts
