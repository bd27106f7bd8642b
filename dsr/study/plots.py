"""The study's pictures, for every eye and for print, and the table behind each of them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from dsr.study.ablation import SEQUENTIAL
from dsr.verify.plots import _plain_ticks, dress, figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Group = dict[str, Any]
# Okabe and Ito's colours; marker and dash say the same again for print in black and white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#444444")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "*", "h", "d", "8")
DASHES = ("-", "--", "-.", ":")
BUDGETS = {"epochs": "equal epochs", "updates": "equal updates"}


def skill(result: dict[str, Any], data: str) -> Figure:
    """Skill against GPUs for each arm of a data set with intervals, a panel for each budget.

    Below each panel stand the runs that did not converge, of all, and the cells that cannot be.
    """
    about, groups = result["data"][data], [g for g in _shown(result) if g["data"] == data]
    styles = {arm: style for arm, style in _styles(result).items() if any(g["arm"] == arm for g in groups)}
    budgets = _budgets(groups)
    failing = [arm for arm in styles if any(g["arm"] == arm and (g.get("diverged") or "reason" in g) for g in groups)]
    strip = 0.22 * max(len(failing), 1)
    picture = figure(12.5, 4.2 + strip)
    axes = picture.subplots(2, len(budgets), squeeze=False, height_ratios=[4.2, strip])
    for ax, below, budget in zip(*axes, budgets, strict=True):
        own = [g for g in groups if g["budget"] == budget]
        if about["sequential_skill"]:
            ax.axhline(np.mean(about["sequential_skill"]), color="black", linewidth=1)
        if about["same"]:
            ax.axhspan(*about["same"], color="black", alpha=0.12, linewidth=0)
        for arm, style in styles.items():
            there = [g for g in own if g["arm"] == arm and g.get("skill") is not None]
            if there:
                _line(ax, arm, style, there, "skill", "skill_interval", len(styles))
        means = [g["skill"] for g in own if g.get("skill") is not None] + list(about["same"] or [])
        if means:
            margin = 0.15 * (max(means) - min(means)) + 0.01
            ax.set_ylim(min(means) - margin, max(means) + margin)  # the intervals of two or three seeds leave it
        _gpus(ax, own)
        dress(ax, "", "skill over bicubic (1)", f"{about['label']}\n{BUDGETS[budget]}")
        ax.tick_params(labelbottom=False)
        _strip(below, own, failing, styles, result)
    _legend(picture, styles, result)
    return picture


def curves(result: dict[str, Any], lines: list[dict[str, Any]]) -> Figure | None:
    """Learning curves at the most GPUs of each data set, at equal epochs: against samples and against updates.

    The line is the median of the seeds, the band spans them.
    """
    styles = {SEQUENTIAL: {"color": "black", "marker": "", "linestyle": "-"}, **_styles(result)}
    chosen = {}
    for data in result["data"]:
        weak = [g["gpus"] for g in result["groups"] if g["data"] == data and g["mode"] == "weak" and "reason" not in g]
        if weak:
            chosen[data] = max(weak)
    if not chosen:
        return None
    picture = figure(12.5, 3.3 * len(chosen))
    axes = picture.subplots(len(chosen), 2, squeeze=False)
    for row, (data, gpus) in enumerate(chosen.items()):
        for ax, axis in zip(axes[row], ("samples", "updates"), strict=True):
            for arm, style in styles.items():
                own = [
                    line for line in lines if line["data"] == data and line["arm"] == arm and line["budget"] == "epochs"
                ]
                own = [line for line in own if line["gpus"] == (1 if arm == SEQUENTIAL else gpus)]
                seeds = len({line["seed"] for line in own})
                by_place: dict[float, list[float]] = {}
                for line in own:
                    by_place.setdefault(line[axis], []).append(line["skill"])
                at = sorted(x for x, found in by_place.items() if len(found) == seeds)
                values = [by_place[x] for x in at]
                if not at:
                    continue
                plain = {"color": style["color"], "linestyle": style["linestyle"]}
                ax.plot(at, [np.median(v) for v in values], linewidth=1.6, **plain)
                ax.fill_between(
                    at, [min(v) for v in values], [max(v) for v in values], color=style["color"], alpha=0.15
                )
            ax.set_xscale("log")
            _plain_ticks(ax.xaxis)
            best = max((line["skill"] for line in lines if line["data"] == data), default=1.0)
            ax.set_ylim(-0.3 * best, 1.1 * best)  # what has diverged leaves the picture
            ax.axhline(0, color="#777777", linewidth=1, linestyle="--")
            dress(ax, f"{axis} (number, log scale)", "skill, validation (1)",
                   f"{result['data'][data]['label']}\n{gpus} GPUs, equal epochs")  # fmt: skip
    _legend(picture, styles, result)
    return picture


def noise(result: dict[str, Any]) -> Figure | None:
    """The gradient noise scale against the effective batch; None where no run measured it."""
    groups = [g for g in _with_sequential(result) if g.get("noise_scale")]
    if not groups:
        return None
    styles = {SEQUENTIAL: {"color": "black", "marker": "o", "linestyle": ""}, **_styles(result)}
    picture, axes = _panels(result)
    for ax, data in zip(axes, result["data"], strict=False):
        own = [g for g in groups if g["data"] == data and g["budget"] == "epochs" and g["effective_batch"]]
        batches = sorted({g["effective_batch"] for g in own})
        for arm, style in styles.items():
            there = sorted((g["effective_batch"], g["noise_scale"]) for g in own if g["arm"] == arm)
            if there:
                ax.plot(*zip(*there, strict=True), markersize=6, linewidth=1.4, **style)
        if batches:
            ax.plot(batches, batches, color="#777777", linewidth=1, linestyle="--")
        ax.set_xscale("log", base=2)
        ax.set_yscale("log")
        ax.set_xticks(batches, batches)
        _plain_ticks(ax.yaxis)
        dress(ax, "effective batch (samples)", "noise scale (samples)", result["data"][data]["label"])
    _legend(picture, styles, result)
    return picture


def target(result: dict[str, Any]) -> Figure | None:
    """Predicted seconds to the target against GPUs; a cross at the top where half of the runs or more missed it."""
    groups, styles = _shown(result), _styles(result)
    budgets = _budgets(groups)
    if not any(g.get("predicted_seconds_to_target") for g in groups):
        return None
    picture = figure(5.4 * len(budgets) + 2.6, 3.3 * len(result["data"]))
    axes = picture.subplots(len(result["data"]), len(budgets), squeeze=False)
    for row, data in enumerate(result["data"]):
        for column, budget in enumerate(budgets):
            ax, own = axes[row][column], [g for g in groups if g["data"] == data and g["budget"] == budget]
            for arm, style in styles.items():
                there = [g for g in own if g["arm"] == arm and g.get("predicted_seconds_to_target")]
                _line(ax, arm, style, there, "predicted_seconds_to_target", None, len(styles))
                lacking = [g["gpus"] for g in own if g["arm"] == arm and "reason" not in g and g not in there]
                for gpus in lacking:
                    ax.plot(_dodged(gpus, arm, styles), 0.97, "x", color=style["color"], markersize=6, zorder=4,
                            transform=ax.get_xaxis_transform())  # fmt: skip
            ax.set_yscale("log")
            _plain_ticks(ax.yaxis)
            _gpus(ax, result["groups"])
            ax.set_ylim(top=ax.get_ylim()[1] * 1.6)
            dress(ax, "GPUs", "predicted time to target (s)", f"{result['data'][data]['label']}\n{BUDGETS[budget]}")
            if not own:
                ax.set_visible(False)
    _legend(picture, styles, result)
    return picture


def speedup(result: dict[str, Any], lines: list[dict[str, Any]]) -> Figure | None:
    """Speed-up of an update's samples per second, and efficiency: predicted as lines, measured as filled squares."""
    if not lines:
        return None
    styles = {name: style for name, style in _styles(result).items() if any(line["arm"] == name for line in lines)}
    picture = figure(12.5, 3.7)
    left, right = picture.subplots(1, 2)
    for ax, key, label in ((left, "speed_up", "speed-up (1)"), (right, "efficiency", "efficiency (1)")):
        for arm, style in styles.items():
            plain = {**style, "marker": ""}
            there = [line for line in lines if line["arm"] == arm and line["how"] == "predicted"]
            ax.plot([p["gpus"] for p in there], [p[key] for p in there], linewidth=1.5, **plain)
            dots = [line for line in lines if line["arm"] == arm and line["how"] == "measured"]
            ax.plot([p["gpus"] for p in dots], [p[key] for p in dots], linestyle="", marker=style["marker"],
                    color=style["color"], markersize=10, markeredgecolor="black", zorder=4)  # fmt: skip
        _gpus(ax, result["groups"])
        dress(ax, "GPUs", label, "line: predicted; framed marker: measured on real ranks")
    left.set_yscale("log", base=2)
    _plain_ticks(left.yaxis)
    counts = sorted({line["gpus"] for line in lines})
    left.plot(counts, counts, color="#777777", linewidth=1, linestyle="--")
    right.axhline(1, color="#777777", linewidth=1, linestyle="--")
    right.set_ylim(bottom=0)
    _legend(picture, styles, result)
    return picture


def share(result: dict[str, Any]) -> Figure | None:
    """Skill less the sequential run's against the share of the training set in an update; a panel for each weak arm."""
    groups = [
        g
        for g in result["groups"]
        if g["mode"] == "weak" and g["budget"] == "epochs" and g.get("difference") is not None
    ]
    arms = [arm for arm in result["arms"] if len({g["data"] for g in groups if g["arm"] == arm}) > 1]
    if not arms:
        return None
    columns = min(len(arms), 3)
    picture = figure(4.1 * columns + 2.6, 3 * math.ceil(len(arms) / columns))
    axes = picture.subplots(math.ceil(len(arms) / columns), columns, squeeze=False, sharex=True, sharey=True).ravel()
    for ax, arm in zip(axes, arms, strict=False):
        for i, (data, about) in enumerate(result["data"].items()):
            own = sorted((g for g in groups if g["arm"] == arm and g["data"] == data), key=lambda g: g["share"])
            style = {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i], "linestyle": DASHES[i % len(DASHES)]}
            ax.plot([100 * g["share"] for g in own], [g["difference"] for g in own], label=about["label"], **style)
            for g in own:
                if g["diverged"]:
                    ax.annotate(f"✗{g['diverged']}/{g['runs']}", (100 * g["share"], g["difference"]), fontsize=8,
                                textcoords="offset points", xytext=(3, 5))  # fmt: skip
        ax.axhline(0, color="#777777", linewidth=1, linestyle="--")
        ax.set_xscale("log")
        _plain_ticks(ax.xaxis)
        dress(ax, "share of the training set in an update (%)", "skill minus one GPU's (1)", result["arms"][arm])
    for ax in axes[len(arms) :]:
        ax.set_visible(False)
    picture.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper", fontsize=9, frameon=False)
    return picture


def _shown(result: dict[str, Any]) -> list[Group]:
    return [g for g in result["groups"] if g["arm"] != SEQUENTIAL]


def _with_sequential(result: dict[str, Any]) -> list[Group]:
    """Strong cells are the sequential run: one point stands for them."""
    return [g for g in result["groups"] if "reason" not in g and not (g["mode"] == "strong" and g["gpus"] > 1)]


def _budgets(groups: list[Group]) -> list[str]:
    return [budget for budget in BUDGETS if any(g["budget"] == budget for g in groups)]


def _styles(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """By arm: colour, marker and dash, the same in all pictures."""
    arms = [arm for arm in result["arms"] if arm != SEQUENTIAL]
    return {
        arm: {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)], "linestyle": DASHES[i % 4]}
        for i, arm in enumerate(arms)
    }


def _line(
    ax: Any, arm: str, style: dict[str, Any], groups: list[Group], value: str, interval: str | None, arms: int
) -> None:
    groups = sorted(groups, key=lambda g: g["gpus"])
    index = MARKERS.index(style["marker"])
    at = [g["gpus"] * 2 ** ((index - arms / 2) * 0.035) for g in groups]
    values = [g[value] for g in groups]
    ax.plot(at, values, markersize=5, linewidth=1.3, zorder=3, **style)
    for x, g in zip(at, groups, strict=True):
        if interval and g[interval] is not None:
            ax.plot([x, x], g[interval], color=style["color"], linewidth=1.1, zorder=2)


def _dodged(gpus: int, arm: str, styles: dict[str, Any]) -> float:
    return gpus * 2 ** ((list(styles).index(arm) - len(styles) / 2) * 0.035)


def _gpus(ax: Any, groups: Iterable[Group]) -> None:
    counts = sorted({g["gpus"] for g in groups})
    ax.set_xscale("log", base=2)
    ax.set_xticks(counts, counts)
    ax.set_xlim(counts[0] / 1.35, counts[-1] * 1.35)
    ax.minorticks_off()


def _strip(ax: Any, groups: list[Group], arms: list[str], styles: dict[str, Any], result: dict[str, Any]) -> None:
    """A line for each arm that has failures: runs that did not converge of all runs, or – where a cell cannot be."""
    for row, arm in enumerate(arms):
        for g in (g for g in groups if g["arm"] == arm):
            text = "–" if "reason" in g else f"{g['diverged']}/{g['runs']}" if g["diverged"] else ""
            ax.text(g["gpus"], row, text, ha="center", va="center", fontsize=8, color=styles[arm]["color"])
    _gpus(ax, groups)
    ax.set_yticks(range(len(arms)), [result["arms"][arm] for arm in arms])
    ax.set_ylim(len(arms) - 0.5 if arms else 0.5, -0.5)
    ax.tick_params(labelsize=7, left=False)
    ax.set_xlabel("GPUs" + ("; above: runs that did not converge, – cannot be" if arms else ""), fontsize=9)
    ax.spines[["top", "right", "left"]].set_visible(False)


def _panels(result: dict[str, Any]) -> tuple[Figure, Any]:
    count = len(result["data"])
    columns = min(count, 2)
    picture = figure(5.2 * columns + 2.6, 3.3 * math.ceil(count / columns))
    axes = picture.subplots(math.ceil(count / columns), columns, squeeze=False).ravel()
    for ax in axes[count:]:
        ax.set_visible(False)
    return picture, axes


def _legend(picture: Figure, styles: dict[str, dict[str, Any]], result: dict[str, Any]) -> None:
    from matplotlib.lines import Line2D

    entries = [Line2D([], [], label=result["arms"][arm], markersize=6, **style) for arm, style in styles.items()]
    if SEQUENTIAL not in styles:
        entries.insert(0, Line2D([], [], label="sequential, one GPU", color="black", linewidth=1))
    picture.legend(handles=entries, loc="outside right upper", fontsize=9, frameon=False)
