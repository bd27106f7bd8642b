"""Small stores for tests: `write_tiny_store` to train on, `make` from given fields, `four_samples` for the format."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from dsr.config import Data
from dsr.data.features import Features
from dsr.data.grid import Grid
from dsr.data.manifest import MANIFEST, PROVENANCE, SUMS, checksum, write_manifest
from dsr.data.store import Layout, Store, Variable
from dsr.data.writer import Writer

HOUR, DAY = 3600, 86400


def write_tiny_store(path: Path, region: np.ndarray | None = None, missing: bool = False) -> None:
    """Smooth waves over a hill: `t` stands in both, `p` (bounded below) only in the high data.

    With `missing` values: `p` lacks a rectangle in two of three times, and is absent in every fifth; `t` lacks a row in
    every other one, and both are absent in every seventh.
    """
    low_x, high_x = np.arange(6) * 4.0 + 1.5, np.arange(24) * 1.0
    index = tuple(np.meshgrid((high_x - 1.5) / 4, (high_x - 1.5) / 4, indexing="ij"))
    hill = np.exp(-((high_x[:, None] - 10) ** 2 + (high_x - 14) ** 2) / 20)
    inits = np.arange(60) * 86400
    layout = Layout(
        high_variables=[Variable("t", "K", "air_temperature"), Variable("p", "kg m-2", lower=0.0)],
        low_variables=[Variable("t", "K", "air_temperature"), Variable("u", "m s-1", "eastward_wind")],
        high_grid=_square(high_x),
        low_grid=_square(low_x),
        time=inits + 3600,
        low_init_time=inits,
        low_lead_time=np.full(60, 3600),
        high_index=np.arange(60),
        split=np.repeat([0, 1, 2], [40, 10, 10]),
        low_index=index,
        factor=4,
        pairing="same-run",
        splits={"by": "time"},
        provenance={"source": "tests"},
        members=3,
        region=region,
        static={"h": hill},
        static_variables=[Variable("h", "m", "surface_altitude")],
    )
    random = np.random.default_rng(0)
    with Writer(path, layout) as writer:
        for i in range(60):
            phase, wind = random.uniform(0, 6), random.normal()
            for group, x in ((writer.low, low_x), (writer.high, high_x)):
                t = 280 + np.sin(x / 4 + phase) + np.cos(x[:, None] / 5 - phase)
                if group is writer.low:
                    noise = random.normal(scale=0.1, size=(3, 1, 1))
                    group[i] = np.stack([t + noise, np.full((3, 6, 6), wind)], 1)
                else:
                    rain = np.maximum(wind * np.gradient(hill, axis=1), 0)
                    group[i] = holed(np.stack([t - hill * np.tanh(wind), rain]), i if missing else 0)


def holed(fields: np.ndarray, number: int) -> np.ndarray:
    """The fields `t` and `p` (2, Y, X) with the missing values of time `number`; 0 has none."""
    if number % 3:
        fields[1, number % 11 : number % 11 + 9, number % 7 : 20] = np.nan
    if number % 5 == 4:
        fields[1] = np.nan
    if number % 2:
        fields[0, number % 24] = np.nan
    if number % 7 == 6:
        fields[:] = np.nan
    return fields


def sign(store: Path) -> None:
    """Write a store's manifest anew, for what its files hold now: as if they had been written so."""
    provenance = json.loads((store / "provenance.json").read_text())
    names = {str(file.relative_to(store)): file for file in store.rglob("*") if file.is_file()}
    ours = {
        name: checksum(file.read_bytes()) for name, file in names.items() if name not in (SUMS, MANIFEST, PROVENANCE)
    }
    write_manifest(store, ours, provenance)


def block_mean(high: np.ndarray, factor: int) -> np.ndarray:
    """(..., Y, X) -> (..., Y / factor, X / factor)."""
    *rest, ny, nx = high.shape
    return high.reshape(*rest, ny // factor, factor, nx // factor, factor).mean((-3, -1))


def make(
    path: Path,
    high: np.ndarray,
    low: np.ndarray,
    split: np.ndarray,
    *,
    factor: int = 4,
    init: np.ndarray | None = None,
    lead: np.ndarray | None = None,
    high_names: tuple[str, ...] = ("t",),
    low_names: tuple[str, ...] = ("t",),
    latitude: np.ndarray | None = None,
    **more: object,
) -> Store:
    """A store of high (n, variable, Y, X) and low (n, [member,] variable, y, x) on cell-registered grids.

    The grid is 2 km, projected, or regular in degrees where `latitude` is given.
    """
    shape = high.shape[-2:]
    init = np.arange(len(high)) * HOUR if init is None else init
    lead = np.zeros(len(high), int) if lead is None else lead
    index = np.meshgrid(*((np.arange(n) + 0.5) / factor - 0.5 for n in shape), indexing="ij")
    variable = {"t": Variable("t", "K", "air_temperature"), "q": Variable("q", "kg kg-1", lower=0.0)}
    time, rows = np.unique(init + lead, return_inverse=True)
    layout = Layout(
        high_variables=[variable.get(n, Variable(n)) for n in high_names],
        low_variables=[variable.get(n, Variable(n)) for n in low_names],
        high_grid=_grid(shape, 1, latitude),
        low_grid=_grid(low.shape[-2:], factor, latitude),
        time=time,
        low_init_time=np.asarray(init, np.int64),
        low_lead_time=np.asarray(lead, np.int64),
        high_index=rows,
        split=np.asarray(split, np.int8),
        low_index=(index[0], index[1]),
        factor=factor,
        pairing="coarsen",
        splits={},
        provenance={},
        members=low.shape[1] if low.ndim == 5 else None,
        **more,  # type: ignore[arg-type]
    )
    with Writer(path, layout) as writer:
        for i in range(len(high)):
            writer.high[rows[i]] = high[i]
            writer.low[i] = low[i]
    return Store(path)


def _grid(shape: tuple[int, int], factor: int, latitude: np.ndarray | None) -> Grid:
    y, x = (2000.0 * factor * (np.arange(n) + 0.5) for n in shape)
    if latitude is None:
        return Grid(y, x, {})
    y = block_mean(latitude[None].repeat(factor, 0), factor)[0] if factor > 1 else latitude
    return Grid(y, x / 2000.0 * abs(latitude[1] - latitude[0]))


def features(store: Store, extras: tuple[str, ...] = (), members: str = "mean_spread") -> Features:
    """The features of everything that a store has."""
    return Features.of(store, Data(extras=list(extras), members=members))  # type: ignore[arg-type]


def thirds(train: int, validation: int, test: int) -> np.ndarray:
    """Split codes of samples in that order."""
    return np.repeat([0, 1, 2], [train, validation, test])


def four_samples(**change: Any) -> Layout:
    """4 samples on 2 x 2 low and 4 x 4 high cells; `t` in both, two of them for training."""
    low, high = np.array([1.5, 5.5]), np.arange(4.0) * 2 + 0.5
    grids = {name: Grid(points * 1000, points * 1000, {}) for name, points in (("high_grid", high), ("low_grid", low))}
    place = (high - 1.5) / 4
    values: dict[str, Any] = {
        "high_variables": [Variable("t", "K", "air_temperature", "temperature", "time: point")],
        "low_variables": [
            Variable("t", "K", "air_temperature"),
            Variable("q", "kg kg-1", "specific_humidity", lower=0.0),
        ],
        "time": np.arange(4) * 3600,
        "low_init_time": np.zeros(4, np.int64),
        "low_lead_time": np.arange(4) * 3600,
        "high_index": np.arange(4),
        "split": np.array([0, 0, 1, 2]),
        "low_index": tuple(np.meshgrid(place, place, indexing="ij")),
        "factor": 2,
        "pairing": "coarsen",
        "splits": {"by": "time"},
        "provenance": {"source": "a test"},
        **grids,
        **change,
    }
    return Layout(**values)


def write_four_samples(
    path: Path, low: np.ndarray | None = None, high: np.ndarray | None = None, **change: Any
) -> Store:
    """The store of `four_samples`, of fields that count up where none are given."""
    layout = four_samples(**change)
    low = np.arange(4 * 2 * 4, dtype=np.float32).reshape(4, 2, 2, 2) if low is None else low
    high = np.arange(4 * 16, dtype=np.float32).reshape(4, 1, 4, 4) if high is None else high
    with Writer(path, layout) as writer:
        for i in range(4):
            writer.low[i], writer.high[i] = low[i], high[i]
    return Store(path)


def _square(x: np.ndarray) -> Grid:
    return Grid(x * 1000, x * 1000, {})
