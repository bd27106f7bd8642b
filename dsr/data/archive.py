"""An archive: files of any format as frames of some variables on one grid, read on demand."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dsr.data import names
from dsr.data.calendar import when
from dsr.data.choice import Choice, by_name, choose
from dsr.data.decoding import InMemory, series_of
from dsr.data.files import find
from dsr.data.grid import Grid
from dsr.data.interpolate import Interpolation
from dsr.data.limits import Window
from dsr.data.openers import open_files
from dsr.data.quantity import Quantity
from dsr.data.series import Frame, Series, Span
from dsr.data.store import Variable
from dsr.data.winds import Rotation, rotation
from dsr.errors import UserError


class Framed:
    """Something with frames, sorted by initial time, then lead time."""

    frames: list[Frame]

    @property
    def init_time(self) -> np.ndarray:
        """(frame) int64, seconds since 1970-01-01 of the calendar."""
        return np.array([init for init, _ in self.frames], np.int64)

    @property
    def lead_time(self) -> np.ndarray:
        """(frame) int64, seconds; 0 for analyses and observations."""
        return np.array([lead for _, lead in self.frames], np.int64)


class Archive(Framed):
    """Frames of one set of variables on one grid; only coordinates are read before `read`. Picklable.

    `frames` lists the complete ones. `dropped` gives the others ({reason: [frame, ...]}), `counts` how many values were
    corrected ({(variable, what): n}), and `notes` what the user should check.
    """

    def __init__(self, name: str, files: list[str], quantities: list[Quantity], rotate_winds: bool = False):
        self.name, self.files, self.quantities = name, files, quantities
        first = quantities[0].series[0]
        self.grid: Grid = first.grid
        self.calendar = first.calendar
        for quantity in quantities:
            for s in quantity.series:
                if not s.grid.same(self.grid):
                    raise UserError(
                        f"{name}: {quantity.name} is on a different grid ({s.file}: {s.grid.describe()}) than "
                        f"{quantities[0].name} ({self.grid.describe()}); choose variables on one grid"
                    )
                if s.calendar != self.calendar:
                    raise UserError(f"{name}: {s.file} has calendar {s.calendar}, {first.file} {self.calendar}")
        self.counts: Counter[tuple[str, str]] = Counter()
        self.dropped: dict[str, list[Frame]] = defaultdict(list)
        self.notes = list(dict.fromkeys(f"{name}: {note}" for quantity in quantities for note in quantity.notes))
        self.members = _common_members(quantities)
        for quantity in quantities:
            quantity.members = self.members
            for reason, frames in quantity.dropped.items():
                self.dropped[reason] += frames
        self.rotation: Rotation | None = None
        if rotate_winds:
            self.rotation = rotation(self.variables, self.grid, name)
            self.notes = [note for note in self.notes if names.ALONG_GRID not in note]
        self.frames = self._complete_frames()
        if not self.frames:
            reasons = "; ".join(f"{reason} ({len(frames)})" for reason, frames in self.dropped.items())
            raise UserError(f"{name}: no time has all of {', '.join(q.name for q in quantities)}: {reasons}")

    @property
    def variables(self) -> list[Variable]:
        variables = [quantity.variable for quantity in self.quantities]
        return self.rotation.described(variables) if self.rotation else variables

    def interval(self, name: str, frame: Frame) -> tuple[int, int] | None:
        """The lead times in seconds between which a sum, mean or extreme is taken; None for instants or if unknown."""
        quantity = next(q for q in self.quantities if q.name == name)
        value = quantity.combinations[frame]
        return None if value.start is None or value.start == value.end else (value.start, value.end)

    def file(self, index: int) -> str:
        """The name of the file that holds a frame's first variable."""
        span, _ = self.quantities[0].combinations[self.frames[index]].terms[0]
        return self.quantities[0].table[span][0].file

    def read(self, index: int) -> np.ndarray:
        """([member,] variable, y, x) float32 of one frame, in the variables' units, NaN where missing.

        Raises OSError if a file cannot be read, UserError if a value is physically impossible.
        """
        frame = self.frames[index]
        where = f"{self.name}: {{}} at {when(frame, self.calendar)}"
        try:
            fields = [q.read(frame, self.counts, where.format(q.name)) for q in self.quantities]
        except OSError as error:
            raise OSError(f"{error} (at {when(frame, self.calendar)})") from error
        stacked = np.stack(fields, axis=-3)
        return self.rotation(stacked) if self.rotation else stacked

    def judge(self, window: Window) -> None:
        """From now on, reject impossible values only in these rows and columns, since no others are used."""
        for quantity in self.quantities:
            quantity.window = window

    def convert(self, name: str, units: str) -> None:
        """From now on, give the variable `name` in other units. Raises UserError if it cannot be converted."""
        next(q for q in self.quantities if q.name == name).convert(units, self.name)

    def _complete_frames(self) -> list[Frame]:
        complete = []
        for frame in sorted({frame for quantity in self.quantities for frame in quantity.combinations}):
            reason = next(filter(None, (q.reason_incomplete(frame) for q in self.quantities)), None)
            if reason is None:
                complete.append(frame)
            else:
                self.dropped[reason].append(frame)
        return complete


def open_archive(
    patterns: Sequence[str],
    variables: dict[str, Choice] | None = None,
    *,
    members: Sequence[int | str] | None = None,
    root: Path | None = None,
    static: bool = False,
    accept_key_as_name: bool = False,
    offset_hours: float = 0.0,
    crs: Any = None,
    rotate_winds: bool = False,
) -> Archive:
    """Open every file that `patterns` (paths, globs, URLs; relative to `root`) match, as one Archive.

    `variables` names and chooses variables ({name: Choice}); None takes every one with time, rows and columns, except
    directions. `static` takes the first frame of each variable and needs no time. With `accept_key_as_name`, a variable
    whose source is absent may also be stored under its key. `offset_hours` is added to every time, `crs` is the
    projection if the files lack it, and `rotate_winds` rotates grid-relative winds to east and north.
    Raises UserError: no such file, unreadable, a missing variable, no time, different grids, unknown intervals.
    """
    files = find(patterns, root)
    name = patterns[0] if len(patterns) == 1 else f"{patterns[0]} and {len(patterns) - 1} more"
    return _archive(
        name,
        [file.name for file in files],
        open_files(files, crs),
        variables,
        members=members,
        static=static,
        accept_key_as_name=accept_key_as_name,
        offset_hours=offset_hours,
        rotate_winds=rotate_winds,
    )


def open_dataset(
    dataset: Any, variables: dict[str, Choice] | None = None, *, crs: Any = None, **options: Any
) -> Archive:
    """An xarray Dataset, lazy or not, as an Archive; the arguments and errors are those of `open_archive`."""
    name = "the dataset"
    return _archive(name, [name], series_of(InMemory.of(dataset, name), name, crs=crs), variables, **options)


def _archive(
    name: str,
    files: list[str],
    series: list[Series],
    variables: dict[str, Choice] | None,
    *,
    members: Sequence[int | str] | None = None,
    static: bool = False,
    accept_key_as_name: bool = False,
    offset_hours: float = 0.0,
    rotate_winds: bool = False,
) -> Archive:
    if not series:
        raise UserError(
            f"{name}: holds no variable with rows and columns (latitude and longitude, or projected y and x)"
        )
    series = [_with_offset(s, offset_hours, static) for s in _on_shared_grids(series)]
    if not static and all(s.timeless for s in series):
        raise UserError(f"{series[0].file}: {series[0].name}: has no time coordinate")
    if members is not None:
        series = [kept for s in series if (kept := _with_members(s, members)) is not None]
        if not series:
            raise UserError(f"{name}: has none of the members {list(members)}")
    chosen = _chosen(series, variables, name, accept_key_as_name, static)
    if not static:
        chosen = _as_analyses(chosen)
    quantities = [Quantity(key, group, (variables or {}).get(key, Choice()), static) for key, group in chosen.items()]
    archive = Archive(name, files, quantities, rotate_winds)
    if variables is None:
        archive.notes += [
            f"{name}: {key} is a direction and was left out: use the wind components"
            for key, group in by_name(series).items()
            if key not in chosen and any(map(_is_direction, group))
        ]
    return archive


def _chosen(
    series: list[Series], variables: dict[str, Choice] | None, name: str, accept_key_as_name: bool, static: bool
) -> dict[str, list[Series]]:
    if variables is None:
        named = by_name(series)
        timed = {key: group for key, group in named.items() if static or not all(s.timeless for s in group)}
        return {k: v for k, v in timed.items() if not any(map(_is_direction, v))} or timed
    chosen = {key: choose(series, key, choice, name, accept_key_as_name) for key, choice in variables.items()}
    for key, group in chosen.items():
        if any(map(_is_direction, group)):
            raise UserError(
                f"{name}: {key} is a direction, and the mean of directions is meaningless: use the wind components "
                "(such as u10 and v10) instead"
            )
    return chosen


def _as_analyses(chosen: dict[str, list[Series]]) -> dict[str, list[Series]]:
    """Analyses and short forecasts, as in a reanalysis, all by valid time, if each time occurs once."""
    frames = {key: {span.frame for s in group for span in s.keys} for key, group in chosen.items()}
    times = {key: {sum(frame) for frame in of_key} for key, of_key in frames.items()}
    once = all(len(times[key]) == len(frames[key]) for key in chosen)
    if not once or set.intersection(*frames.values()) or not set.intersection(*times.values()):
        return chosen
    return {
        key: [replace(s, keys={_as_analysis(span): place for span, place in s.keys.items()}) for s in group]
        for key, group in chosen.items()
    }


def _as_analysis(span: Span) -> Span:
    """The same interval, relative to the valid time of the frame."""
    init, lead = span.frame
    start = None if span.start is None else span.start - lead
    return Span(init + lead, start, span.end - lead, None if span.lead is None else 0)


def _is_direction(series: Series) -> bool:
    attributes = series.attributes
    standard = names.standard_name(attributes.get("standard_name", ""), series.short_name, attributes.get("units", ""))
    return names.direction(series.name, standard, attributes.get("long_name", ""))


def _on_shared_grids(series: list[Series]) -> list[Series]:
    """The series with one grid object per distinct grid, so that positions are computed once."""
    grids: list[Grid] = []
    result = []
    for s in series:
        grid = next((grid for grid in grids if grid is s.grid or grid.same(s.grid)), None)
        if grid is None:
            grids.append(s.grid)
        result.append(s if grid is None or grid is s.grid else replace(s, grid=grid))
    return result


def _with_offset(series: Series, hours: float, static: bool) -> Series:
    seconds = round(hours * 3600)
    if not seconds or static:
        return series
    return replace(series, keys={span._replace(init=span.init + seconds): key for span, key in series.keys.items()})


def _with_members(series: Series, members: Sequence[int | str]) -> Series | None:
    """The series restricted to some members; None if it has none of them."""
    if series.members is None:
        return series
    keep = tuple(i for i, number in enumerate(series.members) if number in members)
    return replace(series, members=tuple(series.members[i] for i in keep), kept=keep) if keep else None


def _common_members(quantities: list[Quantity]) -> list[int | str] | None:
    """The members that most frames have; None if there is at most one."""
    sets: Counter[frozenset[int | str]] = Counter()
    for quantity in quantities:
        for group in quantity.table.values():
            sets[frozenset(number for s in group for number in s.members or ())] += 1
    members = max(sets, key=lambda numbers: (len(numbers) > 1, sets[numbers], len(numbers)))
    if len(members) < 2:
        return None
    order = [n for q in quantities for s in q.series for n in s.members or () if n in members]
    return sorted(members) if all(isinstance(n, int) for n in members) else list(dict.fromkeys(order))  # type: ignore[type-var]


def static_fields(archive: Archive, grid: Grid) -> dict[str, np.ndarray]:
    """{name: (y, x) float32}: the fields of a static archive on `grid` (bilinear; exact where its points coincide)."""
    index = grid.index_on(archive.grid)
    if not archive.grid.covers(index).all():
        raise UserError(f"{archive.name}: covers {archive.grid.extent()}, not all of {grid.extent()}")
    onto = Interpolation(index, archive.grid.shape, "bilinear")
    return dict(zip((v.name for v in archive.variables), onto(archive.read(0)), strict=True))
