"""Where a network was trained: its two grids and how its input was made, kept beside its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from dsr.data.store import Store


@dataclass
class Domain:
    """What prediction must know of the store that a network was trained on, beyond its features.

    The grids are xarray Datasets of coordinates, as `dsr.data.store.Layout` describes them.
    """

    high: Any  # xr.Dataset
    low: Any  # xr.Dataset
    factor: int
    pairing: str
    interval: int  # s between high fields: the period that a sum or a mean of the high data covers
    provenance: dict[str, Any]

    @classmethod
    def of(cls, store: Store) -> Domain:
        """The domain of a store."""
        steps, counts = np.unique(np.diff(np.unique(store.time)), return_counts=True)
        return cls(
            high=store.grid("high"),
            low=store.grid("low"),
            factor=store.attributes["factor"],
            pairing=store.attributes["pairing"],
            interval=int(steps[counts.argmax()]) if len(steps) else 0,
            provenance=store.attributes["provenance"],
        )

    def to_json(self) -> dict[str, Any]:
        """All but the coordinates' values, for model.json."""
        grids = {
            group: {str(name): {"dims": list(c.dims), "attributes": _plain(c.attrs)} for name, c in grid.coords.items()}
            for group, grid in (("high", self.high), ("low", self.low))
        }
        keys = ("factor", "pairing", "interval", "provenance")
        return {"grids": grids, **{key: getattr(self, key) for key in keys}}

    def arrays(self) -> dict[str, np.ndarray]:
        """The coordinates' values, for a safetensors file beside model.json."""
        grids = {"high": self.high, "low": self.low}
        return {f"{group}_{name}": np.array(c) for group, grid in grids.items() for name, c in grid.coords.items()}

    @classmethod
    def restore(cls, values: dict[str, Any], arrays: dict[str, np.ndarray]) -> Domain:
        """The domain that `to_json` and `arrays` described."""
        import xarray as xr

        grids = {
            group: xr.Dataset(
                coords={
                    name: (c["dims"], arrays[f"{group}_{name}"], c["attributes"]) for name, c in coordinates.items()
                }
            )
            for group, coordinates in values["grids"].items()
        }
        keys = ("factor", "pairing", "interval", "provenance")
        return cls(**grids, **{key: values[key] for key in keys})


def _plain(attributes: dict[str, Any]) -> dict[str, Any]:
    """Attributes as JSON has them."""
    return {key: value.tolist() if hasattr(value, "tolist") else value for key, value in attributes.items()}
