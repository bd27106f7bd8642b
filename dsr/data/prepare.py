"""Make a store from archives: pair or coarsen, split, and read and write every field once."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from dsr.data import registration
from dsr.data.append import Appender, grow
from dsr.data.archive import Archive, open_archive, static_fields
from dsr.data.calendar import when
from dsr.data.coarsening import Coarsening
from dsr.data.filling import Plan, fill, identity
from dsr.data.grid import Grid, Index, block_mean
from dsr.data.joined import Joined
from dsr.data.limits import Window
from dsr.data.pairing import AnyArchive, doubts, intervals, pair, shared
from dsr.data.recipe import ByRegion, Files, Recipe, load
from dsr.data.registration import MIN_SAMPLES
from dsr.data.split import by_dates, by_region, by_time
from dsr.data.store import SPLITS, Layout, Store
from dsr.data.writer import Writer
from dsr.errors import Missing, UserError
from dsr.urls import cleaned

SAMPLE = 12, 60  # pairs that are inspected before anything is written: for large fields, and for small ones
SAMPLE_VALUES = 2**25  # values in the inspected fields, about


def prepare(recipe: Recipe, output: Path | None, dry_run: bool = False, append: bool = False) -> str:
    """Write the store that a recipe describes to `output`; return a summary of it and of what was left out.

    Fields are read and written one by one, so the archive may be larger than memory. With `dry_run`, nothing is written
    and only a few fields are read. With `append`, runs that the existing store lacks, all later than its last one, are
    added; its samples keep their splits and its statistics do not change.

    Raises UserError for errors in the recipe, its files or the output path; OSError if reading or writing fails later.
    Afterwards `output` is either complete or unchanged.
    """
    if dry_run:
        return _summary(_plan(recipe))
    if output is None:
        raise UserError("give the store to write (-o STORE), or --dry-run")
    if append:
        return _append(recipe, output)
    if output.exists():
        raise UserError(f"{output} exists already: give another output path, --append to add later runs, or remove it")
    plan = _plan(recipe)
    with Writer(output, plan.layout, plan=identity(plan)) as writer:
        fill(plan, writer)
    return _summary(plan)


def _append(recipe: Recipe, output: Path) -> str:
    store = Store(output)
    plan = _plan(recipe, by_dates)
    growth = grow(store, plan.layout)
    first = len(store.time), len(store.high_index)
    extended = replace(
        plan,
        layout=growth.layout,
        high_frames=np.concatenate([np.zeros(first[0], np.int64), plan.high_frames[growth.high]]),
        low_frames=np.concatenate([np.zeros(first[1], np.int64), plan.low_frames[growth.low]]),
    )
    with Appender(store, growth, plan=identity(extended)) as writer:
        fill(extended, writer, first)
    added = growth.layout.splits["appended"][-1]
    counts = ", ".join(f"{name} {added[name]}" for name in SPLITS)
    return f"{_summary(extended)}\nadded  {len(growth.low)} samples, {added['first']} to {added['last']}: {counts}"


def prepare_from_options(
    recipe: Path | str | None = None,
    *,
    output: Path | str | None = None,
    dry_run: bool = False,
    append: bool = False,
    high: Sequence[str] = (),
    low: Sequence[str] = (),
    static: Sequence[str] = (),
    factor: int | None = None,
    gap: float | None = None,
    pairing: str | None = None,
    split: str | None = None,
    root: Path | str | None = None,
) -> str:
    """`prepare` with the path of a recipe, or with options instead; the arguments are those of `dsr data prepare`.

    `gap` is in hours. Returns a summary of the store; raises as `prepare` does.

    >>> import numpy as np, xarray as xr
    >>> time = np.arange("2020-01-01", "2020-01-11", dtype="datetime64[D]").astype("datetime64[ns]")
    >>> latitude, longitude = 50 - 0.25 * np.arange(16), 5 + 0.25 * np.arange(16)
    >>> coordinates = {"time": time, "latitude": latitude, "longitude": longitude}
    >>> t2m = xr.DataArray(np.random.normal(280, 5, (10, 16, 16)), coordinates, attrs={"units": "K"})
    >>> t2m.to_dataset(name="t2m").to_netcdf("archive.nc")
    >>> import dsr
    >>> print(dsr.prepare(high=["archive.nc"], factor=4, output="mine.zarr"))
    high   16 x 16 points, 0.25 x 0.25 degrees, 46.25 N .. 50 N, 5 E .. 8.75 E; 10 times
           t2m [K]
    low    4 x 4 points, 1 x 1 degrees, 46.625 N .. 49.625 N, 5.375 E .. 8.375 E; no ensemble
           t2m [K]
    static none
    pairs  10 by coarsen, factor 4
    splits by time: train 7, validation 1, test 2 samples
    """
    output, root = (Path(path) if path else None for path in (output, root))
    if recipe is not None:
        if high or low or static or factor or pairing or split:
            raise UserError(
                f"give either the recipe {recipe} or --high, --low, --static, --factor, --pairing and --split"
            )
        return prepare(load(Path(recipe), root, gap), output, dry_run, append)
    if not high:
        raise UserError("give a recipe, or an archive with --high")
    if split == "region" and gap:
        raise UserError(
            "--gap is in hours, for splits by time; give the gap of a split by region, in high points, in a recipe"
        )
    return prepare(
        Recipe.from_options(high, low, static, factor, gap or 0, pairing, split or "time", root),
        output,
        dry_run,
        append,
    )


def _plan(recipe: Recipe, split_by_time: Callable[..., Any] = by_time) -> Plan:
    """The plan of a recipe; if its files are missing, the error says where the data can be obtained."""
    try:
        return _make_plan(recipe, split_by_time)
    except Missing as error:
        raise error.with_origin(recipe.origin) from None


def _make_plan(recipe: Recipe, split_by_time: Callable[..., Any]) -> Plan:
    high = open_part(recipe.high, recipe.root)
    if high.members is not None:
        raise UserError(
            f'{high.name}: has members {high.members}, but the truth is one: choose it with "members": [n] in a recipe'
        )
    low = _open_low(recipe)
    if low is None and recipe.factor is None:
        raise UserError("give a low archive, or a factor to coarsen the high one by")
    problems: list[str] = []
    if low is not None:
        if low.calendar != high.calendar:
            raise UserError(
                f"the low archive has calendar {low.calendar}, the high one {high.calendar}; convert one of them, "
                "for instance with xarray's convert_calendar"
            )
        units = {variable.name: variable.units for variable in high.variables}
        for name in shared(low, high):
            low.convert(name, units[name])
        problems += doubts(low, high)

    # Grids
    coarsened = low or high
    low_grid = coarsened.grid.coarsened(recipe.factor) if recipe.factor else coarsened.grid
    cells = coarsened.grid.area() if recipe.factor else None
    index = high.grid.index_on(low_grid)
    overlap = _overlap(high, index, low_grid, low.name if low else "high, coarsened")
    high_grid = high.grid.crop(*overlap)
    if high_grid.shape != high.grid.shape:
        was, now = (f"{y} x {x}" for y, x in (high.grid.shape, high_grid.shape))
        problems.append(f"high grid cropped from {was} to {now} points: only those are on the low grid")
        index = high_grid.index_on(low_grid)
    if low is not None:
        low.judge(_window(high_grid.index_on(low.grid) if recipe.factor else index, low.grid))
    factor = recipe.factor or max(1, round(1 / np.median(np.abs(np.diff(index[0], axis=0)))))

    # Pairs
    if low is None:
        pairing, low_frames = "coarsen", np.arange(len(high.frames))
        high_rows = high_frames = low_frames
    else:
        pairing, low_frames, matched = pair(low, high, recipe.pairing)
        high_frames, high_rows = np.unique(matched, return_inverse=True)
    source = low or high
    for archive in [high] if low is None else [high, low]:
        problems += archive.notes
        problems += [
            f"{archive.name}: {len(f)} dropped, first {when(f[0], archive.calendar)}: {why}"
            for why, f in archive.dropped.items()
        ]
    init_time, lead_time = source.init_time[low_frames], source.lead_time[low_frames]

    # Splits
    split, region = np.zeros(len(init_time), np.int8), None
    if isinstance(recipe.splits, ByRegion):
        region, split_record = by_region(recipe.splits, high_grid.shape, factor)
    else:
        split, split_record = split_by_time(recipe.splits, init_time, lead_time, high.calendar)

    # Static fields
    static = open_part(recipe.static, recipe.root, static=True) if recipe.static else None
    fields = static_fields(static, high_grid) if static else {}
    low_static = {}
    if static and cells is not None:
        uncropped = static_fields(static, coarsened.grid)
        low_static = {name: block_mean(uncropped[name], cells, factor) for name in uncropped}

    forecasts = bool(high.lead_time[high_frames].any())
    layout = Layout(
        high_variables=high.variables,
        low_variables=source.variables,
        high_grid=high_grid,
        low_grid=low_grid,
        time=(high.init_time + high.lead_time)[high_frames],
        low_init_time=init_time,
        low_lead_time=lead_time,
        high_index=high_rows,
        split=split,
        low_index=index,
        factor=factor,
        pairing=pairing,
        splits=split_record,
        provenance=cleaned(
            {
                "made_by": "dsr data prepare",
                "made": datetime.now(UTC).isoformat(timespec="seconds"),
                "recipe": recipe.model_dump(mode="json", exclude_defaults=True, exclude={"about", "origin"}),
                "files": sorted({Path(f).name for a in (high, low, static) if a for f in a.files}),
                "citation": recipe.citation,
                "intervals": {part: intervals(a) for part, a in (("high", high), ("low", source))},
                "problems": problems,
            }
        ),
        members=len(low.members) if low and low.members else None,
        region=region,
        init_time=high.init_time[high_frames] if forecasts else None,
        lead_time=high.lead_time[high_frames] if forecasts else None,
        static=fields,
        static_variables=static.variables if static else [],
        low_static=low_static,
        calendar=high.calendar,
    )
    plan = Plan(layout, high, high_frames, overlap, low, low_frames, cells)
    layout.provenance["problems"] += _inspect_sample(plan)
    return plan


def open_part(files: Files, root: Path | None, static: bool = False) -> Archive:
    """The archive that one part of a recipe describes."""
    return open_archive(
        files.files,
        files.variables,
        members=files.members,
        root=root,
        static=static,
        offset_hours=files.offset_hours,
        crs=files.crs,
        rotate_winds=files.rotate_winds,
    )


def _open_low(recipe: Recipe) -> AnyArchive | None:
    if recipe.low is None:
        return None
    if isinstance(recipe.low, Files):
        return open_part(recipe.low, recipe.root)
    return Joined([open_part(files, recipe.root) for files in recipe.low])


def _inspect_sample(plan: Plan) -> list[str]:
    """Read a few pairs before anything is written: impossible values raise UserError, displacements give notes."""
    size = np.prod(plan.high.grid.shape) * len(plan.high.variables)
    count = int(np.clip(SAMPLE_VALUES // size, *SAMPLE))
    rows = np.unique(np.linspace(0, len(plan.layout.high_index) - 1, count).astype(int))
    pairs = []
    for row in rows:
        high = plan.high.read(plan.high_frames[plan.layout.high_index[row]])
        if plan.low is not None:
            low = plan.coarse(plan.low.read(plan.low_frames[row]))
            pairs.append((low if low.ndim == 3 else low.mean(0), high[:, *plan.high_cut]))
    plan.pop_counts()
    return _registration_notes(plan.layout, pairs) if len(pairs) >= MIN_SAMPLES else []


def _registration_notes(layout: Layout, pairs: list[tuple[np.ndarray, np.ndarray]]) -> list[str]:
    """Notes on variables whose low and high fields, pairs of (variable, y, x), are displaced against each other."""
    names = [[v.name for v in variables] for variables in (layout.low_variables, layout.high_variables)]
    in_both = [name for name in names[0] if name in names[1]]
    if not in_both:
        return []
    coarsen = Coarsening(layout.high_grid, layout.low_grid, layout.low_index)
    area, notes = layout.low_grid.area(), []
    for name in in_both:
        i, j = (group.index(name) for group in names)
        low = np.stack([low[i] for low, _ in pairs])
        coarse = np.stack([coarsen(high[j]) for _, high in pairs])
        notes.append(registration.note(name, low, coarse, area))
    return list(filter(None, notes))


def _overlap(high: Archive, index: Index, low_grid: Grid, low_name: str) -> tuple[slice, slice]:
    """The rows and columns of the high grid that are on the low grid. Raises UserError if there are none."""
    inside = low_grid.covers(index)
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    where = f"high ({high.name}) covers {high.grid.extent()}, low ({low_name}) {low_grid.extent()}"
    if len(rows) < 2 or len(columns) < 2:
        raise UserError(f"the grids do not overlap: {where}")
    overlap = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    if not inside[overlap].all():
        raise UserError(f"the grids overlap only partly, and the overlap is not a box of the high grid: {where}")
    return overlap


def _window(index: Index, low: Grid) -> Window:
    """The rows and columns of the low grid from which high points are interpolated; all columns if it is periodic."""
    rows, columns = (slice(max(0, int(i.min()) - 2), int(i.max()) + 4) for i in index)
    return (rows, slice(None)) if low.periodic else (rows, columns)


def _summary(plan: Plan) -> str:
    layout = plan.layout
    counts = {name: int((layout.split == code).sum()) for code, name in enumerate(SPLITS)}
    if layout.region is not None:
        counts = {name: int((layout.region == code).sum()) for code, name in enumerate(SPLITS)}
    unit = "samples" if layout.region is None else "high points"
    lines = [
        f"high   {layout.high_grid.describe()}; {len(layout.time)} times",
        f"       {', '.join(f'{v.name} [{v.units}]' for v in layout.high_variables)}",
        f"low    {layout.low_grid.describe()}; {f'{layout.members} members' if layout.members else 'no ensemble'}",
        f"       {', '.join(f'{v.name} [{v.units}]' for v in layout.low_variables)}",
        f"static {', '.join(v.name for v in layout.static_variables) or 'none'}",
        f"pairs  {len(layout.high_index)} by {layout.pairing}, factor {layout.factor}",
        f"splits by {layout.splits['by']}: {', '.join(f'{name} {count}' for name, count in counts.items())} {unit}",
        *(f"note   {problem}" for problem in layout.provenance["problems"]),
    ]
    return "\n".join(lines)
