"""An archive: files of any format as frames of some variables on one grid, each read when it is asked for."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dsr.data import names
from dsr.data.calendar import when
from dsr.data.choice import Choice, by_name, choose
from dsr.data.decoding import Held, series_of
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
    """What has frames, sorted by initial time, then lead."""

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
    """Frames of one set of variables on one grid; nothing but coordinates is read until `read`. Picklable.

    `frames` holds those where every variable is there. `dropped` says which others there were ({reason: [frame, ...]}),
    `counts` how many values were mended ({(variable, what): n}), and `notes` what a human must judge.
    """

    def __init__(self, name: str, files: list[str], quantities: list[Quantity], rotate_winds: bool = False):
        self.name, self.files, self.quantities = name, files, quantities
        first = quantities[0].series[0]
        self.grid: Grid = first.grid
        self.calendar = first.calendar
        for quantity in quantities:
            for one in quantity.series:
                if not one.grid.same(self.grid):
                    raise UserError(
                        f"{name}: {quantity.name} lies on another grid ({one.file}: {one.grid.describe()}) than "
                        f"{quantities[0].name} ({self.grid.describe()}); choose variables of one grid"
                    )
                if one.calendar != self.calendar:
                    raise UserError(f"{name}: {one.file} has calendar {one.calendar}, {first.file} {self.calendar}")
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
        self.frames = self._whole_frames()
        if not self.frames:
            reasons = "; ".join(f"{reason} ({len(frames)})" for reason, frames in self.dropped.items())
            raise UserError(f"{name}: at no time are all of {', '.join(q.name for q in quantities)} there: {reasons}")

    @property
    def variables(self) -> list[Variable]:
        variables = [quantity.variable for quantity in self.quantities]
        return self.rotation.described(variables) if self.rotation else variables

    def interval(self, name: str, frame: Frame) -> tuple[int, int] | None:
        """The leads between which a sum, mean or extreme holds, in seconds; None for instants and where nobody says."""
        quantity = next(q for q in self.quantities if q.name == name)
        made = quantity.made[frame]
        return None if made.start is None or made.start == made.end else (made.start, made.end)

    def file(self, index: int) -> str:
        """The name of the file in which a frame's first variable stands."""
        span, _ = self.quantities[0].made[self.frames[index]].terms[0]
        return self.quantities[0].table[span][0].file

    def read(self, index: int) -> np.ndarray:
        """([member,] variable, y, x) float32 of one frame, in the variables' units, NaN where missing.

        Raises OSError where a file cannot be read, UserError where a value is physically impossible.
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
        """From now on refuse impossible values only in these rows and columns, the others not being used."""
        for quantity in self.quantities:
            quantity.window = window

    def convert(self, name: str, units: str) -> None:
        """Give the variable `name` in other units from now on. Raises UserError where that cannot be."""
        next(q for q in self.quantities if q.name == name).convert(units, self.name)

    def _whole_frames(self) -> list[Frame]:
        whole = []
        for frame in sorted({frame for quantity in self.quantities for frame in quantity.made}):
            reason = next(filter(None, (q.lack(frame) for q in self.quantities)), None)
            if reason is None:
                whole.append(frame)
            else:
                self.dropped[reason].append(frame)
        return whole


def open_archive(
    patterns: Sequence[str],
    variables: dict[str, Choice] | None = None,
    *,
    members: Sequence[int | str] | None = None,
    root: Path | None = None,
    static: bool = False,
    own_names: bool = False,
    offset_hours: float = 0.0,
    crs: Any = None,
    rotate_winds: bool = False,
) -> Archive:
    """Open every file that the `patterns` (paths, globs, URLs; relative ones to `root`) name, as one Archive.

    `variables` names and chooses them ({name: Choice}); None takes every one that has time, rows and columns, but for
    directions. `static` takes the first frame of each variable and asks for no time. With `own_names` a variable may
    also stand under its own name, where its source is not there. `offset_hours` is added to every time, `crs` is the
    projection where the files lack it, and `rotate_winds` turns grid-relative winds to east and north.
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
        own_names=own_names,
        offset_hours=offset_hours,
        rotate_winds=rotate_winds,
    )


def open_dataset(
    dataset: Any, variables: dict[str, Choice] | None = None, *, crs: Any = None, **options: Any
) -> Archive:
    """An xarray Dataset, lazy or not, as an Archive; the arguments and errors are those of `open_archive`."""
    name = "the dataset"
    return _archive(name, [name], series_of(Held.of(dataset, name), name, crs=crs), variables, **options)


def _archive(
    name: str,
    files: list[str],
    series: list[Series],
    variables: dict[str, Choice] | None,
    *,
    members: Sequence[int | str] | None = None,
    static: bool = False,
    own_names: bool = False,
    offset_hours: float = 0.0,
    rotate_winds: bool = False,
) -> Archive:
    if not series:
        raise UserError(
            f"{name}: holds no variable with rows and columns (latitude and longitude, or projected y and x)"
        )
    series = [_shifted(one, offset_hours, static) for one in _on_shared_grids(series)]
    if not static and all(one.timeless for one in series):
        raise UserError(f"{series[0].file}: {series[0].name}: has no time coordinate")
    if members is not None:
        series = [kept for one in series if (kept := _only(one, members)) is not None]
        if not series:
            raise UserError(f"{name}: has none of the members {list(members)}")
    chosen = _chosen(series, variables, name, own_names, static)
    if not static:
        chosen = _as_analyses(chosen)
    quantities = [
        Quantity(key, several, (variables or {}).get(key, Choice()), static) for key, several in chosen.items()
    ]
    archive = Archive(name, files, quantities, rotate_winds)
    if variables is None:
        archive.notes += [
            f"{name}: {key} is a direction, and left out: take the wind's components"
            for key, several in by_name(series).items()
            if key not in chosen and any(map(_is_direction, several))
        ]
    return archive


def _chosen(
    series: list[Series], variables: dict[str, Choice] | None, name: str, own_names: bool, static: bool
) -> dict[str, list[Series]]:
    if variables is None:
        named = by_name(series)
        timed = {key: several for key, several in named.items() if static or not all(one.timeless for one in several)}
        return {k: v for k, v in timed.items() if not any(map(_is_direction, v))} or timed
    chosen = {key: choose(series, key, choice, name, own_names) for key, choice in variables.items()}
    for key, several in chosen.items():
        if any(map(_is_direction, several)):
            raise UserError(
                f"{name}: {key} is a direction, whose mean over a cell means nothing: take the wind's components "
                "(such as u10 and v10) instead"
            )
    return chosen


def _as_analyses(chosen: dict[str, list[Series]]) -> dict[str, list[Series]]:
    """Analyses beside short forecasts, as a reanalysis has them, all by valid time, if each time stands once."""
    frames = {key: {span.frame for one in several for span in one.keys} for key, several in chosen.items()}
    times = {key: {sum(frame) for frame in found} for key, found in frames.items()}
    once = all(len(times[key]) == len(frames[key]) for key in chosen)
    if not once or set.intersection(*frames.values()) or not set.intersection(*times.values()):
        return chosen
    return {
        key: [replace(one, keys={_analysed(span): place for span, place in one.keys.items()}) for one in several]
        for key, several in chosen.items()
    }


def _analysed(span: Span) -> Span:
    """The same interval, counted from the frame's own time."""
    init, lead = span.frame
    start = None if span.start is None else span.start - lead
    return Span(init + lead, start, span.end - lead, None if span.lead is None else 0)


def _is_direction(series: Series) -> bool:
    told = series.attributes
    standard = names.standard_name(told.get("standard_name", ""), series.short_name, told.get("units", ""))
    return names.direction(series.name, standard, told.get("long_name", ""))


def _on_shared_grids(series: list[Series]) -> list[Series]:
    """One grid object for all series of the same grid, so that positions are computed once."""
    grids: list[Grid] = []
    result = []
    for one in series:
        grid = next((grid for grid in grids if grid is one.grid or grid.same(one.grid)), None)
        if grid is None:
            grids.append(one.grid)
        result.append(one if grid is None or grid is one.grid else replace(one, grid=grid))
    return result


def _shifted(series: Series, hours: float, static: bool) -> Series:
    seconds = round(hours * 3600)
    if not seconds or static:
        return series
    return replace(series, keys={span._replace(init=span.init + seconds): key for span, key in series.keys.items()})


def _only(series: Series, members: Sequence[int | str]) -> Series | None:
    """The series cut to some members; None where it has none of them."""
    if series.members is None:
        return series
    keep = tuple(i for i, number in enumerate(series.members) if number in members)
    return replace(series, members=tuple(series.members[i] for i in keep), kept=keep) if keep else None


def _common_members(quantities: list[Quantity]) -> list[int | str] | None:
    """The members of most frames; None where there is at most one."""
    sets: Counter[frozenset[int | str]] = Counter()
    for quantity in quantities:
        for several in quantity.table.values():
            sets[frozenset(number for one in several for number in one.members or ())] += 1
    members = max(sets, key=lambda numbers: (len(numbers) > 1, sets[numbers], len(numbers)))
    if len(members) < 2:
        return None
    order = [n for q in quantities for one in q.series for n in one.members or () if n in members]
    return sorted(members) if all(isinstance(n, int) for n in members) else list(dict.fromkeys(order))  # type: ignore[type-var]


def static_fields(archive: Archive, grid: Grid) -> dict[str, np.ndarray]:
    """{name: (y, x) float32}: the fields of a static archive on `grid` (bilinear; exact where its points coincide)."""
    index = grid.index_on(archive.grid)
    if not archive.grid.covers(index).all():
        raise UserError(f"{archive.name}: covers {archive.grid.extent()}, not all of {grid.extent()}")
    onto = Interpolation(index, archive.grid.shape, "bilinear")
    return dict(zip((v.name for v in archive.variables), onto(archive.read(0)), strict=True))
