"""The store: the one layout in which paired low- and high-resolution fields lie on disk (a Zarr v3 group)."""

import re
import warnings
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dsr.data import calendar
from dsr.data.grid import Grid
from dsr.data.interpolate import Index
from dsr.data.manifest import Changed, Files
from dsr.errors import UserError

if TYPE_CHECKING:
    from dsr.data.fields import Fields

SPLITS = ("train", "validation", "test")  # the codes 0, 1, 2 of `split` and `region`; -1 lies in a gap


@dataclass(frozen=True)
class Variable:
    """One physical variable. `lower` and `upper` are physical bounds (None: unbounded), in `units`."""

    name: str
    units: str = "1"
    standard_name: str = ""
    long_name: str = ""
    cell_methods: str = ""
    lower: float | None = None
    upper: float | None = None

    def __post_init__(self) -> None:
        if self.name in ("", ".", "..") or re.search(r"[/\\\x00-\x1f]", self.name):
            raise UserError(
                f"a variable is named {self.name!r}: names become those of files, so / cannot be; rename it"
            )


@dataclass
class Layout:
    """All of a store but its fields.

    Times are int64 seconds since 1970-01-01 UTC of `calendar`, leads are int64 seconds.
    """

    high_variables: list[Variable]
    low_variables: list[Variable]
    high_grid: Grid
    low_grid: Grid
    time: np.ndarray  # (time) int64: valid time of each high field
    low_init_time: np.ndarray  # (sample) int64
    low_lead_time: np.ndarray  # (sample) int64
    high_index: np.ndarray  # (sample) int64: the row of `high` that is this sample's truth
    split: np.ndarray  # (sample) int8: index into SPLITS, -1 in a gap
    low_index: Index  # (y, x) float64 each: fractional low row and column of every high point
    factor: int
    pairing: str  # "coarsen", "same-run" or "valid-time"
    splits: dict[str, Any]  # how `split` and `region` were made, for people
    provenance: dict[str, Any]  # where it came from and how, problems met
    members: int | None = None
    region: np.ndarray | None = None  # (y, x) int8, where the split is by region: index into SPLITS, -1 in the gap
    init_time: np.ndarray | None = None  # (time) int64, where the high archive is itself forecasts
    lead_time: np.ndarray | None = None
    static: dict[str, np.ndarray] = field(default_factory=dict)  # name -> (y, x) float32 on the high grid
    static_variables: list[Variable] = field(default_factory=list)
    low_static: dict[str, np.ndarray] = field(default_factory=dict)  # the same names, on the low grid
    calendar: str = "proleptic_gregorian"

    @property
    def low_time(self) -> np.ndarray:
        """(sample) int64: the valid time of each low field."""
        return self.low_init_time + self.low_lead_time

    @property
    def high_shape(self) -> tuple[int, ...]:
        """(time, variable, y, x) of the high fields."""
        return (len(self.time), len(self.high_variables), *self.low_index[0].shape)

    @property
    def low_shape(self) -> tuple[int, ...]:
        """(sample, [member,] variable, y, x) of the low fields."""
        member = [self.members] if self.members else []
        return (len(self.high_index), *member, len(self.low_variables), *self.low_grid.shape)


class Store:
    """A store that exists, read-only. Cheap to open; the fields are read only when indexed.

    Every file is verified when it is read: UserError says which is not what was written, `Changed` that the store has
    grown or was replaced since it was opened. Raises UserError if `path` is not a whole store of this format.
    """

    def __init__(self, path: Path | str):
        import zarr

        from dsr.data.fields import VerifiedStore

        self.path = path if isinstance(path, str) and "://" in path else Path(path)
        for last in (False, False, True):
            try:
                self.files = Files(self.path)
                self.group: Any = zarr.open_group(VerifiedStore(self.files), mode="r", zarr_format=3)
                break
            except Changed:
                if last:
                    raise
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(f"{path}: cannot be opened as a store ({error})") from error
        about = {"provenance": self.files.provenance, "fingerprint": self.files.fingerprint}
        self.attributes: dict[str, Any] = {**self.group.attrs, **about}

    def _array(self, name: str) -> np.ndarray:
        try:
            return np.asarray(self.group[name][...])
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{self.path}: {name} cannot be read ({error})") from error

    def has(self, name: str) -> bool:
        """Whether the array `name` (such as "high/region") is there."""
        return name in self.group

    @cached_property
    def high_variables(self) -> list[Variable]:
        return _variables(self.group["high"])

    @cached_property
    def low_variables(self) -> list[Variable]:
        return _variables(self.group["low"])

    @cached_property
    def static_variables(self) -> list[Variable]:
        return _variables(self.group["static"])

    @cached_property
    def calendar(self) -> str:
        return self.group["high/time"].attrs["calendar"]

    @cached_property
    def high(self) -> "Fields":
        """(time, variable, y, x) float32: `store.high[rows]` reads."""
        from dsr.data.fields import Fields

        return Fields(self.files, "high/field", lambda row: calendar.label(self.time[row], self.calendar))

    @cached_property
    def low(self) -> "Fields":
        """(sample, [member,] variable, y, x) float32: `store.low[samples]` reads."""
        from dsr.data.fields import Fields

        return Fields(self.files, "low/field", lambda row: calendar.label(self.low_time[row], self.calendar))

    @cached_property
    def static(self) -> np.ndarray:
        """(variable, y, x) float32 on the high grid."""
        return self._array("static/field")

    @cached_property
    def time(self) -> np.ndarray:
        """(time) int64, seconds since 1970-01-01 of `calendar`: the valid time of each high field."""
        return self._array("high/time")

    @cached_property
    def low_init_time(self) -> np.ndarray:
        return self._array("low/init_time")

    @cached_property
    def low_lead_time(self) -> np.ndarray:
        return self._array("low/lead_time")

    @cached_property
    def low_time(self) -> np.ndarray:
        return self._array("low/time")

    @cached_property
    def high_index(self) -> np.ndarray:
        """(sample) int64: the row of `high` that is the truth of each low sample."""
        return self._array("low/high_index")

    @cached_property
    def region(self) -> np.ndarray | None:
        """(y, x) int8 where the split is by region: index into SPLITS, -1 in the gap; None otherwise."""
        return self._array("high/region") if self.has("high/region") else None

    @cached_property
    def counts(self) -> np.ndarray | None:
        """(time, variable) int64: how many values each training truth has in the training region, -1 for other truths.

        None in a store of before they were counted: see `dsr.data.counts`.
        """
        return self._array("high/count") if self.has("high/count") else None

    @cached_property
    def low_index(self) -> Index:
        """The fractional row and column on the low grid of every high point, (y, x) float64 each."""
        return Index(self._array("high/low_row"), self._array("high/low_column"), self.grid("low").period)

    @property
    def members(self) -> int | None:
        return self.low.shape[1] if len(self.low.shape) == 5 else None

    @property
    def shape(self) -> tuple[int, int]:
        """(y, x) of the high grid."""
        return self.high.shape[-2:]

    @property
    def low_shape(self) -> tuple[int, int]:
        """(y, x) of the low grid."""
        return self.low.shape[-2:]

    @property
    def fingerprint(self) -> str:
        return self.files.fingerprint

    @property
    def statistics(self) -> dict[str, dict[str, dict[str, float]]]:
        """{"low" | "high" | "residual" | "static": {variable: {"mean", "std", "minimum", "maximum"}}}, training only.

        "residual" is truth minus bicubic (of the ensemble mean), for the variables that stand in both. "low" also
        counts the "missing" values, in the samples of all splits.
        """
        return self.attributes["statistics"]

    def low_static(self, name: str) -> np.ndarray | None:
        """(y, x) a static field on the low grid, or None where there is none of that name."""
        return self._array(f"low/static_{name}") if self.has(f"low/static_{name}") else None

    def samples(self, split: str) -> np.ndarray:
        """(n) int64: the low samples of a split. Split by region, every sample stands in every split."""
        if self.region is not None:
            return np.arange(len(self.high_index))
        return np.flatnonzero(self._array("low/split") == SPLITS.index(split))

    def mask(self, split: str) -> np.ndarray:
        """(y, x) bool: the high points that belong to a split (all of them where the split is by time)."""
        if self.region is None:
            return np.ones(self.shape, bool)
        return self.region == SPLITS.index(split)

    def grid(self, group: str) -> Grid:
        """The grid of "high" or "low"."""
        import xarray as xr

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = xr.open_zarr(self.group.store, group=group, consolidated=False, chunks=None, decode_times=False)
        names = [name for name in ("y", "x", "latitude", "longitude", "crs") if name in dataset.variables]
        return Grid.from_dataset(dataset.reset_coords()[names].load())


def open(path: Path | str) -> Any:
    """Open a store as an xarray DataTree of ordinary CF variables.

    Nodes /high, /low and /static hold one DataArray for each variable, with its units and names as attributes.

    >>> import dsr
    >>> store = dsr.open_store("small.zarr")
    >>> dict(store["low"]["t2m"].sizes)
    {'sample': 18, 'member': 2, 'y': 6, 'x': 6}
    >>> dict(store["high"]["t2m"].sizes)
    {'time': 18, 'y': 24, 'x': 24}
    >>> store["high"]["t2m"].attrs["units"]
    'K'
    """
    import xarray as xr

    store = Store(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tree = xr.open_datatree(store.group.store, engine="zarr", chunks=None)
    nodes = {}
    for name in ("high", "low", "static"):
        dataset = tree[name].to_dataset()
        variables = _variables_of(dataset)
        fields = dataset["field"].drop_vars([key for key in ALONG if key in dataset.coords])
        apart = dataset.drop_vars(["field", "count", "variable", *ALONG], errors="ignore")
        for index, variable in enumerate(variables):
            array = fields.isel(variable=index).drop_vars("variable")
            keys = ("units", "standard_name", "long_name", "cell_methods")
            array.attrs = {key: getattr(variable, key) for key in keys if getattr(variable, key)}
            if "crs" in apart:
                array.attrs["grid_mapping"] = "crs"
            apart[variable.name] = array
        nodes[f"/{name}"] = apart
    result = xr.DataTree.from_dict(nodes)
    result.attrs = store.attributes
    return result


ALONG = ("units", "standard_name", "long_name", "cell_methods", "lower", "upper")  # coordinates along `variable`


def _variables(group: Any) -> list[Variable]:
    columns = {key: np.asarray(group[key][...]) for key in ("variable", *ALONG)}
    return _rows(columns)


def _variables_of(dataset: Any) -> list[Variable]:
    return _rows({key: dataset[key].values for key in ("variable", *ALONG)})


def _rows(columns: dict[str, np.ndarray]) -> list[Variable]:
    rows = []
    for index, name in enumerate(columns["variable"]):
        texts = {key: str(columns[key][index]) for key in ALONG[:4]}
        bounds = {key: None if np.isnan(columns[key][index]) else float(columns[key][index]) for key in ALONG[4:]}
        rows.append(Variable(name=str(name), **texts, **bounds))  # type: ignore[arg-type]
    return rows


BOUNDS = {  # in CF standard names; upper bounds are of the unit 1
    "precipitation": (0.0, None),
    "rainfall": (0.0, None),
    "snowfall": (0.0, None),
    "specific_humidity": (0.0, None),
    "mixing_ratio": (0.0, None),
    "wind_speed": (0.0, None),
    "relative_humidity": (0.0, 1.0),
    "area_fraction": (0.0, 1.0),
}


def with_bounds(variable: Variable) -> Variable:
    """The variable with the physical bounds that its CF standard name implies, where it has none of its own."""
    if variable.lower is not None or variable.upper is not None:
        return variable
    for word, (lower, upper) in BOUNDS.items():
        if word in variable.standard_name:
            percent = 100.0 if variable.units in ("%", "percent") else 1.0
            return replace(variable, lower=lower, upper=None if upper is None else upper * percent)
    return variable
