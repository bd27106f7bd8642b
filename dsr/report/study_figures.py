"""The figures of a study, accessible and printable."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from dsr.report.figures import COLOURS, REFERENCE, dress, empty_figure, plain_ticks
from dsr.study.ablation import SEQUENTIAL
from dsr.study.study import Group, Impossible, Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Marker and dash repeat what the colour shows, for printing in black and white.
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "*", "h", "d", "8")
DASHES = ("-", "--", "-.", ":")
BUDGETS = {"epochs": "equal epochs", "updates": "equal updates"}


def skill(study: Study, data: str) -> Figure:
    """Skill against GPUs for each arm of a data set with intervals, a panel for each budget.

    Below each panel are the numbers of runs that did not converge, and the cells that are impossible.
    """
    about, groups = study.data[data], [g for g in _shown(study) if g.data == data]
    styles = {arm: style for arm, style in _styles(study).items() if any(g.arm == arm for g in groups)}
    budgets = _budgets(groups)
    failing = [arm for arm in styles if any(g.arm == arm and (isinstance(g, Impossible) or g.diverged) for g in groups)]
    strip = 0.22 * max(len(failing), 1)
    fig = empty_figure(12.5, 4.2 + strip)
    axes = fig.subplots(2, len(budgets), squeeze=False, height_ratios=[4.2, strip])
    for ax, below, budget in zip(*axes, budgets, strict=True):
        of_budget = [g for g in groups if g.budget == budget]
        converged = [g for g in of_budget if isinstance(g, Group) and g.skill is not None]
        if about.sequential_skill:
            ax.axhline(np.mean(about.sequential_skill), color="black", linewidth=1)
        if about.same:
            ax.axhspan(*about.same, color="black", alpha=0.12, linewidth=0)
        for arm, style in styles.items():
            of_arm = [g for g in converged if g.arm == arm]
            if of_arm:
                _line(ax, arm, style, of_arm, "skill", "skill_interval", len(styles))
        means = [g.skill for g in converged if g.skill is not None] + list(about.same or [])
        if means:
            margin = 0.15 * (max(means) - min(means)) + 0.01
            ax.set_ylim(min(means) - margin, max(means) + margin)  # intervals over two or three seeds extend beyond it
        _gpus(ax, of_budget)
        dress(ax, "", "skill over bicubic (1)", f"{about.label}\n{BUDGETS[budget]}")
        ax.tick_params(labelbottom=False)
        _strip(below, of_budget, failing, styles, study)
    _legend(fig, styles, study)
    return fig


def curves(study: Study, lines: list[dict[str, Any]]) -> Figure | None:
    """Learning curves at the most GPUs of each data set, at equal epochs: against samples and against updates.

    The line is the median over the seeds, the band their range.
    """
    styles = {SEQUENTIAL: {"color": "black", "marker": "", "linestyle": "-"}, **_styles(study)}
    chosen = {}
    for data in study.data:
        weak = [g.gpus for g in study.possible if g.data == data and g.mode == "weak"]
        if weak:
            chosen[data] = max(weak)
    if not chosen:
        return None
    fig = empty_figure(12.5, 3.3 * len(chosen))
    axes = fig.subplots(len(chosen), 2, squeeze=False)
    for row, (data, gpus) in enumerate(chosen.items()):
        for ax, axis in zip(axes[row], ("samples", "updates"), strict=True):
            for arm, style in styles.items():
                validations = [
                    line for line in lines if line["data"] == data and line["arm"] == arm and line["budget"] == "epochs"
                ]
                validations = [line for line in validations if line["gpus"] == (1 if arm == SEQUENTIAL else gpus)]
                seeds = len({line["seed"] for line in validations})
                by_place: dict[float, list[float]] = {}
                for line in validations:
                    by_place.setdefault(line[axis], []).append(line["skill"])
                at = sorted(x for x, skills in by_place.items() if len(skills) == seeds)
                values = [by_place[x] for x in at]
                if not at:
                    continue
                plain = {"color": style["color"], "linestyle": style["linestyle"]}
                ax.plot(at, [np.median(v) for v in values], linewidth=1.6, **plain)
                ax.fill_between(
                    at, [min(v) for v in values], [max(v) for v in values], color=style["color"], alpha=0.15
                )
            ax.set_xscale("log")
            plain_ticks(ax.xaxis)
            best = max((line["skill"] for line in lines if line["data"] == data), default=1.0)
            ax.set_ylim(-0.3 * best, 1.1 * best)  # diverged runs extend beyond the axes
            ax.axhline(0, color=REFERENCE, linewidth=1, linestyle="--")
            dress(ax, f"{axis} (number, log scale)", "skill, validation (1)",
                   f"{study.data[data].label}\n{gpus} GPUs, equal epochs")  # fmt: skip
    _legend(fig, styles, study)
    return fig


def noise(study: Study) -> Figure | None:
    """The gradient noise scale against the effective batch; None if no run measured it."""
    groups = [g for g in _with_sequential(study) if g.noise_scale]
    if not groups:
        return None
    styles = {SEQUENTIAL: {"color": "black", "marker": "o", "linestyle": ""}, **_styles(study)}
    fig, axes = _panels(study)
    for ax, data in zip(axes, study.data, strict=False):
        of_data = [g for g in groups if g.data == data and g.budget == "epochs"]
        points = [(g.effective_batch, g.noise_scale, g.arm) for g in of_data if g.effective_batch and g.noise_scale]
        batches = sorted({batch for batch, _, _ in points})
        for arm, style in styles.items():
            of_arm = sorted((batch, scale) for batch, scale, of in points if of == arm)
            if of_arm:
                ax.plot(*zip(*of_arm, strict=True), markersize=6, linewidth=1.4, **style)
        if batches:
            ax.plot(batches, batches, color=REFERENCE, linewidth=1, linestyle="--")
        ax.set_xscale("log", base=2)
        ax.set_yscale("log")
        ax.set_xticks(batches, batches)
        plain_ticks(ax.yaxis)
        dress(ax, "effective batch (samples)", "noise scale (samples)", study.data[data].label)
    _legend(fig, styles, study)
    return fig


def target(study: Study) -> Figure | None:
    """Predicted seconds to the target against GPUs; a cross at the top if half of the runs or more missed it."""
    groups, styles = _shown(study), _styles(study)
    budgets = _budgets(groups)
    if not any(g.predicted_seconds_to_target for g in groups if isinstance(g, Group)):
        return None
    fig = empty_figure(5.4 * len(budgets) + 2.6, 3.3 * len(study.data))
    axes = fig.subplots(len(study.data), len(budgets), squeeze=False)
    for row, data in enumerate(study.data):
        for column, budget in enumerate(budgets):
            ax, of_panel = axes[row][column], [g for g in groups if g.data == data and g.budget == budget]
            for arm, style in styles.items():
                of_arm = [g for g in of_panel if g.arm == arm and isinstance(g, Group)]
                reached = [g for g in of_arm if g.predicted_seconds_to_target]
                _line(ax, arm, style, reached, "predicted_seconds_to_target", None, len(styles))
                for gpus in (g.gpus for g in of_arm if not g.predicted_seconds_to_target):
                    ax.plot(_dodged(gpus, arm, styles), 0.97, "x", color=style["color"], markersize=6, zorder=4,
                            transform=ax.get_xaxis_transform())  # fmt: skip
            ax.set_yscale("log")
            plain_ticks(ax.yaxis)
            _gpus(ax, study.groups)
            ax.set_ylim(top=ax.get_ylim()[1] * 1.6)
            dress(ax, "GPUs", "predicted time to target (s)", f"{study.data[data].label}\n{BUDGETS[budget]}")
            if not of_panel:
                ax.set_visible(False)
    _legend(fig, styles, study)
    return fig


def speedup(study: Study, lines: list[dict[str, Any]]) -> Figure | None:
    """Speed-up of an update's samples per second, and efficiency: predicted as lines, measured as filled squares."""
    if not lines:
        return None
    styles = {name: style for name, style in _styles(study).items() if any(line["arm"] == name for line in lines)}
    fig = empty_figure(12.5, 3.7)
    left, right = fig.subplots(1, 2)
    for ax, key, label in ((left, "speed_up", "speed-up (1)"), (right, "efficiency", "efficiency (1)")):
        for arm, style in styles.items():
            plain = {**style, "marker": ""}
            predicted = [line for line in lines if line["arm"] == arm and line["how"] == "predicted"]
            ax.plot([p["gpus"] for p in predicted], [p[key] for p in predicted], linewidth=1.5, **plain)
            measured = [line for line in lines if line["arm"] == arm and line["how"] == "measured"]
            ax.plot([p["gpus"] for p in measured], [p[key] for p in measured], linestyle="", marker=style["marker"],
                    color=style["color"], markersize=10, markeredgecolor="black", zorder=4)  # fmt: skip
        _gpus(ax, study.groups)
        dress(ax, "GPUs", label, "line: predicted; framed marker: measured on real ranks")
    left.set_yscale("log", base=2)
    plain_ticks(left.yaxis)
    counts = sorted({line["gpus"] for line in lines})
    left.plot(counts, counts, color=REFERENCE, linewidth=1, linestyle="--")
    right.axhline(1, color=REFERENCE, linewidth=1, linestyle="--")
    right.set_ylim(bottom=0)
    _legend(fig, styles, study)
    return fig


def share(study: Study) -> Figure | None:
    """Skill minus the sequential run's, against the share of the training set in an update; a panel per weak arm."""
    groups = [g for g in study.possible if g.mode == "weak" and g.budget == "epochs" and g.difference is not None]
    arms = [arm for arm in study.arms if len({g.data for g in groups if g.arm == arm}) > 1]
    if not arms:
        return None
    columns = min(len(arms), 3)
    fig = empty_figure(4.1 * columns + 2.6, 3 * math.ceil(len(arms) / columns))
    axes = fig.subplots(math.ceil(len(arms) / columns), columns, squeeze=False, sharex=True, sharey=True).ravel()
    for ax, arm in zip(axes, arms, strict=False):
        for i, (data, about) in enumerate(study.data.items()):
            of_arm = sorted((g for g in groups if g.arm == arm and g.data == data), key=lambda g: g.share or 0)
            style = {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i], "linestyle": DASHES[i % len(DASHES)]}
            ax.plot([100 * (g.share or 0) for g in of_arm], [g.difference for g in of_arm], label=about.label, **style)
            for g in of_arm:
                if g.diverged:
                    ax.annotate(f"✗{g.diverged}/{g.runs}", (100 * (g.share or 0), g.difference or 0), fontsize=8,
                                textcoords="offset points", xytext=(3, 5))  # fmt: skip
        ax.axhline(0, color=REFERENCE, linewidth=1, linestyle="--")
        ax.set_xscale("log")
        plain_ticks(ax.xaxis)
        dress(ax, "share of the training set in an update (%)", "skill minus one GPU's (1)", study.arms[arm])
    for ax in axes[len(arms) :]:
        ax.set_visible(False)
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper", fontsize=9, frameon=False)
    return fig


def _shown(study: Study) -> list[Group | Impossible]:
    return [g for g in study.groups if g.arm != SEQUENTIAL]


def _with_sequential(study: Study) -> list[Group]:
    """The groups, without strong ones on several GPUs, which are the sequential run again."""
    return [g for g in study.possible if not (g.mode == "strong" and g.gpus > 1)]


def _budgets(groups: list[Group | Impossible]) -> list[str]:
    return [budget for budget in BUDGETS if any(g.budget == budget for g in groups)]


def _styles(study: Study) -> dict[str, dict[str, Any]]:
    """By arm: colour, marker and dash, the same in all figures."""
    arms = [arm for arm in study.arms if arm != SEQUENTIAL]
    return {
        arm: {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)], "linestyle": DASHES[i % 4]}
        for i, arm in enumerate(arms)
    }


def _line(
    ax: Any, arm: str, style: dict[str, Any], groups: list[Group], value: str, interval: str | None, arms: int
) -> None:
    groups = sorted(groups, key=lambda g: g.gpus)
    index = MARKERS.index(style["marker"])
    at = [g.gpus * 2 ** ((index - arms / 2) * 0.035) for g in groups]
    values = [getattr(g, value) for g in groups]
    ax.plot(at, values, markersize=5, linewidth=1.3, zorder=3, **style)
    for x, g in zip(at, groups, strict=True):
        if interval and getattr(g, interval) is not None:
            ax.plot([x, x], getattr(g, interval), color=style["color"], linewidth=1.1, zorder=2)


def _dodged(gpus: int, arm: str, styles: dict[str, Any]) -> float:
    return gpus * 2 ** ((list(styles).index(arm) - len(styles) / 2) * 0.035)


def _gpus(ax: Any, groups: Iterable[Group | Impossible]) -> None:
    counts = sorted({g.gpus for g in groups})
    ax.set_xscale("log", base=2)
    ax.set_xticks(counts, counts)
    ax.set_xlim(counts[0] / 1.35, counts[-1] * 1.35)
    ax.minorticks_off()


def _strip(ax: Any, groups: list[Group | Impossible], arms: list[str], styles: dict[str, Any], study: Study) -> None:
    """A line for each arm with failures: how many of its runs did not converge, or – if a cell is impossible."""
    for row, arm in enumerate(arms):
        for g in (g for g in groups if g.arm == arm):
            text = "–" if isinstance(g, Impossible) else f"{g.diverged}/{g.runs}" if g.diverged else ""
            ax.text(g.gpus, row, text, ha="center", va="center", fontsize=8, color=styles[arm]["color"])
    _gpus(ax, groups)
    ax.set_yticks(range(len(arms)), [study.arms[arm] for arm in arms])
    ax.set_ylim(len(arms) - 0.5 if arms else 0.5, -0.5)
    ax.tick_params(labelsize=7, left=False)
    ax.set_xlabel("GPUs" + ("; above: runs that did not converge, – impossible" if arms else ""), fontsize=9)
    ax.spines[["top", "right", "left"]].set_visible(False)


def _panels(study: Study) -> tuple[Figure, Any]:
    count = len(study.data)
    columns = min(count, 2)
    fig = empty_figure(5.2 * columns + 2.6, 3.3 * math.ceil(count / columns))
    axes = fig.subplots(math.ceil(count / columns), columns, squeeze=False).ravel()
    for ax in axes[count:]:
        ax.set_visible(False)
    return fig, axes


def _legend(fig: Figure, styles: dict[str, dict[str, Any]], study: Study) -> None:
    from matplotlib.lines import Line2D

    entries = [Line2D([], [], label=study.arms[arm], markersize=6, **style) for arm, style in styles.items()]
    if SEQUENTIAL not in styles:
        entries.insert(0, Line2D([], [], label="sequential, one GPU", color="black", linewidth=1))
    fig.legend(handles=entries, loc="outside right upper", fontsize=9, frameon=False)
