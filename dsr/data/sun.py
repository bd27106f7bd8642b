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


def cos_zenith(
    time: np.ndarray, latitude: np.ndarray, longitude: np.ndarray, calendar: str = "proleptic_gregorian"
) -> np.ndarray:
    """The cosine of the solar zenith angle, negative at night: (n) int64 seconds UTC -> (n, Y, X) float32.

    Latitude and longitude (Y, X) in degrees. The season is the phase of the year in `calendar`.
    """
    angle = year_angle(time, calendar)[:, None, None]
    hour = hour_angle(time[:, None, None], angle) + np.radians(longitude) - np.pi
    phi, delta = np.radians(latitude), declination(angle)
    sine = np.sin(phi) * np.sin(delta) + np.cos(phi) * np.cos(delta) * np.cos(hour)
    return sine.astype(np.float32)
