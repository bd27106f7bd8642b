"""From an undecoded xarray dataset to series: each variable's kind, grid, times, level and members."""

import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from dsr.data import names
from dsr.data.decoding import place
from dsr.data.decoding.frames import Frames
from dsr.data.decoding.roles import role
from dsr.data.decoding.statistic import statistic
from dsr.data.decoding.valid import valid_range
from dsr.data.registration import corner_note
from dsr.data.series import Series, Span
from dsr.errors import UserError, first_line

BLOCK = 64 * 2**20  # bytes: chunks with many frames are read whole up to this size
OPTIONS: dict[str, Any] = {"decode_times": False, "decode_timedelta": False, "decode_coords": "all", "cache": False}
GRID_WINDS = ("x_wind", "y_wind")


@dataclass(frozen=True)
class Opened:
    """How a dataset is opened, in any process: `function(path, *arguments)`; `stamp` identifies its version."""

    function: Callable[..., Any]
    path: str
    arguments: tuple[Any, ...] = ()
    stamp: tuple[int, ...] = ()

    @classmethod
    def now(cls, function: Callable[..., Any], path: str, *arguments: Any) -> "Opened":
        """With the current stamp, so that a file that is rewritten is opened again."""
        local = [Path(path), *(Path(path, name) for name in ("zarr.json", ".zmetadata", ".zgroup"))]
        stats = [p.stat() for p in local if "://" not in path and p.exists()]
        return cls(function, path, arguments, tuple(n for s in stats for n in (s.st_mtime_ns, s.st_size)))

    def dataset(self) -> Any:
        return _dataset(self)


@dataclass(frozen=True, eq=False)
class InMemory:
    """A dataset in memory, used like one that is `Opened`."""

    data: Any
    path: str  # its name in messages

    @classmethod
    def of(cls, dataset: Any, name: str) -> "InMemory":
        """The dataset as it would have been opened with OPTIONS; its values, lazy or not, stay as they are."""
        import xarray as xr

        dates = {n: xr.conventions.encode_cf_variable(v) for n, v in dataset.variables.items() if v.dtype.kind == "O"}
        undecoded = dataset.assign({name: variable for name, variable in dates.items() if variable.dtype.kind in "iuf"})
        options = {key: value for key, value in OPTIONS.items() if key != "cache"}
        return cls(xr.decode_cf(undecoded, mask_and_scale=False, **options), name)

    def dataset(self) -> Any:
        return self.data


@lru_cache(maxsize=64)
def _dataset(opened: Opened) -> Any:
    return opened.function(opened.path, *opened.arguments)


@dataclass(frozen=True)
class Reader:
    """Reads fields of one variable: `reader(index along dims) -> ([member,] y, x)`."""

    opened: Opened | InMemory
    name: str
    dims: tuple[str, ...]  # of frames
    member: str | None  # the dimension of members
    yx: tuple[str, str]
    at: tuple[tuple[str, int], ...]  # indices along other dimensions

    def __call__(self, index: tuple[int, ...]) -> np.ndarray:
        """Raises OSError, which names the file, if reading fails."""
        array = self.opened.dataset()[self.name]
        chunks = array.encoding.get("preferred_chunks") or {}
        sizes = [min(chunks.get(dim, 1), array.sizes[dim]) for dim in self.dims]
        field = [*self.yx, *([self.member] if self.member else [])]
        if np.prod(sizes, initial=8) * np.prod([array.sizes[dim] for dim in field]) > BLOCK:
            sizes = [1] * len(sizes)
        start = tuple(i // size * size for i, size in zip(index, sizes, strict=True))
        cut = {d: slice(s, s + size) for d, s, size in zip(self.dims, start, sizes, strict=True)}
        if max(sizes, default=1) == 1:
            return self._read(array, cut)[(0,) * len(sizes)]
        if (self, start) not in _BLOCKS:
            _keep((self, start), self._read(array, cut))
        _BLOCKS.move_to_end((self, start))
        return _BLOCKS[self, start][tuple(i - s for i, s in zip(index, start, strict=True))]

    def _read(self, array: Any, cut: dict[str, slice]) -> np.ndarray:
        order = (*self.dims, *([self.member] if self.member else []), *self.yx)
        try:
            return array.isel({**dict(self.at), **cut}).transpose(*order).values
        except Exception as error:
            raise OSError(
                f"{self.opened.path}: {self.name} cannot be read ({first_line(error)}): is the file whole?"
            ) from error


Chunk = tuple[Reader, tuple[int, ...]]
_BLOCKS: OrderedDict[Chunk, np.ndarray] = OrderedDict()  # recently read blocks, the latest last


def _keep(chunk: Chunk, block: np.ndarray) -> None:
    """Keep a block; the oldest ones are dropped when all are too large."""
    _BLOCKS[chunk] = block
    while len(_BLOCKS) > 1 and sum(kept.nbytes for kept in _BLOCKS.values()) > 2 * BLOCK:
        _BLOCKS.popitem(last=False)


def series_of(opened: Opened | InMemory, file: str, *, crs: Any = None) -> list[Series]:
    """The series of a dataset that was opened with OPTIONS: one per level of each variable with rows and columns.

    `file` is its name in messages; `crs` is the projection that a recipe gives. Raises UserError, naming the file and
    the variable, if a position or a time cannot be determined.
    """
    dataset = opened.dataset()
    roles = {str(name): role(str(name), variable) for name, variable in dataset.variables.items()}
    roles |= {str(c.dims[0]): "member" for name, c in dataset.coords.items() if roles[str(name)] == "member" and c.dims}
    roles |= {str(dim): role(str(dim), dataset[dim]) for dim in dataset.dims if str(dim) not in roles}
    result: list[Series] = []
    frames = None
    for name, array in dataset.data_vars.items():
        if roles[str(name)] is not None or array.dtype.kind not in "fiu":
            continue
        try:
            place.refuse_unstructured(array, file)
            dims = {roles[str(dim)]: str(dim) for dim in array.dims if roles[str(dim)]}
            if not {"y", "x"} <= dims.keys():
                continue
            frames = frames or Frames(dataset, roles)
            corners = _corner_notes(dataset, dims["y"], dims["x"])
            series = _series(opened, file, array, dims, roles, frames, crs)
            result += [replace(s, notes=(*s.notes, *corners)) for s in series]
        except UserError as error:
            raise UserError(f"{file}: {name}: {error}") from None
    return result


def _corner_notes(dataset: Any, *dims: str) -> list[str]:
    """Notes on rows and columns whose bounds show that points are not the centres of cells, as CF assumes."""
    notes = []
    for dim in dims:
        coordinate = dataset.coords.get(dim)
        if coordinate is None:
            continue
        named = coordinate.attrs.get("bounds", coordinate.encoding.get("bounds"))
        bounds = dataset.variables.get(named)
        if bounds is not None and bounds.shape == (*coordinate.shape, 2):
            notes.append(corner_note(dim, coordinate.values, bounds.values))
    return list(filter(None, notes))


def _series(
    opened: Opened | InMemory,
    file: str,
    array: Any,
    dims: dict[Any, str],
    roles: dict[str, str | None],
    frames: Frames,
    crs: Any,
) -> Iterator[Series]:
    grid, note = place.grid(array, dims["y"], dims["x"], crs)
    kind = statistic(array.attrs)
    standard_name = names.standard_name(
        _text(array.attrs, "standard_name"), str(array.name), _text(array.attrs, "units")
    )
    if not kind and frames.bounds is not None:
        # CF's default for an extensive quantity, and the only possibility for a rate over an interval.
        kinds = {"_amount": "sum", "_rate": "mean", "_flux": "mean"}
        kind = next((value for end, value in kinds.items() if standard_name.endswith(end)), "")
    frame_dims = tuple(str(d) for d in frames.init.dims if d in array.dims)
    keys, *repeats = _unique_spans(frames.spans(frame_dims, kind))
    others = [str(d) for d in array.dims if d not in (*frame_dims, *(dims.get(k) for k in ("y", "x", "member")))]
    member_dim = dims.get("member")
    members = _members(array, member_dim, roles)
    notes = [note] if note else []
    if standard_name in GRID_WINDS and grid.mapping is not None:
        notes.append(names.ALONG_GRID)
    if array.encoding.get("_FillValue") == 0:
        notes.append("has 0 as its fill value: every 0 is treated as missing")
    for combination in itertools.product(*(range(array.sizes[other]) for other in others)):
        at = tuple(zip(others, combination, strict=True))
        part = array.isel(dict(at))
        template = Series(
            name=str(array.name),
            file=file,
            attributes={
                key: _text(array.attrs, key)
                for key in ("units", "standard_name", "long_name", "cell_methods", "GRIB_cfVarName")
            },
            statistic=kind,
            grid=grid,
            calendar=frames.calendar,
            keys=keys,
            reader=Reader(opened, str(array.name), frame_dims, member_dim, (dims["y"], dims["x"]), at),
            members=members,
            level=_level(part, roles, at),
            labels=_labels(part, roles),
            precision=abs(float(array.encoding.get("scale_factor", 0.0))) / 2,
            valid=valid_range(array),
            notes=tuple(notes),
            timeless=frames.timeless or (not frame_dims and bool(frames.init.dims)),
        )
        for times in (keys, *repeats):
            yield from _by_version(replace(template, keys=times), array, frame_dims)


def _unique_spans(spans: Iterator[tuple[Span, tuple[int, ...]]]) -> list[dict[Span, tuple[int, ...]]]:
    """{span: index}, each span in the first dictionary without it: there are several only if a file repeats a time."""
    parts: list[dict[Span, tuple[int, ...]]] = [{}]
    for span, index in spans:
        free = next((part for part in parts if span not in part), None)
        if free is None:
            parts.append(free := {})
        free[span] = index
    return parts


def _by_version(series: Series, array: Any, frame_dims: tuple[str, ...]) -> list[Series]:
    """A series per value of an `expver` that varies along the frames, as where ERA5T continues ERA5."""
    version = array.coords.get("expver")
    if version is None or len(version.dims) != 1 or version.dims[0] not in frame_dims:
        return [series]
    along = frame_dims.index(str(version.dims[0]))
    versions = [str(value) for value in version.values]
    parts = {
        value: {s: k for s, k in series.keys.items() if versions[k[along]] == value} for value in sorted(set(versions))
    }
    if len(parts) == 1:
        return [replace(series, labels=series.labels | {"expver": versions[0]})]
    return [
        replace(
            series,
            keys=keys,
            labels=series.labels | {"expver": value},
            notes=(*series.notes, f"is of expver {value} at {len(keys)} of {len(versions)} times"),
        )
        for value, keys in parts.items()
    ]


def _text(attributes: dict[str, Any], key: str) -> str:
    value = str(attributes.get(key, attributes.get(f"GRIB_{key}", ""))).strip()
    return "" if value == "unknown" else value


def _members(array: Any, dim: str | None, roles: dict[str, str | None]) -> tuple[int | str, ...] | None:
    """The numbers or names of the members; None if the variable is not an ensemble."""
    named = [name for name, key in roles.items() if key == "member" and name in array.coords]
    ids = [c for c in array.coords.values() if dim and c.dims[:1] == (dim,) and c.dtype.kind in "OUS"]
    coordinate = next((array.coords[name] for name in named), ids[0] if ids else None)
    if coordinate is None:
        return tuple(range(array.sizes[dim])) if dim else None
    values = np.atleast_1d(coordinate.values)
    if values.dtype.kind == "S":
        values = np.char.decode(values if values.ndim == 1 else np.array([b"".join(v) for v in values]))
    members = tuple(int(v) if values.dtype.kind in "iuf" else str(v).strip() for v in values)
    if len(set(members)) < len(members):
        raise UserError(f"holds a member more than once: {', '.join(map(str, members[:9]))}")
    return members


def _scalars(array: Any, roles: dict[str, str | None], kinds: str) -> Iterator[tuple[str, Any]]:
    for name, c in sorted(array.coords.items(), key=lambda item: str(item[0])):
        plain = c.ndim == 0 and c.dtype.kind in kinds and "grid_mapping_name" not in c.attrs
        if plain and roles.get(str(name)) is None and "crs_wkt" not in c.attrs:
            yield str(name), c


def _level(array: Any, roles: dict[str, str | None], at: tuple[tuple[str, int], ...]) -> tuple[str, float] | None:
    """The vertical coordinate's name and value; levels without a coordinate are counted from 0."""
    scalars = {name: float(c) for name, c in _scalars(array, roles, "fiu") if name != "expver"}
    dims = [(dim, scalars.get(dim, float(index))) for dim, index in at if dim != "expver"]
    return next(iter([*dims, *scalars.items()]), None)


def _labels(array: Any, roles: dict[str, str | None]) -> dict[str, str | float]:
    labels: dict[str, str | float] = {name: str(c.values) for name, c in _scalars(array, roles, "OUS")}
    if "expver" in array.coords and array.coords["expver"].ndim == 0:
        labels["expver"] = str(array.coords["expver"].values)
    return labels
