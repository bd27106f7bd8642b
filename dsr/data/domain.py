"""Where a network was trained: its two grids and how its input was made, kept beside its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dsr.data.grid import Grid
from dsr.data.projection import plain
from dsr.data.source import Choice

if TYPE_CHECKING:
    from dsr.data.store import Store, Variable


@dataclass
class Domain:
    """What prediction must know of the store that a network was trained on, beyond its features."""

    high: Grid
    low: Grid
    factor: int
    interval: int  # s between high fields: the period that a sum or a mean of the high data covers
    provenance: dict[str, Any]

    @classmethod
    def of(cls, store: Store) -> Domain:
        """The domain of a store."""
        steps, counts = np.unique(np.diff(np.unique(store.time)), return_counts=True)
        attributes: dict[str, Any] = store.attributes
        return cls(
            high=store.grid("high"),
            low=store.grid("low"),
            factor=attributes["factor"],
            interval=int(steps[counts.argmax()]) if len(steps) else 0,
            provenance=attributes["provenance"],
        )

    @property
    def coarsened(self) -> bool:
        """Whether the low fields were made by coarsening."""
        return self.provenance.get("recipe", {}).get("factor") is not None

    def choices(self, part: str, variables: list[Variable]) -> dict[str, Choice]:
        """How to take the "low" or "static" variables from an archive: as the recipe did, in the training's units."""
        recipe = self.provenance.get("recipe", {})
        files = recipe.get(part) or (recipe.get("high") if part == "low" else None) or {}
        told = files.get("variables") or {}
        return {v.name: Choice(**{**told.get(v.name, {}), "units": v.units}) for v in variables}

    def to_json(self) -> dict[str, Any]:
        """All but the coordinates' values, for model.json."""
        grids = {
            group: {str(n): {"dims": list(c.dims), "attributes": plain(c.attrs)} for n, c in grid.coords.items()}
            for group, grid in self._coordinates.items()
        }
        keys = ("factor", "interval", "provenance")
        return {"grids": grids, **{key: getattr(self, key) for key in keys}}

    def arrays(self) -> dict[str, np.ndarray]:
        """The coordinates' values, for a safetensors file beside model.json."""
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
        rest = {key: values[key] for key in ("factor", "interval", "provenance")}
        return cls(high=grids["high"], low=grids["low"], **rest)
