"""The position of the sun, after Spencer (1971): accurate to about half a degree."""

from __future__ import annotations

import numpy as np

from dsr.data.calendar import year_angle


def declination(angle: np.ndarray) -> np.ndarray:
    """The declination in radians, from the phase of the year (radians, see `year_angle`)."""
    return (
        0.006918 - 0.399912 * np.cos(angle) + 0.070257 * np.sin(angle) - 0.006758 * np.cos(2 * angle)
        + 0.000907 * np.sin(2 * angle) - 0.002697 * np.cos(3 * angle) + 0.00148 * np.sin(3 * angle)
    )  # fmt: skip


def hour_angle(time: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """The hour angle in radians at longitude 0, 0 at solar midnight; from time in s UTC and the phase of the year."""
    minutes = 229.18 * (
        0.000075 + 0.001868 * np.cos(angle) - 0.032077 * np.sin(angle)
        - 0.014615 * np.cos(2 * angle) - 0.040849 * np.sin(2 * angle)
    )  # the equation of time  # fmt: skip
    return 2 * np.pi * (time / 86400.0 % 1 + minutes / 1440.0)


def solar_scalars(time: np.ndarray, calendar: str) -> np.ndarray:
    """(n) int64 seconds UTC -> (n, 3) float64, which times `solar_fields` and summed is the cosine of the zenith angle.

    The season is the phase of the year in `calendar`.
    """
    year = year_angle(time, calendar)
    delta, hour = declination(year), hour_angle(time, year)
    return np.stack([np.sin(delta), np.cos(delta) * np.cos(hour), np.cos(delta) * np.sin(hour)], -1)


def solar_fields(latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    """(Y, X) degrees -> (3, Y, X) float64, see `solar_scalars`. At night the cosine is negative."""
    phi, turn = np.radians(latitude), np.radians(longitude)
    return np.stack([np.sin(phi), -np.cos(phi) * np.cos(turn), np.cos(phi) * np.sin(turn)])
