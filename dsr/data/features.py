"""What the network sees, as a description: which fields, how they are normalised, and where they lie."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from dsr.data.calendar import year_angle
from dsr.data.interpolate import Index
from dsr.data.store import Variable
from dsr.data.sun import solar_scalars
from dsr.errors import UserError

if TYPE_CHECKING:
    from dsr.config import Data
    from dsr.data.store import Store

SETTINGS = ("extras", "members", "ensemble", "fill", "statistics", "calendar", "periodic")  # as model.json has them
SCALARS = {"solar_zenith": 3, "day_of_year": 2, "lead_time": 1}  # numbers of a time that an extra takes


@dataclass
class Features:
    """How physical fields become a network's inputs, and its output a physical field; `dsr.models.downscaler` does it.

    The prediction is base + scale x network(inputs): base is bicubic interpolation of the (ensemble mean) low field,
    or the training mean where the low data lack the variable; scale is the training standard deviation of the
    residual. So an untrained network is bicubic interpolation (DeepDownscale, arXiv:1808.05264, learns likewise on
    the interpolated field).
    """

    low: list[Variable]
    high: list[Variable]
    static: list[Variable]
    extras: list[str]
    members: str  # how an ensemble enters: "mean_spread", "mean" or "control"
    ensemble: bool  # whether the low fields have a member dimension
    fill: bool
    statistics: dict[str, Any]
    low_shape: tuple[int, int]
    low_index: Index
    periodic: bool  # whether the high columns go round
    static_fields: np.ndarray  # (static, Y, X) float32, physical units
    latitude: np.ndarray | None  # (Y, X) float64 degrees, for the solar zenith angle
    longitude: np.ndarray | None
    calendar: str  # of the times that `scalars` gets

    @classmethod
    def of(cls, store: Store, data: Data) -> Features:
        """The features that the `data` section chooses from a store.

        Raises UserError for a name that it lacks, and for low values that are missing and not to be filled.
        """
        low = _choose(store.low_variables, data.low, "low", store)
        high = _choose(store.high_variables, data.high, "high", store)
        static = _choose(store.static_variables, data.static, "static", store)
        sun = "solar_zenith" in data.extras
        grid = store.grid("high")
        if sun and grid.bare:
            raise UserError(f"{store.path}: dsr.data.extras: solar_zenith needs latitude and longitude in the store")
        missing = {v.name: store.statistics["low"][v.name].get("missing") for v in low}
        if any(missing.values()) and not data.fill:
            named = ", ".join(f"{name} {count}" for name, count in missing.items() if count)
            raise UserError(
                f"{store.path}: low-resolution values are missing ({named}); choose other times or variables, or "
                "replace them by the training mean with --set dsr.data.fill=true"
            )
        rows = [[v.name for v in store.static_variables].index(v.name) for v in static]
        return cls(
            low=low,
            high=high,
            static=static,
            extras=list(data.extras),
            members=data.members,
            ensemble=store.members is not None,
            fill=data.fill,
            statistics=store.statistics,
            low_shape=tuple(store.low_shape),  # type: ignore[arg-type]
            low_index=store.low_index,
            periodic=grid.periodic,
            static_fields=store.static[rows],
            latitude=grid.latitude if sun else None,
            longitude=grid.longitude if sun else None,
            calendar=store.calendar,
        )

    @property
    def shape(self) -> tuple[int, int]:
        """(Y, X) of the high grid."""
        return self.low_index[0].shape  # type: ignore[return-value]

    @property
    def spread(self) -> bool:
        return self.ensemble and self.members == "mean_spread"

    @property
    def seasonal(self) -> bool:
        """Whether a channel depends on the date."""
        return bool({"day_of_year", "solar_zenith"} & set(self.extras))

    @property
    def channels(self) -> list[str]:
        """The names of the input channels, in order."""
        names = [v.name for v in self.low] + ([f"{v.name}_spread" for v in self.low] if self.spread else [])
        names += [v.name for v in self.static]
        for extra in self.extras:
            names += ["day_of_year_sin", "day_of_year_cos"] if extra == "day_of_year" else [extra]
        return names

    @property
    def static_channels(self) -> range:
        """Which of the channels are the static fields."""
        first = len(self.low) * (2 if self.spread else 1)
        return range(first, first + len(self.static))

    @cached_property
    def scale(self) -> np.ndarray:
        """(variable) float32, physical units: what one unit of the network's output is worth."""
        seen = {v.name for v in self.low}  # the base of any other target is its mean
        stds = [self.statistics["residual" if v.name in seen else "high"][v.name]["std"] for v in self.high]
        return np.array([std or 1.0 for std in stds], np.float32)

    def combine(self, low: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """(n, [member,] variable, y, x) -> the centre (n, variable, y, x) and, where it is used, the spread."""
        if not self.ensemble:
            return low, None
        if self.members == "control":
            return low[:, 0], None
        return low.mean(1), low.std(1, ddof=1) if self.spread else None

    def arguments(self, low: np.ndarray, init_time: np.ndarray, lead_time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What a Downscaler takes of n samples: their low fields without gaps, and their scalars, float32.

        low: (n, [member,] variable, y, x) float32, physical units, in the order of `self.low`; times (n) int64 s.
        Raises UserError where low values are missing and `fill` is off.
        """
        scalars = self.scalars(init_time, lead_time).astype(np.float32)
        return np.require(self._complete(low), np.float32, ("C", "W")), scalars  # as torch takes them

    def scalars(self, init_time: np.ndarray, lead_time: np.ndarray) -> np.ndarray:
        """(n, scalar) float64: what the extras take of the times, (n) int64 seconds; of the sun `solar_scalars`."""
        time = init_time + lead_time
        columns = [np.empty((len(time), 0))]
        for name in self.extras:
            if name == "solar_zenith":
                columns.append(solar_scalars(time, self.calendar))
            elif name == "day_of_year":
                angle = year_angle(time, self.calendar)
                columns.append(np.stack([np.sin(angle), np.cos(angle)], 1))
            else:
                columns.append(lead_time[:, None] / 86400.0)
        return np.concatenate(columns, 1)

    def clip(self, fields: np.ndarray) -> np.ndarray:
        """Clip (n, variable, Y, X) at each variable's physical bounds."""
        for i, variable in enumerate(self.high):
            if variable.lower is not None or variable.upper is not None:
                fields[:, i] = np.clip(fields[:, i], variable.lower, variable.upper)
        return fields

    def _complete(self, low: np.ndarray) -> np.ndarray:
        missing = ~np.isfinite(low)
        if not missing.any():
            return low
        axis = low.ndim - 3
        if not self.fill:
            counts = missing.sum(tuple(a for a in range(low.ndim) if a != axis))
            named = ", ".join(f"{v.name} {c}" for v, c in zip(self.low, counts, strict=True) if c)
            raise UserError(
                f"low-resolution values are missing ({named} of {low.size // low.shape[axis]} each); "
                "choose other times, or replace them by the training mean with --fill"
            )
        means = self.statistic("low", self.low, "mean")[:, None, None]
        return np.where(missing, means, low)

    def statistic(self, group: str, variables: list[Variable], key: str) -> np.ndarray:
        """(variable) float32: a statistic of these variables; 1 for a standard deviation of 0."""
        values = [self.statistics[group][v.name][key] for v in variables]
        return np.array([v or 1.0 for v in values] if key == "std" else values, np.float32)

    def to_json(self) -> dict[str, Any]:
        """All but the arrays, for model.json."""
        keys = (*SETTINGS, "low_shape")
        groups = {key: [asdict(v) for v in getattr(self, key)] for key in ("low", "high", "static")}
        return {**groups, **{key: getattr(self, key) for key in keys}, "low_period": self.low_index.period}

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays, for a safetensors file beside model.json."""
        arrays = {"low_row": self.low_index[0], "low_column": self.low_index[1], "static": self.static_fields}
        if self.latitude is not None and self.longitude is not None:
            arrays.update(latitude=self.latitude, longitude=self.longitude)
        return {name: np.ascontiguousarray(array) for name, array in arrays.items()}

    @classmethod
    def restore(cls, values: dict[str, Any], arrays: dict[str, np.ndarray]) -> Features:
        """The features that `to_json` and `arrays` described."""
        groups: dict[str, Any] = {key: [Variable(**v) for v in values[key]] for key in ("low", "high", "static")}
        rest: dict[str, Any] = {key: values[key] for key in SETTINGS}
        return cls(
            **groups,
            **rest,
            low_shape=tuple(values["low_shape"]),
            low_index=Index(arrays["low_row"], arrays["low_column"], values["low_period"]),
            static_fields=arrays["static"],
            latitude=arrays.get("latitude"),
            longitude=arrays.get("longitude"),
        )


def _choose(available: list[Variable], names: list[str] | None, group: str, store: Store) -> list[Variable]:
    if names is None:
        return available
    by_name = {v.name: v for v in available}
    for name in names:
        if name not in by_name:
            have = ", ".join(by_name) or "none"
            raise UserError(f"{store.path}: dsr.data.{group}: no variable {name} there; the store has {have}")
    return [by_name[name] for name in names]
