"""GRIB of both editions: one scan of the headers gives the series of a file; a reader reads values by message."""

import mmap
import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dsr.data import names
from dsr.data.files import File
from dsr.data.grid import Grid
from dsr.data.openers.grib_fields import Field, Parts, fields, header, message, precision, reference_time
from dsr.data.openers.grib_grid import Layout, grid_of
from dsr.data.series import Series, Span
from dsr.errors import UserError, first_line

STATISTICS = {"instant": "point", "accum": "sum", "avg": "mean", "max": "maximum", "min": "minimum"}
# Parameters that are sums over time by definition, although edition 1 often labels them instantaneous.
SUMS = frozenset(
    re.findall(
        r"\w+",
        "tp cp lsp sf csf lsf e pev ro sro ssro smlt es ssrd strd ssr str tsr ttr ssrc strc tsrc ttrc tisr sshf slhf "
        "ewss nsss lgws mgws gwd bld sund fdir cdir uvb",
    )
)
NAMES = {"unknown_0_1_8": "tp"}  # in the WMO table, although eccodes names them only for some centres
EXTREME = re.compile(r"(Maximum|Minimum) .*(?:since previous post-processing|in the last (\d* ?)hours?)")
WIND = re.compile(r"\d*[uv]")  # short names of the components of horizontal wind: u, 10v, 100u
MONTHS = range(3, 8)  # units of time of variable length: months, years, ...
BACKWARDS = "has an interval in its file that ends before it starts: treated as unknown"


Places = dict[Span, dict[int | None, list[Field]]]  # the fields of one kind, by span and member


class Meaning(NamedTuple):
    """The header of a message, except its reference time. All messages of one series have the same `kind`."""

    kind: "Kind"
    start: int | None  # seconds after the reference time, as in Span
    end: int
    member: int | None


class Kind(NamedTuple):
    name: str
    attributes: tuple[tuple[str, str], ...]
    statistic: str
    level: tuple[str, float]
    labels: tuple[tuple[str, str | float], ...]
    grid: str  # a key of _GRIDS
    notes: tuple[str, ...]


# Headers and grids recur in messages and files; decoding one takes a millisecond or more.
_MEANINGS: dict[bytes, Meaning] = {}
_GRIDS: dict[str, tuple[Grid, Layout, tuple[str, ...]]] = {}
MAX_MEANINGS = 100_000  # at most this many headers are cached


@dataclass(frozen=True)
class Reader:
    """Reads the fields of one series: ([member,] y, x) float32."""

    file: str
    path: str
    layout: Layout
    ensemble: bool

    def __call__(self, key: tuple[Field, ...]) -> np.ndarray:
        with Path(self.path).open("rb") as stream:
            stack = [self._field(stream, field) for field in key]
        return np.stack(stack) if self.ensemble else stack[0]

    def _field(self, stream: Any, field: Field) -> np.ndarray:
        import eccodes

        stream.seek(field.offset)
        data = stream.read(field.size)
        try:
            part = next(part for part in fields(data) if part[0].number == field.number)
            with _opened(message(data, *part)) as handle:
                eccodes.codes_set(handle, "missingValue", np.nan)
                values = eccodes.codes_get_values(handle)
            return self.layout(values.astype(np.float32))
        except Exception as error:
            where = f"{self.file}: the message at byte {field.offset}"
            raise OSError(f"{where} cannot be read ({first_line(error)}): is the file whole?") from error


def sniff(path: str, start: bytes) -> bool:
    return b"GRIB" in start


def open_file(file: File, crs: Any = None) -> list[Series]:
    """The series of one file. Raises UserError: truncated, grids without rows and columns, intervals in months."""
    if crs is not None:
        raise UserError(f"{file.name}: is a GRIB file, which defines its projection: remove crs from the recipe")
    places: dict[Kind, Places] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    rounding: dict[Kind, float] = defaultdict(float)
    timeless: set[Kind] = set()
    with Path(file.path).open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            for field, parts in fields(data):
                meaning, init = _cached_meaning(data, field, parts, file.name), reference_time(data, field, parts)
                if init is None:
                    timeless.add(meaning.kind)
                places[meaning.kind][Span(init or 0, meaning.start, meaning.end)][meaning.member].append(field)
                rounding[meaning.kind] = max(rounding[meaning.kind], precision(data, field, parts))
        except ValueError as error:
            raise UserError(f"{file.name}: cannot be read ({error}): is the file whole?") from None
    return [s for k, spans in places.items() for s in _series(file, k, spans, rounding[k], k in timeless)]


def _series(file: File, kind: Kind, spans: Places, rounding: float, timeless: bool) -> Iterator[Series]:
    """The series of one kind: one for each set of members that its frames have, and others for repeated fields."""
    keys: dict[tuple[int, tuple[int, ...] | None], dict[Span, tuple[Field, ...]]] = defaultdict(dict)
    for span, members in spans.items():
        for copy in range(max(map(len, members.values()))):
            by_member = {member: copies[copy] for member, copies in members.items() if copy < len(copies)}
            numbers = tuple(sorted(member for member in by_member if member is not None))
            if None in by_member:
                keys[copy, None][span] = (by_member[None],)
            if numbers:
                keys[copy, numbers][span] = tuple(by_member[member] for member in numbers)
    grid, layout, notes = _GRIDS[kind.grid]
    for (_, ensemble), fields_of in sorted(keys.items(), key=lambda item: item[0][0]):
        yield Series(
            name=kind.name,
            file=file.name,
            attributes=dict(kind.attributes),
            statistic=kind.statistic,
            grid=grid,
            calendar="proleptic_gregorian",
            keys=fields_of,
            reader=Reader(file.name, file.path, layout, ensemble is not None),
            members=ensemble,
            level=kind.level,
            labels=dict(kind.labels),
            notes=notes + kind.notes,
            precision=rounding,
            timeless=timeless,
        )


def _cached_meaning(data: Any, field: Field, parts: Parts, file: str) -> Meaning:
    known = header(data, field, parts)
    if known not in _MEANINGS:
        if len(_MEANINGS) >= MAX_MEANINGS:
            _MEANINGS.clear()
        with _opened(message(data, field, parts, with_values=False)) as handle:
            name = _name(handle)[0]
            try:
                grid = _grid_key(handle, data, field, parts)
                _MEANINGS[known] = _decoded(handle, grid)
            except UserError as error:
                raise UserError(f"{file}: {name}, the message at byte {field.offset}: {error}") from None
    return _MEANINGS[known]


def _grid_key(handle: Any, data: Any, field: Field, parts: Parts) -> str:
    """The key in _GRIDS of the grid of a message."""
    key = f"{_get(handle, 'md5GridSection', '')} {_get(handle, 'centre', '')}"
    if key not in _GRIDS:
        with _opened(message(data, field, parts)) as whole:
            _GRIDS[key] = grid_of(whole)
    return key


def _decoded(handle: Any, grid: str) -> Meaning:
    """The meaning of a header by eccodes."""
    name, attributes, notes = _name(handle)
    statistic, start, end = _interval(handle, attributes["long_name"])
    if start is not None and start > end:
        start, notes = None, (*notes, BACKWARDS)
    if _GRIDS[grid][0].mapping is not None and _get(handle, "uvRelativeToGrid", 0):
        along = _grid_wind(_get(handle, "shortName", ""), attributes["standard_name"])
        if along:
            attributes["standard_name"] = along
            notes = (*notes, names.ALONG_GRID)
    kind = Kind(name, tuple(attributes.items()), statistic, _level(handle), _labels(handle), grid, notes)
    return Meaning(kind, start, end, _member(handle))


def _name(handle: Any) -> tuple[str, dict[str, str], tuple[str, ...]]:
    """The name of a field, its attributes as in Series, and notes."""
    values = {key: _get(handle, key, "unknown") for key in ("cfVarName", "shortName", "units", "name", "cfName")}
    values = {key: "" if value in ("unknown", "~") else value for key, value in values.items()}
    name, units, long_name = values["cfVarName"] or values["shortName"], values["units"], values["name"]
    notes: tuple[str, ...] = ()
    if not name:
        numbers: tuple[str, ...] = ("table2Version", "indicatorOfParameter")
        if _get(handle, "edition", 0) == 2:
            numbers = ("discipline", "parameterCategory", "parameterNumber")
        name = "_".join(["unknown", *(str(_get(handle, number, 0)) for number in numbers)])
        if name not in NAMES:
            notes = ("is a parameter without a name in eccodes: give its units and standard_name in a recipe",)
        parameter, parameter_units = (_get(handle, key, "") for key in ("parameterName", "parameterUnits"))
        if not parameter.isdigit():  # otherwise only its number, from an unknown table
            long_name, units = parameter, parameter_units
    return NAMES.get(name, name), {"units": units, "standard_name": values["cfName"], "long_name": long_name}, notes


def _grid_wind(short_name: str, standard_name: str) -> str:
    """The standard name of a wind component along the axes of the grid; "" for anything else."""
    if WIND.fullmatch(short_name):
        return "x_wind" if short_name[-1] == "u" else "y_wind"
    names = {"eastward_wind": "x_wind", "northward_wind": "y_wind"}
    return names.get(standard_name, "")


def _interval(handle: Any, long_name: str) -> tuple[str, int | None, int]:
    """The statistic of a field, and start (None: unknown) and end of its interval, in s after the reference time."""
    import eccodes

    step_type, short_name = _get(handle, "stepType", ""), _get(handle, "shortName", "")
    for unit in ("indicatorOfUnitOfTimeRange", "indicatorOfUnitForTimeRange"):
        if _get(handle, unit, 1) in MONTHS:
            raise UserError("gives its time in months or years, whose length varies")
    eccodes.codes_set(handle, "stepUnits", "s")
    start, end = (eccodes.codes_get_long(handle, key) for key in ("startStep", "endStep"))
    # Edition 1 can assign a value to an interval without saying whether it is a sum, mean or extreme.
    ambiguous = _get(handle, "edition", 0) == 1 and _get(handle, "timeRangeIndicator", 0) == 2
    statistic = "" if ambiguous else STATISTICS.get(step_type, "")
    extreme = EXTREME.match(long_name)
    if extreme:
        statistic = extreme[1].lower()
        if start == end and extreme[2] is not None:
            start = end - 3600 * int(extreme[2] or 1)
    elif ambiguous or step_type == "instant":
        if short_name in SUMS:
            statistic = "sum"
        elif not short_name or short_name == "unknown":
            statistic = ""  # local parameters such as MRMS hourly sums are often written as instantaneous
        elif long_name.startswith("Time-mean"):
            statistic = "mean"
    if statistic == "point" and start != end:
        statistic = ""
    return statistic, None if start == end and statistic != "point" else start, end


def _level(handle: Any) -> tuple[str, float]:
    kind = _get(handle, "typeOfLevel", "unknown")
    if kind == "unknown":
        number = "typeOfFirstFixedSurface" if _get(handle, "edition", 0) == 2 else "indicatorOfTypeOfLevel"
        kind = f"unknown_{_get(handle, number, 255)}"
    return kind, _get(handle, "level", 0.0)


def _labels(handle: Any) -> tuple[tuple[str, str | float], ...]:
    """Other labels that distinguish fields of one name, by GRIB key."""
    labels: dict[str, str | float] = {}
    for key in ("expver", "percentileValue", "probabilityTypeName", "lowerLimit", "upperLimit", "constituentTypeName"):
        value = _get(handle, key, "")
        if value not in ("", "MISSING"):
            labels[key] = value
    derived = _get(handle, "derivedForecast", -1)
    if derived >= 0:
        labels["derivedForecast"] = derived  # 0: the mean of all members, 4: their spread, ...
    if _get(handle, "stepType", "") not in STATISTICS:
        labels["stepType"] = _get(handle, "stepType", "")
    bottom = _get(handle, "bottomLevel", -1.0)
    if bottom not in (-1.0, _get(handle, "topLevel", bottom)):
        labels["bottomLevel"] = bottom
    return tuple(labels.items())


def _member(handle: Any) -> int | None:
    number = _get(handle, "perturbationNumber", -1)
    if number < 0:
        return None
    of_ensemble = _get(handle, "edition", 0) == 2 or _get(handle, "dataType", "") in ("cf", "pf")
    return number if of_ensemble or _get(handle, "numberOfForecastsInEnsemble", 0) > 1 else None


def _get(handle: Any, key: str, default: Any) -> Any:
    """The value of a key in the type of `default`, which is returned if the message lacks the key."""
    import eccodes

    try:
        return eccodes.codes_get(handle, key, type(default))
    except eccodes.KeyValueNotFoundError:
        return default


@contextmanager
def _opened(data: bytes) -> Iterator[Any]:
    """The eccodes handle of a message, released at exit."""
    import eccodes

    handle = eccodes.codes_new_from_message(data)
    try:
        yield handle
    finally:
        eccodes.codes_release(handle)
