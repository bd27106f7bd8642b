"""The page of a store: whether low and high match, at a glance, as one self-contained HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dsr import progress
from dsr.data import calendar, info, match
from dsr.data.coarsening import Coarsening
from dsr.data.match import Match, Sample
from dsr.data.registration import FAR
from dsr.data.store import Store, Variable
from dsr.errors import UserError
from dsr.report import store_figures as figures
from dsr.report.pages import Cell, Picture, Row, Table, Verdict, picture
from dsr.report.pages import write as write_page
from dsr.report.plane import Plane

WEAK = 0.5  # correlation below which low says little about high
TOTALS = (0.67, 1.5)  # the ratio of totals, low over high, is plausible within
HEIGHTS = ("surface_altitude", "height", "altitude", "geopotential_height")  # CF standard names of a topography


def write(path: Path | str, output: Path | None = None) -> Path:
    """Write the page of the store at `path`, whole or not at all, and return where; by default beside the store.

    Raises UserError if there is no store, or `output` is not an .html file or cannot be written.
    """
    store = Store(path)
    name = str(path).rstrip("/").rsplit("/", 1)[-1]
    if output is None:
        output = Path(f"{name}.html") if isinstance(store.path, str) else Path(path).resolve().with_name(f"{name}.html")
    if output.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"{output}: the page's name must end in .html")
    content = _content(store, name)
    try:
        return write_page(output, "store.html", **content)
    except OSError as error:
        raise UserError(
            f"{output}: cannot be written ({error.strerror or error}); give another path with -o"
        ) from error


def _content(store: Store, name: str) -> dict[str, Any]:
    """The content of the template."""
    with progress.bar() as bar:
        sample, lags = match.read(store, lambda rows, text: bar.track(rows, description=text))
    matches = match.compare(store, sample, lags)
    plane = Plane(store.grid("high"))
    known = {v.name: v for v in store.high_variables}
    pairs = {
        v: _pair(store, plane, known[v], sample, matches[v], 7.8 if v == next(iter(matches)) else 11.1) for v in matches
    }
    first = next(iter(pairs), None)
    provenance: dict[str, Any] = store.attributes.get("provenance") or {}
    return {
        "title": name,
        "fingerprint": store.fingerprint,
        "facts": [" · ".join(info.times(store))],
        "verdicts": verdicts(store, matches),
        "domains": picture(figures.domains(store, plane), _sizes(store)),
        "first": pairs[first] if first else None,
        "problems": provenance.get("problems") or [],
        "numbers": _numbers(known, matches),
        "notes": _notes(store, sample),
        "variables": [
            {
                "title": f"{known[v].long_name or v} ({known[v].units})",
                "pair": None if v == first else pairs[v],
                "matching": picture(figures.matching(known[v], matches[v]), _about(v)),
            }
            for v in matches
        ],
        "splits": _splits(store, plane),
        "split_lines": info.splits(store),
        "registration": picture(figures.registration(store), "Nine low cells near the middle of the high domain."),
        "grid_lines": info.grids(store),
        "topographies": _topographies(store, plane),
        "described": _described(store, sample),
        "missing": _missing(store, plane, sample),
        "sampled": f"{len(sample.rows)} of {len(store.high_index)} pairs, evenly spread",
        "origin": info.origin(provenance),
    }


def _sizes(store: Store) -> str:
    low, high = (f"{rows} x {columns}" for rows, columns in (store.low_shape, store.shape))
    return f"Low {low}, high {high} points, factor {store.attributes['factor']}."


def verdicts(store: Store, matches: dict[str, Match]) -> list[Verdict]:
    """A line for each shared variable: whether low matches high, and the statistics behind it."""
    if not matches:
        low, high = (", ".join(v.name for v in vs) for vs in (store.low_variables, store.high_variables))
        text = f"low has {low}; high has {high}: no variable in common to compare"
        return [Verdict("low and high", text, "doubt")]
    units = {v.name: v.units for v in store.low_variables}
    lines = []
    for variable in store.high_variables:
        if variable.name in matches:
            doubts = _doubts(store, variable, matches[variable.name])
            if units[variable.name] != variable.units:
                doubts.insert(0, f"low is in {units[variable.name]}, high in {variable.units}")
            verdict = f"doubtful: {', '.join(doubts)}" if doubts else "low matches high"
            numbers = _numbers_in_words(variable, matches[variable.name])
            lines.append(Verdict(variable.name, f"{verdict}: {numbers}", "doubt" if doubts else "fits"))
    return lines


def _numbers_in_words(variable: Variable, m: Match) -> str:
    """Such as "correlation 0.98 over the map, 0.95 in time; displacement 0.0 cells; lag 0 h; ratio of totals 1.01"."""
    kinds = ((m.spatial_correlation, "over the map"), (m.temporal_correlation, "in time"))
    correlations = [f"{value:.2f} {kind}" for value, kind in kinds if value is not None]
    parts = [f"correlation {', '.join(correlations)}"] if correlations else []
    if m.displacement is not None:
        unclear = max(map(abs, m.displacement)) > FAR and not m.is_displaced
        parts.append("displacement unclear" if unclear else f"displacement {np.hypot(*m.displacement):.1f} cells")
    if m.lag_hours is not None:
        unclear = m.lag_hours != 0 and not m.is_lagged
        parts.append("lag unclear" if unclear else f"lag {m.lag_hours:g} h")
    if _has_totals(variable):
        parts.append(f"ratio of totals {m.ratio:.2f}")
    else:
        parts.append(f"bias {_rounded(m.bias, m.spread)} {variable.units}")
    return "; ".join(parts)


def _doubts(store: Store, variable: Variable, m: Match) -> list[str]:
    doubts = []
    if m.displacement is not None and m.is_displaced:
        doubts.append(f"low is displaced {_direction(store, m.displacement)}")
    if m.is_lagged and m.lag_hours is not None:
        doubts.append(f"low is {abs(m.lag_hours):g} h {'late' if m.lag_hours > 0 else 'early'}")
    best = m.temporal_correlation if m.temporal_correlation is not None else m.spatial_correlation
    if best is not None and best < WEAK:
        doubts.append("low says little about high")
    if _has_totals(variable):
        if not TOTALS[0] <= m.ratio <= TOTALS[1]:
            doubts.append("low has too much" if m.ratio > 1 else "low has too little")
    elif abs(m.bias) > m.spread > 0:
        doubts.append("the bias exceeds the standard deviation of high")
    return doubts


def _has_totals(variable: Variable) -> bool:
    """Whether its totals are meaningful: amounts, speeds, humidities, which have a true zero."""
    return variable.lower == 0.0


def _rounded(value: float, spread: float) -> str:
    """The value to about a hundredth of the variable's spread."""
    if not spread > 0:
        return f"{value:.3g}"
    decimals = 2 - int(np.floor(np.log10(spread)))
    return f"{value:.3e}" if decimals > 6 else f"{round(value, max(decimals, 0)) + 0.0:.{max(decimals, 0)}f}"


def _direction(store: Store, shift: tuple[float, float]) -> str:
    """Such as "0.5 cells east, 0.2 cells north", of (rows, columns) on the low grid."""
    grid = store.grid("low")
    names = (("north", "south"), ("east", "west"))
    if grid.mapping is not None:
        names = (("up y", "down y"), ("up x", "down x"))
    words = []
    for cells, step, (up, down) in zip(shift, grid.spacing, names, strict=True):
        if abs(cells) >= 0.05:
            words.append(f"{abs(cells):.1f} cells {up if cells * step > 0 else down}")
    return ", ".join(reversed(words))


def _numbers(known: dict[str, Variable], matches: dict[str, Match]) -> Table:
    """The table behind the verdicts."""
    head = [
        "variable",
        "correlation over the map",
        "in time",
        "displacement (rows, columns)",
        "lag (h)",
        "bias",
        "RMSE",
    ]
    head += ["totals, low / high", "1 %: low, high", "99 %: low, high"]
    rows = []
    low, high = (int(np.argmin(np.abs(match.LEVELS - level))) for level in (0.01, 0.99))
    for name, m in matches.items():
        ends = (m.quantiles[:, low], m.quantiles[:, high])
        rows.append(Row([
            name,
            "–" if m.spatial_correlation is None else f"{m.spatial_correlation:.3f}",
            "–" if m.temporal_correlation is None else f"{m.temporal_correlation:.3f}",
            "–" if m.displacement is None else ", ".join(f"{round(cells, 2) + 0.0:.2f}" for cells in m.displacement),
            "–" if m.lag_hours is None else f"{m.lag_hours:g}",
            _rounded(m.bias, m.spread),
            _rounded(m.rmse, m.spread),
            f"{m.ratio:.3f}" if _has_totals(known[name]) else "–",
            *(f"{_rounded(a, m.spread)}, {_rounded(b, m.spread)}" for a, b in ends),
            Cell(known[name].units.replace(" ", "\u00a0"), "text"),
        ]))  # fmt: skip
    return Table([*head, Cell("unit", "text")], rows)


def _notes(store: Store, sample: Sample) -> list[str]:
    members = f" ({store.members} members: their mean; quantiles of the first member)" if store.members else ""
    return [
        f"{len(sample.rows)} of {len(store.high_index)} pairs, evenly spread. High is coarsened by area onto the low "
        f"grid and compared with low{members} in cells of which it covers at least three quarters. Bias: low minus "
        "high.",
        "Correlation over the map: within each field, averaged over pairs. In time, and by lag: of departures from "
        "each cell's mean over the sample.",
        "Displacement and lag: of low relative to high, at the best correlation; lags in whole steps. If all variables "
        "are displaced, so are the grids; if only one is, the cause may be the model.",
    ]


def _about(name: str) -> str:
    return (
        f"{name}, low against high coarsened onto the low grid. A cross marks the best match: at 0 if low and high "
        "agree. Quantiles on the dashed line: both have the same distribution. Shading: two standard errors."
    )


def _pair(store: Store, plane: Plane, variable: Variable, sample: Sample, m: Match, width: float) -> Picture:
    """Low, coarsened high and high of one pair."""
    k, v = m.shown, sample.names.index(variable.name)
    row = int(sample.rows[k])
    index = [w.name for w in store.high_variables].index(variable.name)
    truth = store.high[int(store.high_index[row])][index]
    low, high = store.grid("low"), store.grid("high")
    panels = [
        ("low" + (" (first member)" if store.members else ""), low, sample.first_member[k, v]),
        ("high, coarsened", low, sample.coarse[k, v]),
        ("high", high, truth),
    ]
    label = f"{variable.long_name or variable.name} ({variable.units})"
    frame = (int(store.low_init_time[row]), int(store.low_lead_time[row]))
    when = calendar.when(frame, store.calendar).replace("T", " ")
    caption = f"{variable.name}, {when}: the pair of median correlation in the half of the sample with most variance."
    colours = "YlGnBu" if _has_totals(variable) else "viridis"
    return picture(figures.row(plane, label, panels, width, cmap=colours), caption)


def _splits(store: Store, plane: Plane) -> Picture:
    if store.region is None:
        return picture(figures.timeline(store), "Initial times of each split.")
    return picture(
        figures.regions(store, plane, store.region), "Parts of the high domain; every sample is in every split."
    )


def _topographies(store: Store, plane: Plane) -> list[Picture]:
    """Both topographies side by side, and low minus coarsened high; nothing if there is none."""
    pictures = []
    high, low, colours = store.grid("high"), store.grid("low"), figures.terrain()
    for variable, field in zip(store.static_variables, store.static, strict=True):
        name, low_field = variable.name, store.low_static(variable.name)
        if variable.standard_name not in HEIGHTS and name not in ("topography", "orography"):
            continue
        label, panels = f"{name} ({variable.units})", [("high", high, field)]
        if low_field is None:
            figure = figures.row(plane, label, panels, 4.6, cmap=colours)
            pictures.append(picture(figure, f"{name} on the high grid; the store has none on the low grid."))
            continue
        coarse = Coarsening(store.grid("high"), store.grid("low"), store.low_index)(field)
        panels = [("low", low, low_field), ("high, coarsened", low, coarse), *panels]
        pictures.append(
            picture(figures.row(plane, label, panels, 11.1, cmap=colours), f"{name} on the low and the high grid.")
        )
        difference = low_field - coarse
        most = float(np.nanquantile(np.abs(difference), 0.99)) if np.isfinite(difference).any() else 0.0
        options = {"vmin": -most or -1, "vmax": most or 1, "cmap": "RdBu_r"}
        figure = figures.row(plane, label, [("low minus coarsened high", low, difference)], 4.6, **options)
        pictures.append(picture(figure, f"{name}: where low is too high (red) or too low (blue)."))
    return pictures


def _described(store: Store, sample: Sample) -> Table:
    """The names, units, statistics, missing values and intervals of every variable."""
    head = ["", "variable", "unit", "mean", "minimum", "maximum", "missing in the sample"]
    rows = []
    shares = {"high": sample.missing_high, "low": sample.missing_low, "static": ~np.isfinite(store.static)}
    for group in ("high", "low", "static"):
        for k, variable in enumerate(getattr(store, f"{group}_variables")):
            numbers = store.statistics[group].get(variable.name, {})
            values = [f"{numbers[key]:.5g}" if key in numbers else "–" for key in ("mean", "minimum", "maximum")]
            share = float(shares[group][k].mean())
            absent = f"{100 * share:.3g} %" if share else "none"
            interval = Cell(variable.cell_methods or "–", "text")
            rows.append(Row([group, variable.name, variable.units, *values, absent, interval]))
    return Table([*head, Cell("interval (cell methods)", "text")], rows)


def _missing(store: Store, plane: Plane, sample: Sample) -> Picture | None:
    shares = {("high", v.name): f for v, f in zip(store.high_variables, sample.missing_high, strict=True) if f.any()}
    shares |= {("low", v.name): f for v, f in zip(store.low_variables, sample.missing_low, strict=True) if f.any()}
    if not shares:
        return None
    return picture(figures.missing(store, plane, shares), "Where values are missing, and in what share of the sample.")
