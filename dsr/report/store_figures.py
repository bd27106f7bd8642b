"""The figures of a store: where low and high are, and how they match."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from dsr.data import calendar
from dsr.data.grid import Grid
from dsr.data.match import LEVELS, Group, Match
from dsr.data.store import SPLITS, Store, Variable
from dsr.report.figures import COLOURS, dress, empty_figure
from dsr.report.plane import Plane

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOW, HIGH = COLOURS[:2]
SMALL = 9  # points: label size of panels side by side
SPLIT = {"train": COLOURS[0], "validation": COLOURS[2], "test": COLOURS[1], "gap": "#BBBBBB"}


def domains(store: Store, plane: Plane) -> Figure:
    """Both domains on one map, with coastlines."""
    low, high = store.grid("low"), store.grid("high")
    outlines = {"low": plane.outline(low), "high": plane.outline(high)}
    view = _near(plane.view(outlines["high"]), plane.view(*outlines.values()))
    fig = empty_figure(*_sized(view, 3.2, 0.45))
    ax = fig.subplots()
    for name, colour, dash in (("low", LOW, "-"), ("high", HIGH, "--")):
        plane.line(ax, *outlines[name], color=colour, linewidth=2.2, linestyle=dash, label=name, zorder=4)
    plane.dress(ax, view)
    fig.legend(*ax.get_legend_handles_labels(), loc="outside upper left", ncols=2, fontsize=9, frameon=False)
    return fig


def registration(store: Store) -> Figure:
    """A few low cells near the middle, and the high points in them: whether points are in cells or on nodes."""
    rows, columns = store.low_index
    centre = tuple(size // 2 for size in rows.shape)
    row, column = (round(float(i[centre])) for i in (rows, columns))
    near = (np.abs(rows - row) <= 1.51) & (np.abs(columns - column) <= 1.51)
    fig = empty_figure(3.3, 3.3)
    ax = fig.subplots()
    for edge in (-1.5, -0.5, 0.5, 1.5):
        ax.axhline(row + edge, color=LOW, linewidth=1)
        ax.axvline(column + edge, color=LOW, linewidth=1)
    y, x = np.meshgrid(row + np.arange(-1, 2), column + np.arange(-1, 2), indexing="ij")
    ax.plot(x.ravel(), y.ravel(), "o", color=LOW, fillstyle="none", markersize=11, label="low points and cells")
    ax.plot(columns[near], rows[near], ".", color=HIGH, markersize=5, label="high points")
    up = store.grid("low").north_up
    ax.set(xlim=(column - 1.6, column + 1.6), ylim=(row - 1.6, row + 1.6) if up else (row + 1.6, row - 1.6))
    ax.set_xlabel("low column", fontsize=9)
    ax.set_ylabel("low row", fontsize=9)
    ax.set_xticks(column + np.arange(-1, 2))
    ax.set_yticks(row + np.arange(-1, 2))
    ax.tick_params(labelsize=8)
    ax.set_aspect("equal")
    fig.legend(loc="outside upper left", ncols=2, fontsize=8, frameon=False, columnspacing=1)
    return fig


def row(plane: Plane, label: str, panels: list[tuple[str, Grid, np.ndarray]], width: float, **options: Any) -> Figure:
    """Fields side by side on one colour scale, over the domain of the last; each has a title and a grid."""
    view = plane.view(plane.outline(panels[-1][1]))
    flat = view[1] - view[0] > 1.2 * (view[3] - view[2])
    panel_width = (width if flat else width - 0.9) / len(panels)
    fig = empty_figure(width, _sized(view, panel_width, 0)[1] + (1.0 if flat else 0.4))
    axes = np.atleast_1d(fig.subplots(1, len(panels), sharex=True, sharey=True))
    known = np.concatenate([f[np.isfinite(f)] for _, _, f in panels])
    limits = np.quantile(known, [0.002, 0.998]) if len(known) else (0.0, 1.0)
    options = {"vmin": limits[0], "vmax": limits[1], "cmap": "viridis", **options}
    for ax, (title, grid, values) in zip(axes, panels, strict=True):
        ax.set_facecolor("#e8e8e8")
        drawn = plane.field(ax, grid, values, **options)
        plane.dress(ax, view, colour="black")
        ax.set_title(title, fontsize=10)
    placement: dict[str, Any] = {"orientation": "horizontal", "aspect": 45, "shrink": 0.6} if flat else {"aspect": 30}
    bar = fig.colorbar(drawn, ax=axes.tolist(), pad=0.02, **placement)
    bar.set_label(label, fontsize=9)
    bar.ax.tick_params(labelsize=8)
    return fig


def matching(variable: Variable, m: Match) -> Figure:
    """Displacement, lag, quantiles, bias by hour and by lead time: a panel for each that is available."""
    panels: list[Callable[[Any], None]] = []
    if np.isfinite(m.shifts).any():
        panels.append(partial(_shifts, m=m))
    if m.lags:
        panels.append(partial(_lags, m=m))
    panels.append(partial(_quantiles, variable=variable, m=m))
    for groups, name in ((m.by_hour, "hour of day (UTC)"), (m.by_lead, "lead time (h)")):
        if groups:
            panels.append(partial(_bias, groups=groups, name=name, units=variable.units))
    fig = empty_figure(11.1, 2.75)
    axes = np.atleast_1d(fig.subplots(1, max(len(panels), 3)))
    for ax, draw in zip(axes, panels, strict=False):
        draw(ax)
    for ax in axes[len(panels) :]:
        ax.set_visible(False)
    return fig


def _shifts(ax: Any, m: Match) -> None:
    reach = len(m.shifts) // 2
    edge = reach + 0.5
    drawn = ax.imshow(m.shifts, origin="lower", extent=(-edge, edge, -edge, edge), cmap="cividis", aspect="auto")
    middle = np.mean(drawn.get_clim())
    for (row, column), value in np.ndenumerate(m.shifts):
        if np.isfinite(value):
            ax.text(column - reach, row - reach, f"{value:.2f}".replace("0.", "."), ha="center", va="center",
                    fontsize=8, color="white" if value < middle else "black")  # fmt: skip
    if m.displacement is not None:
        ax.plot(m.displacement[1], m.displacement[0], "+", color=HIGH, markersize=16, markeredgewidth=2.5)
    ax.set_xticks(range(-reach, reach + 1))
    ax.set_yticks(range(-reach, reach + 1))
    dress(ax, "shift of low (columns)", "shift of low (rows)", "correlation by shift", SMALL)
    ax.grid(False)


def _lags(ax: Any, m: Match) -> None:
    hours, values = list(m.lags), [np.nanmean(by_pair) for by_pair in m.lags.values()]
    ax.plot(hours, values, "-o", color=LOW, markersize=4, linewidth=1.4)
    ax.plot(m.lag_hours, max(values), "+", color=HIGH, markersize=16, markeredgewidth=2.5)
    ax.axvline(0, color="#777777", linewidth=1, linestyle="--")
    dress(ax, "delay of low (h)", "correlation", "correlation by lag", SMALL)


def _quantiles(ax: Any, variable: Variable, m: Match) -> None:
    low, coarse = m.quantiles
    ends = min(low[0], coarse[0]), max(low[-1], coarse[-1])
    ax.plot(ends, ends, color="#777777", linewidth=1, linestyle="--")
    ax.plot(coarse, low, "o", color=LOW, markersize=4)
    last = np.inf
    for level in (0.99, 0.5, 0.01):
        k = int(np.argmin(np.abs(LEVELS - level)))
        if last - low[k] > 0.1 * (ends[1] - ends[0]):
            ax.plot(coarse[k], low[k], "o", color=HIGH, markersize=5)
            placement = {"xytext": (6, -9), "textcoords": "offset points", "fontsize": 8}
            ax.annotate(f"{100 * level:g} %", (coarse[k], low[k]), **placement)
            last = low[k]
    plain = 1e-3 < np.abs(ends).max() < 1e6
    ax.ticklabel_format(useOffset=False, style="plain" if plain else "sci", scilimits=None if plain else (0, 0))
    dress(ax, f"coarsened high ({variable.units})", f"low ({variable.units})", "quantiles", SMALL)


def _bias(ax: Any, groups: list[Group], name: str, units: str) -> None:
    hours, bias = [g.hours for g in groups], np.array([g.bias for g in groups])
    spread = 2 * np.nan_to_num([g.error for g in groups])
    ax.fill_between(hours, bias - spread, bias + spread, color=LOW, alpha=0.2, linewidth=0)
    ax.plot(hours, bias, "-o", color=LOW, markersize=3.5, linewidth=1.4)
    ax.axhline(0, color="#777777", linewidth=1, linestyle="--")
    dress(ax, name, f"low minus high ({units})", f"bias by {name.split(' (')[0]}", SMALL)


def timeline(store: Store) -> Figure:
    """The initial times of each split, and the gaps between them."""
    length = int(np.median(np.diff(np.unique(store.low_init_time)))) if len(np.unique(store.low_init_time)) > 1 else 0
    names = [*SPLITS, "gap"] if len(store.high_index) > sum(len(store.samples(n)) for n in SPLITS) else list(SPLITS)
    fig = empty_figure(11.1, 0.55 + 0.3 * len(names))
    ax = fig.subplots()
    inside = np.zeros(len(store.high_index), bool)
    for row, name in enumerate(names):
        chosen = store.samples(name) if name != "gap" else np.flatnonzero(~inside)
        inside[chosen] = True
        starts = np.unique(store.low_init_time[chosen])
        if len(starts):
            pieces = np.split(starts, np.flatnonzero(np.diff(starts) > 1.5 * length) + 1)
            bars = [(p[0], p[-1] - p[0] + max(length, 1)) for p in pieces]
            ax.broken_barh(bars, (row - 0.36, 0.72), color=SPLIT[name], linewidth=0.6)
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    _dates(ax, int(store.low_init_time.min()), int(store.low_init_time.max()) + length, store.calendar)
    dress(ax, "", "", "", SMALL)
    ax.tick_params(axis="y", labelsize=10)
    return fig


def regions(store: Store, plane: Plane, region: np.ndarray) -> Figure:
    """The part of the high domain in each split."""
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    view = plane.view(plane.outline(store.grid("high")))
    fig = empty_figure(*_sized(view, 4.2, 0.5))
    ax = fig.subplots()
    colours = [SPLIT["gap"], *(SPLIT[name] for name in SPLITS)]
    plane.field(ax, store.grid("high"), region.astype(float), cmap=ListedColormap(colours), vmin=-1.5, vmax=2.5)
    plane.dress(ax, view, colour="black")
    handles = [Patch(color=SPLIT[name], label=name) for name in (*SPLITS, "gap")]
    fig.legend(handles=handles, loc="outside upper left", ncols=4, fontsize=9, frameon=False)
    return fig


def missing(store: Store, plane: Plane, shares: dict[tuple[str, str], np.ndarray]) -> Figure:
    """{(group, variable): the share of its values that is missing}, a map for each."""
    view = plane.view(plane.outline(store.grid("high")))
    columns = min(4, max(2, len(shares)))
    lines = -(-len(shares) // columns)
    width = 10.6 / columns if len(shares) > 2 else 3.6
    fig = empty_figure(width * columns, lines * (_sized(view, width, 0)[1] + 0.5))
    axes = fig.subplots(lines, columns, squeeze=False).ravel()
    for ax in axes[len(shares) :]:
        ax.set_visible(False)
    for ax, ((group, name), share) in zip(axes, shares.items(), strict=False):
        drawn = plane.field(ax, store.grid(group), 100 * share, vmin=0, vmax=100, cmap="Oranges")
        plane.dress(ax, view)
        ax.set_title(f"{name} ({group})", fontsize=10)
    bar = fig.colorbar(drawn, ax=axes.tolist(), pad=0.02)
    bar.set_label("missing (%)", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    return fig


def terrain() -> Any:
    """Colours for heights, without those for the sea."""
    import matplotlib
    from matplotlib.colors import ListedColormap

    return ListedColormap(matplotlib.colormaps["terrain"](np.linspace(0.25, 0.95, 256)))


def _near(high: tuple[float, ...], both: tuple[float, ...]) -> tuple[float, float, float, float]:
    """The view of both domains, limited to the size of the high one on each side of it."""
    width, height = high[1] - high[0], high[3] - high[2]
    size = max(width, height)
    west, east = max(both[0], high[0] - size), min(both[1], high[1] + size)
    return west, east, max(both[2], high[2] - size), min(both[3], high[3] + size)


def _sized(view: tuple[float, float, float, float], width: float, more: float) -> tuple[float, float]:
    """The size in inches of a map with this width, neither very flat nor very tall."""
    shape = (view[3] - view[2]) / (view[1] - view[0])
    return width, width * float(np.clip(shape, 0.4, 1.5)) + more


def _dates(ax: Any, start: int, end: int, kind: str) -> None:
    """Ticks at about seven round dates in the calendar of the data."""
    first, last = (int(calendar.label(t, kind)[:4]) for t in (start, end))
    if last - first >= 3:
        every = -(-(last - first) // 8)
        ticks = [calendar.parse(f"{year:04}-01-01", kind) for year in range(first, last + 2, every)]
        texts = [calendar.label(t, kind)[:4] for t in ticks]
    else:
        step = max((end - start) / 7, 1)
        unit = next((u for u in (3600, 10800, 21600, 86400) if step <= 4 * u), 86400)
        step = max(round(step / unit), 1) * unit
        ticks = list(range(-(-start // step) * step, end + 1, step))
        texts = [calendar.label(t, kind)[: 10 if unit == 86400 else 16].replace("T", " ") for t in ticks]
    kept = [(t, text) for t, text in zip(ticks, texts, strict=True) if start <= t <= end]
    ax.set_xticks([t for t, _ in kept], [text for _, text in kept])
    margin = 0.01 * (end - start) or 1800
    ax.set_xlim(start - margin, end + margin)
