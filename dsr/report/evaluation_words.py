"""An evaluation in words: which method wins, how far that can be trusted, and the skill table."""

from __future__ import annotations

import math
from typing import Any

from dsr.verify.baselines import label
from dsr.verify.evaluation import Evaluation, LeadSkill, Skill, VariableSkill
from dsr.verify.intervals import FEWEST_CASES
from dsr.verify.metrics import METRICS


def columns() -> list[str]:
    """The headings of the skill table, without that of the methods."""
    return [*(METRICS.find(name).label for name in METRICS.table), "network minus method"]


def headlines(evaluation: Evaluation) -> list[str]:
    """Which method wins: a sentence or two for each variable."""
    return [_headline(name, skill, evaluation.methods) for name, skill in evaluation.variables.items()]


def _headline(name: str, skill: VariableSkill, labels: dict[str, str]) -> str:
    rmse, best = skill.rmse, skill.best_baseline
    if "network" not in rmse or best is None:
        if skill.winner is None:
            return f"{name}: no truth."
        return f"{name}: the network has no value where there is truth; {labels[skill.winner]} wins."
    change = 100 * (rmse["network"] / rmse[best] - 1)
    share = f"{abs(change):.0f} % {'less' if change < 0 else 'more'}"
    scores = f"RMSE {rmse['network']:.4g} against {rmse[best]:.4g} {skill.units}, {share}"
    verbs = ("is ahead of", "is behind") if undecided(skill) else ("wins over", "loses to")
    verb = verbs[0] if skill.winner == "network" else verbs[1]
    text = f"{name}: the network {verb} {labels[best]} ({scores})"
    if undecided(skill):
        text += "; the two are indistinguishable on these cases"
    if skill.leads:
        text += f". By lead time: {_by_lead(skill.leads, labels)}"
    return f"{text}."


def undecided(skill: Skill) -> bool:
    """Whether the network and the best baseline are indistinguishable."""
    return skill.decided is False


def _by_lead(leads: list[LeadSkill], labels: dict[str, str]) -> str:
    hours: dict[str, list[str]] = {}
    for lead in leads:
        text = "indistinguishable" if undecided(lead) else f"{labels.get(lead.winner or '', 'nobody')} wins"
        hours.setdefault(text, []).append(f"+{lead.lead_time / 3600:g}")
    if len(hours) == 1:
        return f"{next(iter(hours))} throughout"
    return "; ".join(f"{text} at {', '.join(at)} h" for text, at in hours.items())


def caution(evaluation: Evaluation) -> str:
    """How far the figures can be trusted."""
    cases = evaluation.independent_blocks
    basis = f"{evaluation.samples} samples of {evaluation.runs} init times; {cases} cases, one per day of init times"
    if cases < FEWEST_CASES:
        return f"Too few independent cases for an interval ({basis}): a demonstration, not evidence."
    return (
        f"{basis}. Each interval is a 95 % confidence interval that allows for correlation from one case to the next. "
        f"{criterion(evaluation)}"
    )


def criterion(evaluation: Evaluation) -> str:
    """What "indistinguishable" means in this evaluation."""
    count = sum(skill.decided is not None for skill in evaluation.skills())
    if count < 2:
        return "Indistinguishable: a difference this large can be due to chance (5 % level)."
    return (
        f"Indistinguishable: not among the differences that pass a false discovery rate of 5 % over all {count} "
        "comparisons (variables and lead times) with the best baseline."
    )


def table(evaluation: Evaluation) -> Any:
    """The skill table of each variable with the winner marked, and the headlines: a rich renderable."""
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    parts: list[Any] = []
    for name, skill in evaluation.variables.items():
        title = Text(f"{name} [{skill.units}], {evaluation.split} split", style="table.title")
        shown = Table(title=title, title_justify="left")
        shown.add_column("method", no_wrap=True)
        for heading in columns():
            shown.add_column(escape(heading), justify="right")
        for method, cells in rows(evaluation, name):
            style = "bold green" if method == skill.winner else None
            heading = evaluation.methods[method] + (" *" if style else "")
            shown.add_row(Text(heading), *map(Text, cells), style=style)
        parts.append(shown)
    omitted = [f"omitted: {label(method)}: {reason}" for method, reason in evaluation.omitted.items()]
    lines = ["* lowest RMSE", *omitted, *evaluation.notes, *headlines(evaluation), caution(evaluation)]
    return Group(*parts, *map(Text, lines))


def rows(evaluation: Evaluation, name: str) -> list[tuple[str, list[str]]]:
    """The skill table of a variable: (method, its cells as in `columns`), best first; only methods with an RMSE."""
    skill = evaluation.variables[name]
    rmse = skill.rmse
    # In the variable's units, as many decimals as the best RMSE needs.
    decimals = max(0, 2 - math.floor(math.log10(min(rmse.values(), default=1.0) or 1.0)))
    lines = []
    for method in sorted(rmse, key=lambda m: rmse[m]):
        cells = []
        for metric in METRICS.table:
            value = skill.scores.get(metric, {}).get(method)
            cells.append("" if value is None else _fixed(value, decimals if METRICS.find(metric).in_units else 3))
        difference = skill.difference.get(method)
        text = "" if difference is None else f"{difference.rmse:+.{decimals}f}"
        if difference and difference.interval:
            text += " [{:+.{d}f}, {:+.{d}f}]".format(*difference.interval, d=decimals)
        lines.append((method, [*cells, text]))
    return lines


def _fixed(value: float, decimals: int) -> str:
    """The number with this many decimals, and no minus sign for zero."""
    return f"{round(value, decimals) + 0.0:.{decimals}f}"
