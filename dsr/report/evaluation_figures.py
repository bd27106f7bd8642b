"""The figures of an evaluation: maps, spectra, skill by lead time and training curves, accessible and printable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dsr.report.figures import COLOURS, REFERENCE, dress, empty_figure, one_legend, plain_ticks
from dsr.verify.baselines import BASELINES, Baseline
from dsr.verify.evaluation import Evaluation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIXED = {"network": "#D55E00", "truth": "#000000"}
LIKE_BICUBIC = ("elevation", "bicubic_bias", "ensemble_mean")  # their spectra nearly coincide with it


def style(method: str) -> dict[str, str]:
    """The colour and dash of a method's lines: a baseline's are in its file."""
    if method in FIXED:
        return {"color": FIXED[method], "linestyle": "-"}
    baseline = BASELINES.find(method) if method in BASELINES.table else Baseline
    return {"color": baseline.colour, "linestyle": baseline.dash}


def maps(fields: dict[str, np.ndarray], example: dict[str, Any], label: str, labels: dict[str, str]) -> Figure:
    """Low, bicubic, ridge, network and truth above, their errors below; fields are {method: (Y, X)}, `label` has units.

    If the low data lack the variable, climatology replaces interpolation. A dashed line bounds the test region if the
    split is by region.
    """
    interpolated = np.isfinite(fields["bicubic"]).any() if "bicubic" in fields else False
    shown = (["nearest", "bicubic"] if interpolated else ["climatology"]) + ["ridge", "network", "truth"]
    titles = {**labels, "nearest": "low-resolution input", "truth": "truth"}
    truth, inside = fields["truth"], example["inside"]
    dy, dx = example["spacing_km"]
    height, width = truth.shape[0] * dy, truth.shape[1] * dx
    shared = {
        "extent": (0, width, 0, height),
        "origin": "lower" if example["north_up"] else "upper",
        "interpolation": "nearest",
    }
    scored = [fields[method][inside] for method in shown]
    low, high = np.nanmin([np.nanmin(f) for f in scored]), np.nanmax([np.nanmax(f) for f in scored])
    errors = {m: fields[m] - truth for m in shown if m != "truth"}
    limit = float(np.nanquantile(np.abs(np.stack(list(errors.values()))[:, inside]), 0.995)) or 1.0
    fig, axes, bars = _map_panels(len(shown), min(max(height / width, 0.5), 1.6))
    for column, method in enumerate(shown):
        top, bottom = axes[:, column]
        above = top.imshow(fields[method], vmin=low, vmax=high, cmap="viridis", **shared)
        top.xaxis.set_visible(False)
        top.set_title(titles[method], fontsize=11, fontweight="bold" if method in ("network", "truth") else "normal")
        if method == "truth":
            bottom.set_visible(False)
        else:
            below = bottom.imshow(errors[method], vmin=-limit, vmax=limit, cmap="RdBu_r", **shared)
            rmse = float(np.sqrt(np.nanmean(errors[method][inside] ** 2)))
            bottom.set_title(f"error, RMSE {rmse:.3g}", fontsize=10)
            bottom.set_xlabel("km", fontsize=9)
        for ax in (top, bottom):
            ax.tick_params(labelsize=8)
            ax.yaxis.set_visible(column == 0)  # an axis without labels costs as much as one with them
            if not inside.all():
                ax.contour(inside, levels=[0.5], colors="black", linewidths=1, linestyles="--", extent=shared["extent"],
                           origin=shared["origin"])  # fmt: skip
    for row in (0, 1):
        axes[row, 0].set_ylabel("km", fontsize=9)
    bar = fig.colorbar(above, cax=bars[0])
    bar.ax.ticklabel_format(axis="y", useOffset=False)
    bar.set_label(label, fontsize=9)
    bar = fig.colorbar(below, cax=bars[1], extend="both")
    bar.set_label(f"error: {label}", fontsize=9)
    return fig


def _map_panels(columns: int, aspect: float) -> tuple[Figure, np.ndarray, list[Any]]:
    """A figure, its axes (2, columns) for maps of one height/width, and an axis for each row's colour bar.

    The places are computed here: the layout engine would take a second of processor time for each figure.
    """
    panel, gap, left, right, top, bottom = 2.3, 0.15, 0.6, 1.0, 0.35, 0.5  # inches
    between = top + 0.1
    width = left + columns * (panel + gap) + right
    height = bottom + 2 * panel * aspect + between + top
    fig = empty_figure(width, height)
    fig.set_layout_engine("none")

    def place(column: int, row: int, size: float) -> tuple[float, float, float, float]:
        up = bottom + (1 - row) * (panel * aspect + between)
        return (left + column * (panel + gap)) / width, up / height, size / width, panel * aspect / height

    axes = np.array([[fig.add_axes(place(c, r, panel)) for c in range(columns)] for r in (0, 1)])
    return fig, axes, [fig.add_axes(place(columns, r, 0.14)) for r in (0, 1)]


def spectra(evaluation: Evaluation) -> Figure | None:
    """Power against wavelength, a panel for each variable with a spectrum; None if there is none."""
    variables = {n: v for n, v in evaluation.variables.items() if np.nansum(_numbers(v.spectrum.power["truth"]))}
    if not variables:
        return None
    fig, axes = _panels(len(variables), 3.4)
    for ax, (name, variable) in zip(axes, variables.items(), strict=False):
        spectrum = variable.spectrum
        for method in (*evaluation.methods, "truth"):
            power = _numbers(spectrum.power.get(method, []))
            if method not in LIKE_BICUBIC and np.isfinite(power).any():
                width = 2.2 if method in ("truth", "network") else 1.4
                label = evaluation.methods.get(method, method)
                ax.loglog(spectrum.wavelength_km, power, label=label, linewidth=width, **style(method))
        ax.set_xlim(max(spectrum.wavelength_km), min(spectrum.wavelength_km))
        ax.set_ylim(bottom=max(np.nanmin(_numbers(spectrum.power["truth"])) / 100, 1e-30))
        plain_ticks(ax.xaxis)
        dress(ax, "wavelength (km)", f"variance of a mode ({variable.units})²", name)
    one_legend(fig, axes)
    return fig


def by_lead(evaluation: Evaluation) -> Figure | None:
    """RMSE against lead time, a panel for each variable; None if there is only one lead time.

    Without climatology, which would compress the rest, and the ensemble mean, which equals bicubic.
    """
    variables = {name: variable for name, variable in evaluation.variables.items() if variable.leads}
    if not variables:
        return None
    fig, axes = _panels(len(variables), 3.2)
    for ax, (name, variable) in zip(axes, variables.items(), strict=False):
        hours = [lead.lead_time / 3600 for lead in variable.leads]
        for method, label in evaluation.methods.items():
            values = _numbers([lead.rmse.get(method) for lead in variable.leads])
            if method not in ("climatology", "ensemble_mean") and np.isfinite(values).any():
                width = 2.4 if method == "network" else 1.4
                ax.plot(hours, values, marker="o", markersize=4, label=label, linewidth=width, **style(method))
        ax.set_ylim(bottom=0)
        dress(ax, "lead time (h)", f"RMSE ({variable.units})", name)
    one_legend(fig, axes)
    return fig


def skill(evaluation: Evaluation) -> Figure:
    """Every method's RMSE relative to ridge regression's, a row for each variable: left of 1 is better than ridge.

    Without the ensemble mean, which equals bicubic.
    """
    fig = empty_figure(9.5, 0.9 + max(0.5 * len(evaluation.variables), 0.2 * len(evaluation.methods)))
    ax = fig.subplots()
    for row, variable in enumerate(evaluation.variables.values()):
        rmse = variable.rmse
        for method, name in evaluation.methods.items():
            if method not in rmse or not rmse.get("ridge") or method == "ensemble_mean":
                continue
            size = 11 if method == "network" else 7
            marker = {"network": "D", "ridge": "s"}.get(method, "o")
            label = name if method not in {line.get_gid() for line in ax.lines} else None
            ax.plot(rmse[method] / rmse["ridge"], row, marker, color=style(method)["color"], markersize=size,
                    label=label, gid=method, markeredgecolor="white", zorder=2 + (method == "network"))  # fmt: skip
    ax.axvline(1, color=style("ridge")["color"], linewidth=1)
    ax.set_yticks(range(len(evaluation.variables)), list(evaluation.variables))
    ax.set_ylim(len(evaluation.variables) - 0.5, -0.5)
    ax.set_xscale("log")
    plain_ticks(ax.xaxis)
    dress(ax, "RMSE relative to ridge regression (left is better)", "", "")
    fig.legend(loc="outside right upper", fontsize=9, frameon=False)
    return fig


def training(records: list[dict[str, Any]]) -> Figure | None:
    """Loss and validation RMSE relative to bicubic (or to the first validation) by update; None without records."""
    losses = [(r["update"], r["loss"]) for r in records if r.get("loss") is not None]
    validations = [(r["update"], r["validation"]) for r in records if r.get("validation")]
    if not losses and not validations:
        return None
    fig = empty_figure(10.5, 3.3)
    left, right = fig.subplots(1, 2)
    if losses:
        left.plot(*zip(*losses, strict=True), color=COLOURS[0], linewidth=1.4)
        left.set_yscale("log")
        plain_ticks(left.yaxis)
    names = list(validations[0][1].get("rmse", {})) if validations else []
    for i, name in enumerate(names):
        base = [v.get("bicubic", {}).get(name) or validations[0][1]["rmse"][name] for _, v in validations]
        ratio = [v["rmse"][name] / b for (_, v), b in zip(validations, base, strict=True)]
        marker = {"marker": "o", "markersize": 3, "color": COLOURS[i % len(COLOURS)]}
        right.plot([u for u, _ in validations], ratio, label=name, linewidth=1.6, **marker)
    right.axhline(1, color=REFERENCE, linewidth=1, linestyle="--")
    if names:
        right.legend(fontsize=9, frameon=False)
    dress(left, "update", "training loss", "")
    dress(right, "update", "validation RMSE / RMSE of the base", "")
    return fig


def _panels(count: int, height: float) -> tuple[Figure, Any]:
    """A figure with this many axes, two in a row, each `height` inches high."""
    columns, rows = min(count, 2), -(-count // 2)
    fig = empty_figure(4.6 * columns + 1.9, height * rows)
    axes = fig.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes[count:]:
        ax.set_visible(False)
    return fig, axes


def _numbers(values: list[float | None]) -> np.ndarray:
    return np.array([np.nan if v is None else v for v in values], float)
