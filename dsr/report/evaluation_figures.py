"""The report's pictures: maps, spectra, skill by lead time and training curves, legible in print and to every eye."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dsr.report.figures import dress, figure, one_legend, plain_ticks
from dsr.verify.baselines import BASELINES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which people with colour vision deficiency can tell apart; the truth is black.
BASELINE_CLASSES = {name: BASELINES.find(name) for name in BASELINES.table}
COLOURS = {"truth": "#000000", "network": "#D55E00", **{name: kind.colour for name, kind in BASELINE_CLASSES.items()}}
DASHES = {name: kind.dash for name, kind in BASELINE_CLASSES.items()}


def maps(fields: dict[str, np.ndarray], example: dict[str, Any], label: str, labels: dict[str, str]) -> Figure:
    """Low, bicubic, ridge, network and truth above, their errors below; fields are {method: (Y, X)}, `label` has units.

    Where the low data lack the variable, climatology takes the place of interpolation. A dashed line bounds the test
    region where the split is by region.
    """
    interpolated = np.isfinite(fields["bicubic"]).any() if "bicubic" in fields else False
    shown = (["nearest", "bicubic"] if interpolated else ["climatology"]) + ["ridge", "network", "truth"]
    titles = {**labels, "nearest": "low-resolution input", "truth": "truth"}
    truth, inside = fields["truth"], example["inside"]
    dy, dx = example["spacing_km"]
    height, width = truth.shape[0] * dy, truth.shape[1] * dx
    how = {
        "extent": (0, width, 0, height),
        "origin": "lower" if example["north_up"] else "upper",
        "interpolation": "nearest",
    }
    scored = [fields[method][inside] for method in shown]
    low, high = np.nanmin([np.nanmin(f) for f in scored]), np.nanmax([np.nanmax(f) for f in scored])
    errors = {m: fields[m] - truth for m in shown if m != "truth"}
    limit = float(np.nanquantile(np.abs(np.stack(list(errors.values()))[:, inside]), 0.995)) or 1.0
    panel = 2.55
    picture = figure(panel * len(shown) + 0.9, 2 * (panel * min(max(height / width, 0.5), 1.6)) + 0.7)
    axes = picture.subplots(2, len(shown), sharex=True, sharey=True)
    for column, method in enumerate(shown):
        top, bottom = axes[:, column]
        above = top.imshow(fields[method], vmin=low, vmax=high, cmap="viridis", **how)
        top.set_title(titles[method], fontsize=11, fontweight="bold" if method in ("network", "truth") else "normal")
        if method == "truth":
            bottom.set_visible(False)
        else:
            below = bottom.imshow(errors[method], vmin=-limit, vmax=limit, cmap="RdBu_r", **how)
            rmse = float(np.sqrt(np.nanmean(errors[method][inside] ** 2)))
            bottom.set_title(f"error, RMSE {rmse:.3g}", fontsize=10)
            bottom.set_xlabel("km", fontsize=9)
        for ax in (top, bottom):
            ax.tick_params(labelsize=8)
            if not inside.all():
                ax.contour(inside, levels=[0.5], colors="black", linewidths=1, linestyles="--", extent=how["extent"],
                           origin=how["origin"])  # fmt: skip
    for row in (0, 1):
        axes[row, 0].set_ylabel("km", fontsize=9)
    bar = picture.colorbar(above, ax=axes[0].tolist(), shrink=0.9, pad=0.01)
    bar.ax.ticklabel_format(axis="y", useOffset=False)
    bar.set_label(label, fontsize=9)
    bar = picture.colorbar(below, ax=axes[1].tolist(), shrink=0.9, pad=0.01, extend="both")
    bar.set_label(f"error: {label}", fontsize=9)
    return picture


def spectra(variables: dict[str, Any], labels: dict[str, str]) -> Figure | None:
    """Power against wavelength, a panel for each variable that has a spectrum; None where none has."""
    having = {n: v["spectrum"] for n, v in variables.items() if _numbers(v["spectrum"]["power"]["truth"]).any()}
    if not having:
        return None
    picture = figure(4.6 * min(len(having), 2) + 1.9, 3.4 * -(-len(having) // 2))
    axes = picture.subplots(-(-len(having) // 2), min(len(having), 2), squeeze=False).ravel()
    for ax, (name, found) in zip(axes, having.items(), strict=False):
        for method in ("climatology", "nearest", "bilinear", "bicubic", "control", "ridge", "network", "truth"):
            power = _numbers(found["power"].get(method, []))
            if np.isfinite(power).any():
                line = {"color": COLOURS[method], "linestyle": DASHES.get(method, "-")}
                width = 2.2 if method in ("truth", "network") else 1.4
                ax.loglog(found["wavelength_km"], power, label=labels.get(method, method), linewidth=width, **line)
        ax.set_xlim(max(found["wavelength_km"]), min(found["wavelength_km"]))
        ax.set_ylim(bottom=max(np.nanmin(_numbers(found["power"]["truth"])) / 100, 1e-30))
        plain_ticks(ax.xaxis)
        dress(ax, "wavelength (km)", f"variance of a mode ({variables[name]['units']})²", name)
    for ax in axes[len(having) :]:
        ax.set_visible(False)
    one_legend(picture, axes)
    return picture


def by_lead(variables: dict[str, Any], labels: dict[str, str]) -> Figure | None:
    """RMSE against lead time, a panel for each variable; None where there is one lead only.

    Without climatology, which would flatten the rest, and the ensemble mean, which bicubic is.
    """
    having = {n: v for n, v in variables.items() if v["leads"]}
    if not having:
        return None
    picture = figure(4.6 * min(len(having), 2) + 1.9, 3.2 * -(-len(having) // 2))
    axes = picture.subplots(-(-len(having) // 2), min(len(having), 2), squeeze=False).ravel()
    for ax, (name, found) in zip(axes, having.items(), strict=False):
        hours = [lead["lead_time"] / 3600 for lead in found["leads"]]
        for method in labels:
            values = _numbers([lead["rmse"][method] for lead in found["leads"]])
            if method not in ("climatology", "ensemble_mean") and np.isfinite(values).any():
                width = 2.4 if method == "network" else 1.4
                line = {"color": COLOURS[method], "linestyle": DASHES.get(method, "-"), "linewidth": width}
                ax.plot(hours, values, marker="o", markersize=4, label=labels[method], **line)
        ax.set_ylim(bottom=0)
        dress(ax, "lead time (h)", f"RMSE ({found['units']})", name)
    for ax in axes[len(having) :]:
        ax.set_visible(False)
    one_legend(picture, axes)
    return picture


def skill(variables: dict[str, Any], labels: dict[str, str]) -> Figure:
    """Every method's RMSE relative to ridge regression's, a row for each variable: left of 1 is better than ridge.

    Without the ensemble mean, which bicubic is.
    """
    picture = figure(9.5, 0.9 + 0.5 * len(variables))
    ax = picture.subplots()
    for row, found in enumerate(variables.values()):
        for method in labels:
            value, reference = found["rmse"][method], found["rmse"]["ridge"]
            if value is None or not reference or method == "ensemble_mean":
                continue
            size = 11 if method == "network" else 7
            marker = {"network": "D", "ridge": "s"}.get(method, "o")
            label = labels[method] if method not in {t.get_gid() for t in ax.lines} else None
            ax.plot(value / reference, row, marker, color=COLOURS[method], markersize=size, label=label, gid=method,
                    markeredgecolor="white", zorder=3 if method == "network" else 2)  # fmt: skip
    ax.axvline(1, color="#0072B2", linewidth=1)
    ax.set_yticks(range(len(variables)), list(variables))
    ax.set_ylim(len(variables) - 0.5, -0.5)
    ax.set_xscale("log")
    plain_ticks(ax.xaxis)
    dress(ax, "RMSE relative to ridge regression (left is better)", "", "")
    picture.legend(loc="outside right upper", fontsize=9, frameon=False)
    return picture


def training(records: list[dict[str, Any]]) -> Figure | None:
    """Loss by update, and the validation's RMSE relative to bicubic (or to the first one) by update; None without."""
    losses = [(r["update"], r["loss"]) for r in records if r.get("loss") is not None]
    found = [(r["update"], r["validation"]) for r in records if r.get("validation")]
    if not losses and not found:
        return None
    picture = figure(10.5, 3.3)
    left, right = picture.subplots(1, 2)
    if losses:
        left.plot(*zip(*losses, strict=True), color=COLOURS["ridge"], linewidth=1.4)
        left.set_yscale("log")
        plain_ticks(left.yaxis)
    names = list(found[0][1].get("rmse", {})) if found else []
    cycle = [COLOURS[m] for m in ("network", "ridge", "bicubic", "elevation", "bicubic_bias", "bilinear", "truth")]
    for i, name in enumerate(names):
        base = [v.get("bicubic", {}).get(name) or found[0][1]["rmse"][name] for _, v in found]
        ratio = [v["rmse"][name] / b for (_, v), b in zip(found, base, strict=True)]
        marker = {"marker": "o", "markersize": 3, "color": cycle[i % len(cycle)]}
        right.plot([u for u, _ in found], ratio, label=name, linewidth=1.6, **marker)
    right.axhline(1, color="#777777", linewidth=1, linestyle="--")
    if names:
        right.legend(fontsize=9, frameon=False)
    dress(left, "update", "training loss", "")
    dress(right, "update", "validation RMSE / RMSE of the base", "")
    return picture


def _numbers(values: list[float | None]) -> np.ndarray:
    return np.array([np.nan if v is None else v for v in values], float)
