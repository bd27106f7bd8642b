"""GRIB of both editions: one scan of the headers gives a file's series; a reader fetches values by message."""

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
# Parameters that are sums over time by definition, though edition 1 often calls them instantaneous.
SUMS = frozenset(
    re.findall(
        r"\w+",
        "tp cp lsp sf csf lsf e pev ro sro ssro smlt es ssrd strd ssr str tsr ttr ssrc strc tsrc ttrc tisr sshf slhf "
        "ewss nsss lgws mgws gwd bld sund fdir cdir uvb",
    )
)
NAMES = {"unknown_0_1_8": "tp"}  # of WMO's table, though eccodes knows them of some centres only
EXTREME = re.compile(r"(Maximum|Minimum) .*(?:since previous post-processing|in the last (\d* ?)hours?)")
WIND = re.compile(r"\d*[uv]")  # short names of the components of horizontal wind: u, 10v, 100u
MONTHS = range(3, 8)  # units of time longer than a day: months, years, ..., which are no number of seconds
BACKWARDS = "covers, as its file says, an interval that ends before it starts: take that as unknown"


Places = dict[Span, dict[int | None, list[Field]]]  # the fields of one kind, by their spans and members


class Meaning(NamedTuple):
    """What a message's header says, but for its reference time. All messages of one series have the same `kind`."""

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


# Headers and grids recur from message to message and from file to file; decoding one takes a millisecond and more.
_MEANINGS: dict[bytes, Meaning] = {}
_GRIDS: dict[str, tuple[Grid, Layout, tuple[str, ...]]] = {}
MANY = 100_000  # headers: as many are remembered


@dataclass(frozen=True)
class Reader:
    """Fetches the fields of one series: ([member,] y, x) float32."""

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
            cut = [(one, parts) for one, parts in fields(data) if one.number == field.number]
            with _opened(message(data, *cut[0])) as handle:
                eccodes.codes_set(handle, "missingValue", np.nan)
                values = eccodes.codes_get_values(handle)
            return self.layout(values.astype(np.float32))
        except Exception as error:
            where = f"{self.file}: the message at byte {field.offset}"
            raise OSError(f"{where} cannot be read ({first_line(error)}): is the file whole?") from error


def sniff(path: str, start: bytes) -> bool:
    return b"GRIB" in start


def open_file(file: File, crs: Any = None) -> list[Series]:
    """The series of one file. Raises UserError: cut short, grids without rows and columns, intervals in months."""
    if crs is not None:
        raise UserError(f"{file.name}: is a GRIB file, which says its own projection: take crs out of the recipe")
    places: dict[Kind, Places] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    rounding: dict[Kind, float] = defaultdict(float)
    timeless: set[Kind] = set()
    with Path(file.path).open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            for field, parts in fields(data):
                meaning, init = _meaning(data, field, parts, file.name), reference_time(data, field, parts)
                if init is None:
                    timeless.add(meaning.kind)
                places[meaning.kind][Span(init or 0, meaning.start, meaning.end)][meaning.member].append(field)
                rounding[meaning.kind] = max(rounding[meaning.kind], precision(data, field, parts))
        except ValueError as error:
            raise UserError(f"{file.name}: cannot be read ({error}): is the file whole?") from None
    return [one for k, spans in places.items() for one in _series(file, k, spans, rounding[k], k in timeless)]


def _series(file: File, kind: Kind, spans: Places, rounding: float, timeless: bool) -> Iterator[Series]:
    """The series of one kind: one for each set of members that its frames hold, and others for what stands twice."""
    keys: dict[tuple[int, tuple[int, ...] | None], dict[Span, tuple[Field, ...]]] = defaultdict(dict)
    for span, members in spans.items():
        for copy in range(max(map(len, members.values()))):
            there = {member: found[copy] for member, found in members.items() if copy < len(found)}
            numbers = tuple(sorted(member for member in there if member is not None))
            if None in there:
                keys[copy, None][span] = (there[None],)
            if numbers:
                keys[copy, numbers][span] = tuple(there[member] for member in numbers)
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


def _meaning(data: Any, field: Field, parts: Parts, file: str) -> Meaning:
    known = header(data, field, parts)
    if known not in _MEANINGS:
        if len(_MEANINGS) >= MANY:
            _MEANINGS.clear()
        with _opened(message(data, field, parts, with_values=False)) as handle:
            name = _name(handle)[0]
            try:
                grid = _known_grid(handle, data, field, parts)
                _MEANINGS[known] = _decoded(handle, grid)
            except UserError as error:
                raise UserError(f"{file}: {name}, the message at byte {field.offset}: {error}") from None
    return _MEANINGS[known]


def _known_grid(handle: Any, data: Any, field: Field, parts: Parts) -> str:
    """The key in _GRIDS of a message's grid."""
    key = f"{_get(handle, 'md5GridSection', '')} {_get(handle, 'centre', '')}"
    if key not in _GRIDS:
        with _opened(message(data, field, parts)) as whole:
            _GRIDS[key] = grid_of(whole)
    return key


def _decoded(handle: Any, grid: str) -> Meaning:
    """What eccodes says of a header."""
    name, attributes, notes = _name(handle)
    statistic, start, end = _interval(handle, attributes["long_name"])
    if start is not None and start > end:
        start, notes = None, (*notes, BACKWARDS)
    if _GRIDS[grid][0].mapping is not None and _get(handle, "uvRelativeToGrid", 0):
        along = _along_grid(_get(handle, "shortName", ""), attributes["standard_name"])
        if along:
            attributes["standard_name"] = along
            notes = (*notes, names.ALONG_GRID)
    kind = Kind(name, tuple(attributes.items()), statistic, _level(handle), _labels(handle), grid, notes)
    return Meaning(kind, start, end, _member(handle))


def _name(handle: Any) -> tuple[str, dict[str, str], tuple[str, ...]]:
    """A field's name, attributes as Series has them, and notes."""
    said = {key: _get(handle, key, "unknown") for key in ("cfVarName", "shortName", "units", "name", "cfName")}
    said = {key: "" if value in ("unknown", "~") else value for key, value in said.items()}
    name, units, long_name = said["cfVarName"] or said["shortName"], said["units"], said["name"]
    notes: tuple[str, ...] = ()
    if not name:
        numbers: tuple[str, ...] = ("table2Version", "indicatorOfParameter")
        if _get(handle, "edition", 0) == 2:
            numbers = ("discipline", "parameterCategory", "parameterNumber")
        name = "_".join(["unknown", *(str(_get(handle, number, 0)) for number in numbers)])
        if name not in NAMES:
            notes = ("is a parameter that eccodes has no name for: say its units and standard_name in a recipe",)
        told = {key: _get(handle, key, "") for key in ("parameterName", "parameterUnits")}
        if not told["parameterName"].isdigit():  # else only its number, from a table that is not known
            long_name, units = told["parameterName"], told["parameterUnits"]
    return NAMES.get(name, name), {"units": units, "standard_name": said["cfName"], "long_name": long_name}, notes


def _along_grid(short_name: str, standard_name: str) -> str:
    """The standard name of a wind component that is along the grid's axes; "" for all else."""
    if WIND.fullmatch(short_name):
        return "x_wind" if short_name[-1] == "u" else "y_wind"
    names = {"eastward_wind": "x_wind", "northward_wind": "y_wind"}
    return names.get(standard_name, "")


def _interval(handle: Any, long_name: str) -> tuple[str, int | None, int]:
    """A field's statistic, and where its interval starts (None: not told) and ends, in seconds after the reference."""
    import eccodes

    step_type, short_name = _get(handle, "stepType", ""), _get(handle, "shortName", "")
    for unit in ("indicatorOfUnitOfTimeRange", "indicatorOfUnitForTimeRange"):
        if _get(handle, unit, 1) in MONTHS:
            raise UserError("tells its time in months or years, which are no fixed number of hours")
    eccodes.codes_set(handle, "stepUnits", "s")
    start, end = (eccodes.codes_get_long(handle, key) for key in ("startStep", "endStep"))
    # Edition 1 can say that a value is of an interval without saying whether it is its sum, mean or extreme.
    open_question = _get(handle, "edition", 0) == 1 and _get(handle, "timeRangeIndicator", 0) == 2
    statistic = "" if open_question else STATISTICS.get(step_type, "")
    extreme = EXTREME.match(long_name)
    if extreme:
        statistic = extreme[1].lower()
        if start == end and extreme[2] is not None:
            start = end - 3600 * int(extreme[2] or 1)
    elif open_question or step_type == "instant":
        if short_name in SUMS:
            statistic = "sum"
        elif not short_name or short_name == "unknown":
            statistic = ""  # centres' own sums, such as MRMS's of an hour, are often written as if of an instant
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
    """What else tells fields of one name apart, under the names of GRIB's keys."""
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
    """A key's value in the type of `default`, which stands for a key that the message does not have."""
    import eccodes

    try:
        return eccodes.codes_get(handle, key, type(default))
    except eccodes.KeyValueNotFoundError:
        return default


@contextmanager
def _opened(data: bytes) -> Iterator[Any]:
    """The eccodes handle of a message, released afterwards."""
    import eccodes

    handle = eccodes.codes_new_from_message(data)
    try:
        yield handle
    finally:
        eccodes.codes_release(handle)
