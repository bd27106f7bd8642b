"""The store: the one layout in which paired low- and high-resolution fields lie on disk (a Zarr v3 group)."""

import errno
import hashlib
import json
import re
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from dsr.data.calendar import EPOCH
from dsr.data.grid import Grid
from dsr.data.interpolate import Interpolation
from dsr.data.remote import cleaned
from dsr.errors import UserError
from dsr.files import beside

SPLITS = ("train", "validation", "test")  # the codes 0, 1, 2 of `split` and `region`; -1 lies in a gap
FORMAT = 1


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

    Times are int64 seconds since 1970-01-01 UTC, leads are int64 seconds.
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
    low_index: tuple[np.ndarray, np.ndarray]  # two (y, x) float64: fractional low row and column of each high point
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


class Writer:
    """Fills a store beside its place; use as a context manager, and nothing is left unless it ends well.

    `writer.high[i] = (variable, y, x)` and `writer.low[j] = ([member,] variable, y, x)`, float32, NaN where missing,
    in any order and once each. At the end the statistics and the fingerprint are computed and the store is renamed
    into place. Raises UserError if `path` exists.
    """

    def __init__(self, path: Path, layout: Layout):
        self.path, self.layout = Path(path), layout
        if self.path.exists():
            raise UserError(f"{path} exists already: give another output path, or remove it first")
        self.temporary = beside(self.path)

    def __enter__(self) -> "Writer":
        try:
            self.temporary.parent.mkdir(parents=True, exist_ok=True)
            self._write_skeleton()
        except OSError as error:
            shutil.rmtree(self.temporary, ignore_errors=True)
            if error.errno == errno.ENOSPC:
                raise
            raise UserError(f"{self.path}: cannot be written there ({error.strerror or error})") from error
        except BaseException:
            shutil.rmtree(self.temporary, ignore_errors=True)
            raise
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self._finish()
                self.temporary.rename(self.path)
        finally:
            shutil.rmtree(self.temporary, ignore_errors=True)

    def _write_skeleton(self) -> None:
        import xarray as xr
        import zarr

        layout = self.layout
        high_shape = tuple(layout.low_index[0].shape)
        low_shape = layout.low_grid.shape
        on_high = layout.high_grid.to_dataset()
        high = on_high.assign_coords(_along_variable(layout.high_variables))
        high = high.assign_coords(
            time=("time", layout.time, {"units": EPOCH, "calendar": layout.calendar, "standard_name": "time"}),
            low_row=(("y", "x"), layout.low_index[0], {"long_name": "fractional row of this point on the low grid"}),
            low_column=(("y", "x"), layout.low_index[1], {"long_name": "fractional column on the low grid"}),
        )
        if layout.init_time is not None:
            high = high.assign_coords(_reference(layout.init_time, layout.lead_time, "time", layout.calendar))
        if layout.region is not None:
            high = high.assign_coords(region=(("y", "x"), layout.region.astype(np.int8), _split_flags()))
        low = layout.low_grid.to_dataset().assign_coords(_along_variable(layout.low_variables))
        low = low.assign_coords(
            **_reference(layout.low_init_time, layout.low_lead_time, "sample", layout.calendar),
            time=("sample", layout.low_time, {"units": EPOCH, "calendar": layout.calendar, "standard_name": "time"}),
            high_index=("sample", layout.high_index.astype(np.int64), {"long_name": "row of the truth in high"}),
            split=("sample", layout.split.astype(np.int8), _split_flags()),
        )
        static = on_high.assign_coords(_along_variable(layout.static_variables))
        names = [variable.name for variable in layout.static_variables]
        static["field"] = (("variable", "y", "x"), _stack(layout.static, names, high_shape))
        if layout.low_static:
            low = low.assign({f"static_{name}": (("y", "x"), layout.low_static[name]) for name in layout.low_static})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # consolidated metadata and strings: not yet in the Zarr v3 text
            groups = {"/high": high, "/low": low, "/static": static}
            tree = xr.DataTree.from_dict({name: _no_inherited_encoding(ds) for name, ds in groups.items()})
            tree.to_zarr(self.temporary, zarr_format=3, consolidated=False)
            group = zarr.open_group(self.temporary, mode="r+", zarr_format=3)
        variables = len(layout.high_variables)
        self.high = _create_field(
            group, "high", (len(layout.time), variables, *high_shape), ("time", "variable", "y", "x"), high
        )
        member = () if layout.members is None else (layout.members,)
        self.low = _create_field(
            group,
            "low",
            (len(layout.high_index), *member, len(layout.low_variables), *low_shape),
            ("sample", *(("member",) if member else ()), "variable", "y", "x"),
            low,
        )
        self.group = group

    def _finish(self) -> None:
        import zarr

        layout = self.layout
        self.group.attrs.update(
            dsr_store=FORMAT,
            factor=layout.factor,
            pairing=layout.pairing,
            splits=layout.splits,
            provenance=cleaned(layout.provenance),
        )
        statistics, fingerprint = _statistics(Store(self.temporary))
        self.group.attrs.update(statistics=statistics, fingerprint=fingerprint)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            zarr.consolidate_metadata(self.temporary, zarr_format=3)


class Store:
    """A store that exists, read-only. Cheap to open; the fields are read only when indexed.

    Raises UserError if `path` is not a whole store of this format.
    """

    def __init__(self, path: Path | str):
        import zarr

        refuse_pickle()
        self.path = path if isinstance(path, str) and "://" in path else Path(path)
        try:
            self.group: Any = zarr.open_group(str(path), mode="r", zarr_format=3)
        except FileNotFoundError as error:
            raise UserError(
                f"{path}: no store there (make one with `dsr data prepare` or `dsr data simulate`)"
            ) from error
        except Exception as error:
            raise UserError(f"{path}: cannot be opened as a store ({error})") from error
        self.attributes: dict[str, Any] = dict(self.group.attrs)
        if self.attributes.get("dsr_store") != FORMAT:
            raise UserError(f"{path}: not a dsr store of format {FORMAT} (make one with `dsr data prepare`)")

    def _array(self, name: str) -> np.ndarray:
        return np.asarray(self.group[name][...])

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
    def high(self) -> Any:
        """(time, variable, y, x) float32, a tensorstore: `store.high[rows].read().result()`."""
        return _tensorstore(self.path, "high/field")

    @cached_property
    def low(self) -> Any:
        """(sample, [member,] variable, y, x) float32, a tensorstore."""
        return _tensorstore(self.path, "low/field")

    @cached_property
    def static(self) -> np.ndarray:
        """(variable, y, x) float32 on the high grid."""
        return self._array("static/field")

    @cached_property
    def time(self) -> np.ndarray:
        """(time) int64, seconds since 1970-01-01 UTC: the valid time of each high field."""
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
    def low_index(self) -> tuple[np.ndarray, np.ndarray]:
        """Two (y, x) float64: the fractional row and column on the low grid of every high point."""
        return self._array("high/low_row"), self._array("high/low_column")

    @property
    def members(self) -> int | None:
        return self.group["low/field"].shape[1] if self.group["low/field"].ndim == 5 else None

    @property
    def shape(self) -> tuple[int, int]:
        """(y, x) of the high grid."""
        return self.group["high/field"].shape[-2:]

    @property
    def low_shape(self) -> tuple[int, int]:
        """(y, x) of the low grid."""
        return self.group["low/field"].shape[-2:]

    @property
    def fingerprint(self) -> str:
        return self.attributes["fingerprint"]

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
            dataset = xr.open_zarr(str(self.path), group=group, consolidated=False, chunks=None, decode_times=False)
        names = [name for name in ("y", "x", "latitude", "longitude", "crs") if name in dataset.variables]
        return Grid.from_dataset(dataset.reset_coords()[names].load())


def refuse_pickle() -> None:
    """Have no Zarr array decoded by pickle, whatever its metadata ask for: that would execute what a file says."""
    from numcodecs.registry import codec_registry

    codec_registry.pop("pickle", None)


def open(path: Path | str) -> Any:
    """Open a store as an xarray DataTree of ordinary CF variables.

    Nodes /high, /low and /static hold one DataArray for each variable, with its units and names as attributes.
    """
    import xarray as xr

    Store(path)  # refuses what is not a store
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tree = xr.open_datatree(str(path), engine="zarr", chunks=None)
    nodes = {}
    for name in ("high", "low", "static"):
        dataset = tree[name].to_dataset()
        variables = _variables_of(dataset)
        fields = dataset["field"].drop_vars([key for key in _ALONG if key in dataset.coords])
        apart = dataset.drop_vars(["field", "variable", *[key for key in _ALONG if key in dataset.coords]])
        for index, variable in enumerate(variables):
            array = fields.isel(variable=index).drop_vars("variable")
            keys = ("units", "standard_name", "long_name", "cell_methods")
            array.attrs = {key: getattr(variable, key) for key in keys if getattr(variable, key)}
            if "crs" in apart:
                array.attrs["grid_mapping"] = "crs"
            apart[variable.name] = array
        nodes[f"/{name}"] = apart
    result = xr.DataTree.from_dict(nodes)
    result.attrs = tree.attrs
    return result


_ALONG = ("units", "standard_name", "long_name", "cell_methods", "lower", "upper")  # coordinates along `variable`


def _along_variable(variables: list[Variable]) -> dict[str, Any]:
    coordinates: dict[str, Any] = {"variable": ("variable", np.array([v.name for v in variables], dtype=object))}
    for key in _ALONG[:4]:
        coordinates[key] = ("variable", np.array([getattr(v, key) for v in variables], dtype=object))
    for key in _ALONG[4:]:
        values = [np.nan if getattr(v, key) is None else getattr(v, key) for v in variables]
        coordinates[key] = ("variable", np.array(values, dtype=np.float64))
    return coordinates


def _variables(group: Any) -> list[Variable]:
    columns = {key: np.asarray(group[key][...]) for key in ("variable", *_ALONG)}
    return _rows(columns)


def _variables_of(dataset: Any) -> list[Variable]:
    return _rows({key: dataset[key].values for key in ("variable", *_ALONG)})


def _rows(columns: dict[str, np.ndarray]) -> list[Variable]:
    rows = []
    for index, name in enumerate(columns["variable"]):
        texts = {key: str(columns[key][index]) for key in _ALONG[:4]}
        bounds = {key: None if np.isnan(columns[key][index]) else float(columns[key][index]) for key in _ALONG[4:]}
        rows.append(Variable(name=str(name), **texts, **bounds))  # type: ignore[arg-type]
    return rows


def _reference(init: Any, lead: Any, dimension: str, calendar: str) -> dict[str, Any]:
    reference = {"units": EPOCH, "calendar": calendar, "standard_name": "forecast_reference_time"}
    return {
        "init_time": (dimension, np.asarray(init, np.int64), reference),
        "lead_time": (dimension, np.asarray(lead, np.int64), {"units": "s", "standard_name": "forecast_period"}),
    }


def _split_flags() -> dict[str, Any]:
    return {"flag_values": [-1, 0, 1, 2], "flag_meanings": "gap train validation test"}


def _stack(fields: dict[str, np.ndarray], names: list[str], shape: tuple[int, ...]) -> np.ndarray:
    return np.stack([fields[name] for name in names]).astype(np.float32) if names else np.zeros((0, *shape), np.float32)


def _no_inherited_encoding(dataset: Any) -> Any:
    """A copy that carries no file's encoding: chunk sizes and fill values of the source are not ours."""
    dataset = dataset.copy()
    for variable in dataset.variables.values():
        variable.encoding = {}
    return dataset


def _create_field(group: Any, name: str, shape: tuple[int, ...], dimensions: tuple[str, ...], coords: Any) -> Any:
    from zarr.codecs import BloscCodec

    named = [key for key in coords.coords if key not in dimensions]
    return group[name].create_array(
        "field",
        shape=shape,
        chunks=(1, *shape[1:]),
        dtype="float32",
        fill_value=float("nan"),
        dimension_names=dimensions,
        compressors=BloscCodec(cname="zstd", clevel=3, shuffle="shuffle"),
        attributes={"coordinates": " ".join(map(str, named))},
    )


def _tensorstore(path: Path | str, name: str) -> Any:
    import tensorstore as ts

    local = {"driver": "file", "path": f"{Path(path).resolve()}/{name}/"}  # not a URL: a name may hold # or %
    kvstore = f"{path}/{name}/" if isinstance(path, str) else local
    return ts.open({"driver": "zarr3", "kvstore": kvstore}, read=True).result()


def _batches(array: Any, rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """At most 64 rows and about 64 MiB at a time."""
    size = int(np.clip(2**24 // np.prod(array.shape[1:]), 1, 64))
    for start in range(0, len(rows), size):
        chosen = rows[start : start + size]
        yield chosen, array[chosen].read().result()


@dataclass
class _Moments:
    """Count, mean, sum of squares and extremes for each variable, of values streamed in float64, NaN left out."""

    count: np.ndarray
    mean: np.ndarray
    square: np.ndarray
    minimum: np.ndarray
    maximum: np.ndarray

    @classmethod
    def of(cls, variables: int) -> "_Moments":
        zero = np.zeros(variables)
        return cls(zero, zero.copy(), zero.copy(), np.full(variables, np.inf), np.full(variables, -np.inf))

    def add(self, values: np.ndarray) -> None:
        """Take in (n, variable, point) by Chan's pairwise update."""
        values = np.moveaxis(values, 1, 0).reshape(len(self.count), -1).astype(np.float64)
        good = np.isfinite(values)
        count = good.sum(1)
        safe = np.maximum(count, 1)
        mean = np.where(good, values, 0).sum(1) / safe
        square = np.where(good, (values - mean[:, None]) ** 2, 0).sum(1)
        total = np.maximum(self.count + count, 1)
        delta = mean - self.mean
        self.square += square + np.where(count > 0, delta**2 * self.count * count / total, 0)
        self.mean = np.where(count > 0, self.mean + delta * count / total, self.mean)
        self.count = self.count + count
        self.minimum = np.minimum(self.minimum, np.where(good, values, np.inf).min(1, initial=np.inf))
        self.maximum = np.maximum(self.maximum, np.where(good, values, -np.inf).max(1, initial=-np.inf))

    def named(self, names: list[str]) -> dict[str, dict[str, float]]:
        result = {}
        for i, name in enumerate(names):
            if not self.count[i]:
                raise UserError(f"{name}: every value of the training split is missing")
            std = float(np.sqrt(self.square[i] / self.count[i]))
            result[name] = {
                "mean": float(self.mean[i]),
                "std": std,
                "minimum": float(self.minimum[i]),
                "maximum": float(self.maximum[i]),
            }
        return result


def _statistics(store: Store) -> tuple[dict[str, Any], str]:
    """Statistics of the training split, and the sha256 over everything that training can see."""
    train = store.samples("train")
    if not len(train):
        raise UserError("the training split is empty: give fewer or longer splits, or a shorter gap")
    inside = store.mask("train")
    names = {"high": [v.name for v in store.high_variables], "low": [v.name for v in store.low_variables]}
    shared = [name for name in names["high"] if name in names["low"]]
    of_high, of_low = [names["high"].index(n) for n in shared], [names["low"].index(n) for n in shared]
    bicubic = Interpolation(store.low_index, store.low_shape, "bicubic")
    high, low, residual = _Moments.of(len(names["high"])), _Moments.of(len(names["low"])), _Moments.of(len(shared))
    in_train, used = np.zeros(len(store.high_index), bool), np.zeros(len(store.high_index), bool)
    in_train[train] = True
    used[np.concatenate([store.samples(split) for split in SPLITS])] = True
    missing = np.zeros(len(names["low"]), int)
    digest = hashlib.sha256()
    for rows, fields in _batches(store.low, np.arange(len(store.high_index))):
        digest.update(np.ascontiguousarray(fields).tobytes())
        missing += (~np.isfinite(np.moveaxis(fields[used[rows]], -3, -1))).reshape(-1, len(missing)).sum(0)
        chosen = in_train[rows]
        if not chosen.any():
            continue
        kept = fields[chosen]
        pooled = kept if store.members is None else kept.reshape(-1, *kept.shape[2:])
        low.add(pooled.reshape(*pooled.shape[:2], -1))
        mean = kept if store.members is None else kept.mean(1)
        truth = store.high[store.high_index[rows[chosen]]].read().result()
        high.add(truth[:, :, inside])
        if shared:
            residual.add((truth[:, of_high] - bicubic(mean[:, of_low]))[:, :, inside])
    for _, fields in _batches(store.high, np.arange(len(store.time))):
        digest.update(np.ascontiguousarray(fields).tobytes())
    static = _Moments.of(len(store.static_variables))
    if len(store.static_variables):
        static.add(store.static[None].reshape(1, len(store.static_variables), -1))
    for name in ("static/field", "high/time", "high/low_row", "high/low_column", "low/init_time", "low/lead_time"):
        digest.update(store._array(name).tobytes())
    for name in ("low/high_index", "low/split", "high/region", "high/y", "high/x", "high/latitude", "high/longitude"):
        digest.update(store._array(name).tobytes() if store.has(name) else b"none")
    described = [[asdict(v) for v in vs] for vs in (store.high_variables, store.low_variables, store.static_variables)]
    digest.update(json.dumps([described, store.attributes["factor"], store.attributes["pairing"]]).encode())
    statistics = {
        "low": low.named(names["low"]),
        "high": high.named(names["high"]),
        "residual": residual.named(shared),
        "static": static.named([v.name for v in store.static_variables]),
    }
    for name, count in zip(names["low"], missing, strict=True):
        statistics["low"][name]["missing"] = int(count)
    return statistics, digest.hexdigest()


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
