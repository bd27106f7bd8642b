"""Open an archive (NetCDF, GRIB or Zarr, here or at any URL) as frames on one grid, each read when it is asked for."""

import itertools
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from dsr.data.calendar import EPOCH
from dsr.data.grid import Grid
from dsr.data.interpolate import Interpolation
from dsr.data.projection import in_metres
from dsr.data.remote import cached
from dsr.data.store import Variable, refuse_pickle, with_bounds
from dsr.data.units import conversion, tidy
from dsr.errors import UserError

Frame = tuple[int, int]  # initial time (seconds since 1970-01-01) and lead time (seconds)

# How each kind of coordinate is recognised: its CF standard names, then its other usual names.
ROLES = {
    "y": (("latitude", "projection_y_coordinate", "grid_latitude"), ("lat", "y", "rlat", "yc")),
    "x": (("longitude", "projection_x_coordinate", "grid_longitude"), ("lon", "x", "rlon", "xc")),
    "member": (
        ("realization",),
        ("member", "members", "number", "realisation", "ens", "ensemble", "ensemble_member"),
    ),
    "init": (
        ("forecast_reference_time",),
        ("init_time", "init", "reference_time", "analysis_time", "initial_time"),
    ),
    "lead": (
        ("forecast_period",),
        ("lead_time", "lead", "leadtime", "step", "prediction_timedelta", "forecast_hour"),
    ),
    "time": (("time",), ("valid_time", "valid", "date")),
}
# What GRIB's short names mean where the file itself says "unknown".
STANDARD_NAMES = {
    "t2m": "air_temperature",
    "d2m": "dew_point_temperature",
    "msl": "air_pressure_at_mean_sea_level",
    "sp": "surface_air_pressure",
    "pres": "air_pressure",
    "u10": "eastward_wind",
    "v10": "northward_wind",
    "ws": "wind_speed",
    "si10": "wind_speed",
    "wdir": "wind_from_direction",
    "fg10": "wind_speed_of_gust",
    "i10fg": "wind_speed_of_gust",
    "z": "geopotential",
    "orog": "surface_altitude",
    "h": "surface_altitude",
    "lsm": "land_binary_mask",
}
CELL_METHODS = {"accum": "time: sum", "max": "time: maximum", "min": "time: minimum", "avg": "time: mean"}
SENTINELS = (-999.0, -9999.0, -99999.0)  # written by many tools without a _FillValue
HUGE = 1e19  # beyond this no geophysical value lies: 9.97e36, 1e20 and their like are missing
FALL = 0.05  # of a field's largest total: packing makes accumulations fall, but never by more than this
BLOCK = 256 * 2**20  # bytes: chunks that hold many frames are kept up to this size


@dataclass(frozen=True)
class Choice:
    """How one variable is taken from an archive."""

    source: str = ""  # its name in the archive, where that is another
    units: str = ""  # what to convert to; where the archive does not know its units, what they are
    accumulated: bool | None = None  # a total since the start of the run; None: as GRIB says, otherwise no
    missing: tuple[float, ...] = ()  # values that stand for a missing one
    valid_range: tuple[float, float] | None = None  # outside of it, a value is missing
    standard_name: str = ""
    long_name: str = ""

    __pydantic_config__: ClassVar = {"extra": "forbid"}  # for recipes, which hold choices


@dataclass(frozen=True, eq=False)
class _Part:
    """One variable (at one level) of one opened dataset, and where its frames lie in it."""

    array: Any  # xr.DataArray, unread
    file: str
    dims: tuple[str, ...]  # of frames
    frames: dict[Frame, tuple[int, ...]]
    member_dim: str | None
    members: tuple[int, ...] | None  # None: not of an ensemble
    level: tuple[tuple[str, float], ...]
    grid: Grid
    calendar: str
    block: dict[str, Any] = field(default_factory=dict)  # the chunk read last

    def read(self, frame: Frame) -> np.ndarray:
        """([member,] y, x) float32. Raises OSError, which names file and time, where reading fails."""
        index = self.frames[frame]
        chunks = self.array.encoding.get("preferred_chunks") or {}
        sizes = [min(chunks.get(dim, 1), self.array.sizes[dim]) for dim in self.dims]
        frame_bytes = self.array.size // max(1, np.prod([self.array.sizes[dim] for dim in self.dims])) * 8
        if np.prod(sizes, initial=1) * frame_bytes > BLOCK:
            sizes = [1] * len(sizes)
        start = tuple(i // size * size for i, size in zip(index, sizes, strict=True))
        if self.block.get("start") != start:
            cut = {d: slice(s, s + size) for d, s, size in zip(self.dims, start, sizes, strict=True)}
            order = (*self.dims, *([self.member_dim] if self.member_dim else []), *self.array.dims[-2:])
            try:
                values = self.array.isel(cut).transpose(*order).values
            except Exception as error:
                what = f"{self.array.name} at {when(frame)} cannot be read ({_first_line(error)})"
                raise OSError(f"{self.file}: {what}: is the file whole?") from error
            self.block.update(start=start, values=values)
        return self.block["values"][tuple(i - s for i, s in zip(index, start, strict=True))].astype(np.float32)


class Archive:
    """Frames of one set of variables on one grid; nothing but coordinates is read until `read`.

    `frames` is sorted by initial time, then lead; it holds those where every variable is there. `dropped` says which
    others there were ({reason: [frame, ...]}), `counts` how many values were mended ({(variable, what): n}).
    """

    def __init__(self, name: str, files: list[str], parts: dict[str, list[_Part]], choices: dict[str, Choice]):
        self.name, self.files = name, files
        self.choices = choices
        first = next(iter(parts.values()))[0]
        self.grid, self.calendar = first.grid, first.calendar
        for variable, several in parts.items():
            for part in several:
                if not part.grid.same(self.grid):
                    raise UserError(
                        f"{name}: {variable} lies on another grid ({part.file}: {part.grid.describe()}) than "
                        f"{next(iter(parts))} ({self.grid.describe()}); choose variables of one grid"
                    )
        self.dropped: dict[str, list[Frame]] = defaultdict(list)
        self.counts: Counter[tuple[str, str]] = Counter()
        self.parts = {variable: _by_frame(several, self.dropped) for variable, several in parts.items()}
        self.members = _common_members(self.parts)
        self.accumulated = {v for v, several in parts.items() if _is_accumulated(several, choices.get(v, Choice()))}
        self.variables, self.lines = [], {}
        for variable, several in parts.items():
            described, self.lines[variable] = self._described(variable, several[0])
            self.variables.append(described)
        self.interval: dict[str, dict[Frame, int]] = {v: _intervals(self.parts[v]) for v in self.accumulated}
        self.frames = self._whole_frames()
        self._totals: dict[str, tuple[Frame, np.ndarray]] = {}
        self._reading: dict[str, list[_Part]] = defaultdict(list)
        if not self.frames:
            reasons = "; ".join(f"{reason} ({len(frames)})" for reason, frames in self.dropped.items())
            raise UserError(f"{name}: at no time are all of {', '.join(parts)} there: {reasons}")

    @property
    def init_time(self) -> np.ndarray:
        """(frame) int64, seconds since 1970-01-01."""
        return np.array([init for init, _ in self.frames], np.int64)

    @property
    def lead_time(self) -> np.ndarray:
        """(frame) int64, seconds; 0 for analyses and observations."""
        return np.array([lead for _, lead in self.frames], np.int64)

    def read(self, index: int) -> np.ndarray:
        """([member,] variable, y, x) float32 of one frame, in the variables' units, NaN where missing."""
        frame = self.frames[index]
        return np.stack([self._field(variable.name, frame) for variable in self.variables], axis=-3)

    def convert(self, name: str, units: str) -> None:
        """Give the variable `name` in other units from now on. Raises UserError where that cannot be."""
        i = next(i for i, variable in enumerate(self.variables) if variable.name == name)
        scale, offset = conversion(self.variables[i].units, units, f"{self.name}: {name}")
        old_scale, old_offset = self.lines[name]
        self.lines[name] = (old_scale * scale, old_offset * scale + offset)
        self.variables[i] = with_bounds(replace(_in_units(self.variables[i], tidy(units)), lower=None, upper=None))

    def _field(self, name: str, frame: Frame) -> np.ndarray:
        """([member,] y, x) float32 of one variable, as an amount where it was a total, in its units."""
        values = self._raw(name, frame)
        if name in self.accumulated:
            before = (frame[0], frame[1] - self.interval[name][frame])
            held, total = self._totals.get(name, (None, values))
            earlier = total if held == before else self._raw(name, before)
            self._totals[name] = (frame, values)
            values = self._amount(name, frame, values, earlier)
        scale, offset = self.lines[name]
        return values if (scale, offset) == (1.0, 0.0) else (values * scale + offset).astype(np.float32)

    def _amount(self, name: str, frame: Frame, total: np.ndarray, earlier: np.ndarray) -> np.ndarray:
        """What fell since the lead before. Falling totals are clipped to 0 and counted where packing explains them."""
        amount = total - earlier
        with np.errstate(invalid="ignore"):
            negative = amount < 0
        if negative.any():
            fall, at = -amount[negative].min(), when(frame)
            if fall > FALL * np.nanmax(np.abs(total)) + 1e-6:
                raise UserError(
                    f"{self.name}: {name} falls by {fall:.3g} before {at}, so it is no total since the start of "
                    f'the run; say "accumulated": false for it in a recipe'
                )
            self.counts[name, "small negative amounts clipped to 0"] += int(negative.sum())
        self.counts[name, "amounts"] += int(np.isfinite(amount).sum())
        return np.where(negative, np.float32(0), amount)

    def _raw(self, name: str, frame: Frame) -> np.ndarray:
        """([member,] y, x) float32 as the files have it, the members of all files in order."""
        parts = self.parts[name][frame]
        for left in set(self._reading[name]) - set(parts):
            left.block.clear()  # so that only the files of the moment hold a chunk in memory
        self._reading[name] = parts
        fields = [self._masked(name, part.read(frame)) for part in parts]
        if self.members is None:
            return fields[0] if fields[0].ndim == 2 else fields[0][0]
        result = np.empty((len(self.members), *self.grid.shape), np.float32)
        for part, values in zip(parts, fields, strict=True):
            if part.members is None:
                result[:] = values
                continue
            values = values if values.ndim == 3 else values[None]
            for number, one in zip(part.members, values, strict=True):
                if number in self.members:
                    result[self.members.index(number)] = one
        return result

    def _masked(self, name: str, values: np.ndarray) -> np.ndarray:
        """The values with sentinels, and what lies out of the chosen range, as NaN; counted."""
        choice = self.choices.get(name, Choice())
        lower, upper = choice.valid_range or (-HUGE, HUGE)
        with np.errstate(invalid="ignore"):
            bad = np.isin(values, np.array((*SENTINELS, *choice.missing), np.float32))
            bad |= (values < lower) | (values > upper)
        if bad.any():
            self.counts[name, "sentinels and values out of range taken as missing"] += int(bad.sum())
            values = np.where(bad, np.float32(np.nan), values)
        return values

    def _described(self, name: str, part: _Part) -> tuple[Variable, tuple[float, float]]:
        """The variable as the store will name it, and the line (scale, offset) into its units."""
        choice, attributes = self.choices.get(name, Choice()), part.array.attrs
        units = tidy(str(attributes.get("units", "")))
        standard_name = str(attributes.get("standard_name", "")).replace("unknown", "")
        short_name = str(attributes.get("GRIB_cfVarName", choice.source or name))
        standard_name = choice.standard_name or standard_name or STANDARD_NAMES.get(short_name, "")
        if short_name == "tp" and not standard_name:
            standard_name = "lwe_thickness_of_precipitation_amount" if units == "m" else "precipitation_amount"
        long_name = choice.long_name or str(attributes.get("long_name", "")).replace("unknown", "")
        methods = CELL_METHODS.get(attributes.get("GRIB_stepType", ""), str(attributes.get("cell_methods", "")))
        if name in self.accumulated:
            methods = "time: sum"
        line = (1.0, 0.0)
        if choice.units and units:
            line = conversion(units, choice.units, f"{part.file}: {name}")
        variable = Variable(name, units, standard_name, long_name, methods)
        variable = _in_units(variable, tidy(choice.units)) if choice.units else variable
        return with_bounds(replace(variable, units=variable.units or "1")), line

    def _whole_frames(self) -> list[Frame]:
        whole = []
        for frame in sorted({frame for frames in self.parts.values() for frame in frames}):
            reason = next(filter(None, (self._lack(name, frame) for name in self.parts)), None)
            if reason is None:
                whole.append(frame)
            else:
                self.dropped[reason].append(frame)
        return whole

    def _lack(self, name: str, frame: Frame) -> str | None:
        """Why a frame cannot be had of one variable."""
        parts = self.parts[name].get(frame)
        if parts is None:
            return f"{name} is not there"
        if name in self.accumulated and frame not in self.interval[name]:
            return f"{name} is a total since the start of the run and has no earlier lead to subtract"
        numbers = {number for part in parts for number in part.members or ()}
        if self.members is not None and numbers and not numbers.issuperset(self.members):
            return f"{name} lacks members {sorted(set(self.members) - numbers)}"
        return None


def open_archive(
    patterns: Sequence[str],
    variables: dict[str, Choice] | None = None,
    *,
    members: Sequence[int] | None = None,
    root: Path | None = None,
    static: bool = False,
    own_names: bool = False,
) -> Archive:
    """Open every file that the `patterns` (paths, globs, URLs; relative ones to `root`) name, as one Archive.

    `variables` names and chooses them ({name: Choice}); None takes every one that has time, rows and columns. A
    variable on several levels is named with its level ("t_850"). `static` takes the first frame of each variable and
    asks for no time. With `own_names` a variable may also stand under its own name, where its source is not there.
    Raises UserError: no such file, unreadable, a missing variable, no time, different grids.
    """
    files = list(_files(patterns, root))
    parts: dict[str, list[_Part]] = defaultdict(list)
    for file, dataset in files:
        for part in _parts_of(dataset, file, static):
            parts[str(part.array.name)].append(part)
    name = patterns[0] if len(patterns) == 1 else f"{patterns[0]} and {len(patterns) - 1} more"
    parts = _with_levels(parts)
    if members is not None:
        parts = {key: _only(several, set(members)) for key, several in parts.items()}
    if not parts:
        raise UserError(
            f"{name}: holds no variable with rows and columns (1-D latitude and longitude, or projected y and x)"
        )
    if variables is None:
        timed = {key: several for key, several in parts.items() if static or any(part.dims for part in several)}
        chosen, variables = timed or parts, {}
    else:
        chosen = {}
        for key, choice in variables.items():
            source = key if own_names and choice.source not in parts else choice.source or key
            if source not in parts:
                raise UserError(f"{name}: no variable {source}; there are: {', '.join(sorted(parts))}")
            chosen[key] = parts[source]
    for key, several in chosen.items():
        if not several:
            raise UserError(f"{name}: {key} has none of the members {list(members or [])}")
    return Archive(name, sorted({file for file, _ in files}), chosen, variables)


def static_fields(archive: Archive, grid: Grid) -> dict[str, np.ndarray]:
    """{name: (y, x) float32}: the fields of a static archive on `grid` (bilinear; exact where its points coincide)."""
    index = grid.index_on(archive.grid)
    if not archive.grid.covers(index).all():
        raise UserError(f"{archive.name}: covers {archive.grid.extent()}, not all of {grid.extent()}")
    onto = Interpolation(index, archive.grid.shape, "bilinear")
    return dict(zip((v.name for v in archive.variables), onto(archive.read(0)), strict=True))


def when(frame: Frame) -> str:
    """Such as "2018-05-01T00:00 +6 h", for people."""
    init, lead = frame
    hours = lead / 3600
    return str(np.datetime64(init, "s").astype("datetime64[m]")) + (f" +{hours:g} h" if lead else "")


# Files


def _files(patterns: Sequence[str], root: Path | None) -> Iterator[tuple[str, Any]]:
    """(file, dataset) for every dataset of every file: one for NetCDF and Zarr, one for each hypercube of GRIB."""
    import fsspec

    for pattern in patterns:
        full = str(root / pattern) if root is not None and "://" not in pattern else pattern
        try:
            system, path = fsspec.core.url_to_fs(full)
            paths = sorted(map(str, system.glob(path))) if fsspec.core.has_magic(path) else [path]
            if not paths or not system.exists(paths[0]):
                raise UserError(f"{full}: no such file")
        except (ImportError, ValueError, OSError) as error:
            raise UserError(f"{full}: cannot be reached ({_first_line(error)})") from error
        local = "file" in system.protocol
        for one in paths:
            yield from ((one, dataset) for dataset in _open(system, one, local))


def _open(system: Any, path: str, local: bool) -> list[Any]:
    import xarray as xr

    refuse_pickle()
    options: dict[str, Any] = {"decode_coords": "all", "decode_timedelta": False, "cache": False}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if system.isdir(path):
                if not any(system.exists(f"{path}/{name}") for name in ("zarr.json", ".zgroup", ".zmetadata")):
                    raise UserError(f"{path}: is a folder but not a Zarr group; name its files, such as '{path}/*.nc'")
                url = path if local else system.unstrip_protocol(path)
                return [xr.open_dataset(url, engine="zarr", chunks=None, **options)]
            if not local:
                path = str(cached(system, path))
            with Path(path).open("rb") as file:
                start = file.read(16)
            if b"GRIB" in start:
                import cfgrib

                return cfgrib.open_datasets(path, backend_kwargs={"indexpath": "", "errors": "raise"})
            if start[:3] == b"CDF":
                _check_size(path)
            if start[:3] == b"CDF" or start[1:4] == b"HDF":
                return [xr.open_dataset(path, engine="netcdf4", chunks=None, **options)]
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{path}: cannot be read ({_first_line(error)}): is the file whole?") from error
    raise UserError(f"{path}: neither NetCDF, GRIB nor Zarr")


def _check_size(path: str) -> None:
    """Raise OSError where a classic NetCDF file is too short: the library would give zeros for what is not there."""
    import netCDF4

    with netCDF4.Dataset(path) as file:
        promised = sum(variable.size * variable.dtype.itemsize for variable in file.variables.values())
    if promised > Path(path).stat().st_size:
        raise OSError("it is shorter than its header says")


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


# Canonical form


def _role(name: str, variable: Any) -> str | None:
    """Which kind of coordinate this is (a key of ROLES), by its CF standard name, else by its name."""
    standard_name = variable.attrs.get("standard_name")
    for role, (standard_names, _) in ROLES.items():
        if standard_name in standard_names:
            return role
    return next((role for role, names in ROLES.items() if name.lower() in (*names[0], *names[1])), None)


def _parts_of(dataset: Any, file: str, static: bool) -> Iterator[_Part]:
    roles = {str(name): _role(str(name), variable) for name, variable in dataset.variables.items()}
    roles |= {str(dim): _role(str(dim), dataset[dim]) for dim in dataset.dims}
    for name, array in dataset.data_vars.items():
        dims = {roles[str(dim)]: str(dim) for dim in array.dims}
        if roles[str(name)] is not None or array.dtype.kind not in "fiu" or not {"y", "x"} <= dims.keys():
            continue
        try:
            grid = _grid(array, dims["y"], dims["x"])
            init, lead, calendar = _reference(dataset, roles, static)
        except UserError as error:
            raise UserError(f"{file}: {name}: {error}") from None
        frame_dims = tuple(str(d) for d in init.dims if d in array.dims)
        levels = [str(d) for d in array.dims if d not in (*frame_dims, *(dims.get(k) for k in ("y", "x", "member")))]
        array = array.transpose(*(d for d in array.dims if d not in (dims["y"], dims["x"])), dims["y"], dims["x"])
        frames = _frame_table(init, lead, frame_dims)
        if static:
            frames = {(0, 0): tuple(0 for _ in frame_dims)}
        member_dim = dims.get("member")
        number = next((dataset[key] for key, role in roles.items() if role == "member" and key in array.coords), None)
        if member_dim and (number is None or number.dtype.kind not in "iuf"):
            number = np.arange(array.sizes[member_dim])
        numbered = number is not None and number.dtype.kind in "iuf"
        members = tuple(int(n) for n in np.atleast_1d(np.asarray(number))) if numbered else None
        for combination in itertools.product(*(range(array.sizes[level]) for level in levels)):
            one = array.isel(dict(zip(levels, combination, strict=True)))
            yield _Part(one, file, frame_dims, frames, member_dim, members, _level(one, roles), grid, calendar)


def _grid(array: Any, y: str, x: str) -> Grid:
    """The grid of one variable. Raises UserError where its rows and columns have no 1-D coordinate or projection."""
    if y not in array.coords or x not in array.coords:
        raise UserError(f"dimensions {y} and {x} have no coordinates; regular grids need one along each")
    rows, columns = array[y], array[x]
    units = str(rows.attrs.get("units", "degrees" if y.lower().startswith("lat") else "m"))
    if units.startswith("deg") and rows.attrs.get("standard_name") != "grid_latitude":
        return Grid(rows.values, columns.values)
    mapping = next((c.attrs for c in array.coords.values() if "grid_mapping_name" in c.attrs), None)
    if mapping is None:
        raise UserError("projected rows and columns without a grid mapping (CF grid_mapping_name and its parameters)")
    scale = 1.0 if units.startswith("deg") else conversion(units, "m", f"coordinate {y}")[0]
    place = in_metres(mapping, scale)
    return Grid(np.asarray(rows, np.float64) * scale, np.asarray(columns, np.float64) * scale, place)


def _reference(dataset: Any, roles: dict[str, str | None], static: bool) -> tuple[Any, Any, str]:
    """Initial and lead time, int64 seconds, as xarray Variables over the same dimensions; and the calendar."""
    import xarray as xr

    found: dict[str, Any] = {}
    calendar = "proleptic_gregorian"
    for name, role in roles.items():
        if role in ("init", "lead", "time") and name in dataset.variables and role not in found:
            variable = dataset.variables[name]
            seconds, calendar = _seconds(variable, role, calendar)
            found[role] = xr.Variable(variable.dims, seconds)
    if static or not found:
        if not static:
            raise UserError("has no time coordinate")
        return xr.Variable((), 0), xr.Variable((), 0), calendar
    init, lead, time = (found.get(role) for role in ("init", "lead", "time"))
    if init is None and lead is not None and time is not None:
        # Two dimensions of their own: `time` is when the run started (as in WeatherBench 2); else it is the valid time.
        apart = lead.dims and time.dims and not set(lead.dims) & set(time.dims)
        init = time if apart else time - lead
    elif init is None:
        init = time if time is not None else xr.Variable((), 0)
    if lead is None:
        lead = time - init if time is not None else init * 0
    init = init + lead * 0
    return init, init * 0 + lead, calendar


def _seconds(variable: Any, role: str, calendar: str) -> tuple[np.ndarray, str]:
    values = variable.values
    if role == "lead":
        if values.dtype.kind == "m":
            return values.astype("timedelta64[s]").astype(np.int64), calendar
        scale, _ = conversion(str(variable.attrs.get("units", "hours")), "s", f"coordinate of standard name {role}")
        return np.rint(np.asarray(values, np.float64) * scale).astype(np.int64), calendar
    if values.dtype.kind == "M":
        return values.astype("datetime64[s]").astype(np.int64), calendar
    if values.dtype.kind == "O":
        import cftime

        calendar = np.ravel(values)[0].calendar
        return np.asarray(cftime.date2num(values, EPOCH, calendar), np.int64), calendar
    raise UserError(f"its {role} coordinate has no units such as 'hours since 2000-01-01'")


def _frame_table(init: Any, lead: Any, dims: tuple[str, ...]) -> dict[Frame, tuple[int, ...]]:
    keep = [list(init.dims).index(dim) for dim in dims]
    return {
        (int(init.values[index]), int(lead.values[index])): tuple(index[k] for k in keep)
        for index in np.ndindex(init.shape)
    }


def _level(array: Any, roles: dict[str, str | None]) -> tuple[tuple[str, float], ...]:
    scalars = {str(k): c for k, c in array.coords.items() if c.ndim == 0 and c.dtype.kind in "fiu"}
    return tuple(
        (name, float(c))
        for name, c in sorted(scalars.items())
        if roles.get(name) is None and "grid_mapping_name" not in c.attrs
    )


def _with_levels(parts: dict[str, list[_Part]]) -> dict[str, list[_Part]]:
    """Variables that stand on several levels become one variable a level, named with it."""
    result: dict[str, list[_Part]] = defaultdict(list)
    for name, several in parts.items():
        many = len({part.level for part in several}) > 1
        for part in several:
            result["_".join([name, *(f"{value:g}" for _, value in part.level)]) if many else name].append(part)
    return result


def _only(parts: list[_Part], members: set[int]) -> list[_Part]:
    """The parts cut to some members."""
    result = []
    for part in parts:
        keep = [i for i, number in enumerate(part.members or ()) if number in members]
        if part.members is None:
            result.append(part)
        elif keep:
            array = part.array.isel({part.member_dim: keep}) if part.member_dim else part.array
            result.append(replace(part, array=array, members=tuple(part.members[i] for i in keep)))
    return result


def _by_frame(parts: list[_Part], dropped: dict[str, list[Frame]]) -> dict[Frame, list[_Part]]:
    """{frame: the parts that hold it}: several where files or hypercubes hold different members."""
    table: dict[Frame, list[_Part]] = {}
    for part in parts:
        for frame in part.frames:
            held = table.setdefault(frame, [])
            taken = {number for other in held for number in other.members or ()}
            if held and (part.members is None or taken & set(part.members)):
                dropped["stands in several files; the first file's was kept"].append(frame)
            else:
                held.append(part)
    return table


def _common_members(table: dict[str, dict[Frame, list[_Part]]]) -> list[int] | None:
    """The members of most frames; None where there is at most one."""
    sets: Counter[frozenset[int]] = Counter()
    for frames in table.values():
        for parts in frames.values():
            sets[frozenset(number for part in parts for number in part.members or ())] += 1
    members = max(sets, key=lambda numbers: (len(numbers) > 1, sets[numbers], len(numbers)))
    return sorted(members) if len(members) > 1 else None


def _intervals(table: dict[Frame, list[_Part]]) -> dict[Frame, int]:
    """{frame: seconds since the lead before it in its run}; the first lead of a run has none."""
    ordered = sorted(table)
    return {b: b[1] - a[1] for a, b in itertools.pairwise(ordered) if a[0] == b[0]}


def _is_accumulated(parts: list[_Part], choice: Choice) -> bool:
    if choice.accumulated is not None:
        return choice.accumulated
    if any(part.array.attrs.get("GRIB_stepType") != "accum" for part in parts):
        return False
    return all(_starts_with_run(part.array.encoding["source"], part.array.attrs["GRIB_shortName"]) for part in parts)


def _starts_with_run(file: str, short_name: str) -> bool:
    """Whether every message of a GRIB variable accumulates from step 0 (ERA5's, for one, start at the step before)."""
    import eccodes

    starts = set()
    with Path(file).open("rb") as stream:
        while (message := eccodes.codes_grib_new_from_file(stream, headers_only=True)) is not None:
            if eccodes.codes_get(message, "shortName") == short_name:
                starts.add((eccodes.codes_get(message, "startStep"), eccodes.codes_get(message, "endStep")))
            eccodes.codes_release(message)
    return len(starts) > 1 and {start for start, _ in starts} == {0}


def _in_units(variable: Variable, units: str) -> Variable:
    """A variable that was converted: a depth of water that has become a mass has another standard name."""
    name = variable.standard_name
    if units.startswith("kg m-2"):
        name = name.replace("lwe_thickness_of_", "").replace("lwe_precipitation_rate", "precipitation_flux")
    return replace(variable, units=units, standard_name=name)
