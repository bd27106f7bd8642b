"""What a small archive holds: fields that are known functions of true place and of time."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SPHERE = 6_370_000.0  # m: the radius of the earth in WRF
LATITUDE = {"units": "degrees_north", "standard_name": "latitude", "long_name": "latitude"}
LONGITUDE = {"units": "degrees_east", "standard_name": "longitude", "long_name": "longitude"}
PACKED: dict[str, Any] = {"zlib": True, "complevel": 1, "shuffle": True}


@dataclass(frozen=True)
class Field:
    """One variable as a store must hold it."""

    values: np.ndarray  # (frame, y, x)
    units: str
    statistic: str = "point"  # of its interval: "sum", "mean", or "point" for an instant
    interval: tuple[float, float] = (0, 0)  # hours from the frame's valid time to the interval's start and end


@dataclass(frozen=True)
class Truth:
    """What was written, as a store must hold it; rows and columns as in the file."""

    latitude: np.ndarray  # (y, x) degrees
    longitude: np.ndarray  # (y, x) degrees
    times: tuple[str, ...]  # valid times in the data's own calendar, such as "2020-01-01T06:00:00"
    fields: dict[str, Field]
    calendar: str = "proleptic_gregorian"


def temperature(latitude: np.ndarray, longitude: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """(step, y, x) K: cooler polewards, wavy along longitude, moving in time."""
    moving = np.sin(np.asarray(steps, float))[:, None, None]
    return 288 - 0.7 * (np.abs(latitude) - 40) + 2 * np.sin(np.deg2rad(6 * longitude)) + moving


def rain(latitude: np.ndarray, longitude: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """(step, y, x) kg m-2 in a step, between 0 and 2."""
    moving = np.asarray(steps, float)[:, None, None]
    return (1 + np.sin(np.deg2rad(20 * latitude) + moving)) * (1 + np.cos(np.deg2rad(15 * longitude))) / 2


def grid(latitude: np.ndarray, longitude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(latitude, longitude), both (y, x)."""
    rows, columns = np.meshgrid(latitude, longitude, indexing="ij")
    return rows, columns


def degrees(projection: str, y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(latitude, longitude), both (y, x), on the projection's own ellipsoid: by PROJ's formulas, without any datum."""
    from pyproj import Proj

    longitude, latitude = Proj(projection)(*np.meshgrid(x, y), inverse=True)
    return latitude, longitude


def unrotated(pole: tuple[float, float], y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(latitude, longitude), both (y, x), of a grid whose pole lies at this (latitude, longitude)."""
    row, column = np.meshgrid(np.deg2rad(y), np.deg2rad(x), indexing="ij")
    tilt = np.deg2rad(90 - pole[0])
    first, third = np.cos(row) * np.cos(column), np.sin(row)
    east = np.arctan2(np.cos(row) * np.sin(column), first * np.cos(tilt) - third * np.sin(tilt))
    latitude = np.arcsin(first * np.sin(tilt) + third * np.cos(tilt))
    return np.rad2deg(latitude), (np.rad2deg(east) + pole[1] + 360) % 360 - 180


def hours_after(start: str, hours: np.ndarray) -> tuple[str, ...]:
    """Times in the real calendar, as Truth has them."""
    times = np.datetime64(start, "s") + (np.ravel(hours) * 3600).astype("timedelta64[s]")
    return tuple(np.datetime_as_string(times, "s").tolist())


def files(folder: Path) -> Path:
    """The folder, made."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder
