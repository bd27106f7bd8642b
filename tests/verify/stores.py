"""Small stores for the tests of verification."""

from pathlib import Path

import numpy as np

from dsr.data.features import Features
from dsr.data.grid import Grid
from dsr.data.store import Layout, Store, Variable
from dsr.data.writer import Writer

HOUR, DAY = 3600, 86400


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
    from dsr.config import Data

    return Features.of(store, Data(extras=list(extras), members=members))  # type: ignore[arg-type]


def thirds(train: int, validation: int, test: int) -> np.ndarray:
    """Split codes of samples in that order."""
    return np.repeat([0, 1, 2], [train, validation, test])
