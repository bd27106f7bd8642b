"""The domain that a network was trained on: both grids and how its input was made, stored beside its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dsr.data.choice import Choice
from dsr.data.grid import Grid
from dsr.data.projection import plain

if TYPE_CHECKING:
    from dsr.data.store import Store, Variable


@dataclass
class Domain:
    """What prediction must know about the training store, in addition to the features."""

    high: Grid
    low: Grid
    factor: int
    interval: tuple[int, int]  # s relative to the valid time: the period of sums, means and extremes of the high data
    provenance: dict[str, Any]

    @classmethod
    def of(cls, store: Store) -> Domain:
        """The domain of a store."""
        attributes: dict[str, Any] = store.attributes
        return cls(
            high=store.grid("high"),
            low=store.grid("low"),
            factor=attributes["factor"],
            interval=_interval(store),
            provenance=attributes["provenance"],
        )

    @property
    def coarsened(self) -> bool:
        """Whether the low fields were made by coarsening."""
        return self.provenance.get("recipe", {}).get("factor") is not None

    def choices(self, part: str, variables: list[Variable]) -> list[dict[str, Choice]]:
        """How to read the "low" or "static" variables: as the recipe did, in the units used in training.

        One dictionary per archive of the recipe's low data.
        """
        recipe = self.provenance.get("recipe", {})
        files = recipe.get(part) or (recipe.get("high") if part == "low" else None) or {}
        units = {v.name: v.units for v in variables}
        result = []
        for archive in files if isinstance(files, list) else [files]:
            given = archive.get("variables") or {}
            names = [name for name in units if name in given] if isinstance(files, list) else list(units)
            result.append({name: Choice(**{**given.get(name, {}), "units": units[name]}) for name in names})
        return [choices for choices in result if choices]

    def low_options(self, number: int = 0) -> dict[str, Any]:
        """The recipe's other settings of the low archive with this number, as keywords of `open_archive`."""
        recipe = self.provenance.get("recipe", {})
        files = recipe.get("low") or recipe.get("high") or {}
        archive = files[number] if isinstance(files, list) else files
        return {key: archive[key] for key in ("offset_hours", "crs", "rotate_winds") if key in archive}

    def to_json(self) -> dict[str, Any]:
        """Everything except the values of the coordinates, for model.json."""
        grids = {
            group: {str(n): {"dims": list(c.dims), "attributes": plain(c.attrs)} for n, c in grid.coords.items()}
            for group, grid in self._coordinates.items()
        }
        keys = ("factor", "interval", "provenance")
        return {"grids": grids, **{key: getattr(self, key) for key in keys}}

    def arrays(self) -> dict[str, np.ndarray]:
        """The values of the coordinates, for a safetensors file beside model.json."""
        grids = self._coordinates
        return {f"{group}_{name}": np.array(c) for group, grid in grids.items() for name, c in grid.coords.items()}

    @property
    def _coordinates(self) -> dict[str, Any]:
        return {"high": self.high.to_dataset(), "low": self.low.to_dataset()}

    @classmethod
    def restore(cls, values: dict[str, Any], arrays: dict[str, np.ndarray]) -> Domain:
        """The domain that `to_json` and `arrays` described."""
        import xarray as xr

        grids = {}
        for group, described in values["grids"].items():
            coordinates = {n: (c["dims"], arrays[f"{group}_{n}"], c["attributes"]) for n, c in described.items()}
            grids[group] = Grid.from_dataset(xr.Dataset(coords=coordinates))
        rest = {"interval": tuple(values["interval"]), **{key: values[key] for key in ("factor", "provenance")}}
        return cls(high=grids["high"], low=grids["low"], **rest)


def _interval(store: Store) -> tuple[int, int]:
    """The interval that the archive gave; if the store has none, the time step before the valid time."""
    given = store.attributes["provenance"].get("intervals", {}).get("high", {})
    intervals = [interval for of_variable in given.values() for interval in of_variable]
    if intervals:
        return int(intervals[0][0] * 3600), int(intervals[0][1] * 3600)
    steps, counts = np.unique(np.diff(np.unique(store.time)), return_counts=True)
    return (-int(steps[counts.argmax()]), 0) if len(steps) else (0, 0)
