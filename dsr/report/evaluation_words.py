"""What an evaluation says: who wins in plain words, and the skill table."""

from __future__ import annotations

import math
from typing import Any

from dsr.verify.baselines import BASELINES
from dsr.verify.intervals import FEWEST_CASES
from dsr.verify.metrics import METRICS

LABELS = {"network": "network", **{name: BASELINES.find(name).label for name in BASELINES.table}}
COLUMNS = (*(METRICS.find(name).label for name in METRICS.table), "network minus it")


def headlines(result: dict[str, Any]) -> list[str]:
    """Who wins, in plain words: a sentence or two for each variable."""
    return [_headline(name, found, result["methods"]) for name, found in result["variables"].items()]


def _headline(name: str, found: dict[str, Any], labels: dict[str, str]) -> str:
    rmse = {m: value for m, value in found["rmse"].items() if value is not None}
    units, winner = found["units"], found["winner"]
    if "network" not in rmse:
        return (
            f"{name}: the network gives no value where there is truth; {labels[winner]} wins."
            if winner
            else f"{name}: no truth."
        )
    best = min((m for m in rmse if m != "network"), key=lambda m: rmse[m])
    change = 100 * (rmse["network"] / rmse[best] - 1)
    share = f"{abs(change):.0f} % {'less' if change < 0 else 'more'}"
    scores = f"RMSE {rmse['network']:.4g} against {rmse[best]:.4g} {units}, {share}"
    verbs = ("is ahead of", "is behind") if undecided(found) else ("wins over", "loses to")
    verb = verbs[0] if winner == "network" else verbs[1]
    text = f"{name}: the network {verb} {labels[best]} ({scores})"
    if undecided(found):
        text += "; the two are indistinguishable on these cases"
    if found["leads"]:
        text += ". By lead time: " + _by_lead(found["leads"], labels)
    return text + "."


def undecided(found: dict[str, Any]) -> bool:
    """Whether the network and the best baseline are indistinguishable."""
    return found["decided"] is False


def _by_lead(leads: list[dict[str, Any]], labels: dict[str, str]) -> str:
    hours: dict[str, list[str]] = {}
    for lead in leads:
        text = "indistinguishable" if undecided(lead) else f"{labels.get(lead['winner'], 'nobody')} wins"
        hours.setdefault(text, []).append(f"+{lead['lead_time'] / 3600:g}")
    if len(hours) == 1:
        return f"{next(iter(hours))} throughout"
    return "; ".join(f"{text} at {', '.join(at)} h" for text, at in hours.items())


def caution(result: dict[str, Any]) -> str:
    """How far the figures can be trusted."""
    cases = result["independent_blocks"]
    basis = f"{result['samples']} samples of {result['runs']} init times; {cases} cases, one per day of init times"
    if cases < FEWEST_CASES:
        return f"Too few independent cases for an interval ({basis}): a demonstration, not evidence."
    return (
        f"{basis}. Each interval is a 95 % confidence interval that allows for correlation from one case to the next. "
        f"{_compared(result)}"
    )


def _compared(result: dict[str, Any]) -> str:
    entries = [entry for found in result["variables"].values() for entry in (found, *found["leads"])]
    count = sum(entry["decided"] is not None for entry in entries)
    if count < 2:
        return "Indistinguishable: a difference this large can be due to chance (5 % level)."
    return (
        f"Indistinguishable: not among the differences that pass a false discovery rate of 5 % over all {count} "
        "comparisons (variables and lead times) with the best baseline."
    )


def table(result: dict[str, Any]) -> Any:
    """The skill table of each variable with the winner marked, and who wins in words: a rich renderable."""
    from rich.console import Group
    from rich.table import Table

    parts: list[Any] = []
    for name, found in result["variables"].items():
        shown = Table(
            title=f"{name} [{found['units']}], {result['split']} split".replace("[", r"\["), title_justify="left"
        )
        shown.add_column("method", no_wrap=True)
        for heading in COLUMNS:
            shown.add_column(heading, justify="right")
        for method, cells in rows(result, name):
            style = "bold green" if method == found["winner"] else None
            shown.add_row(result["methods"][method] + (" *" if style else ""), *cells, style=style)
        parts.append(shown)
    omitted = [f"not there: {LABELS[method]}: {reason}" for method, reason in result["omitted"].items()]
    return Group(*parts, "* lowest RMSE", *omitted, *result["notes"], *headlines(result), caution(result))


def rows(result: dict[str, Any], name: str) -> list[tuple[str, list[str]]]:
    """The skill table of a variable: (method, its cells under COLUMNS), best first; one without a value is left out."""
    found = result["variables"][name]
    units = {name: METRICS.find(name).in_units for name in METRICS.table}
    rmse = {method: value for method, value in found["rmse"].items() if value is not None}
    # In the variable's units, as many decimals as the best RMSE needs.
    decimals = max(0, 2 - math.floor(math.log10(min(rmse.values(), default=1.0) or 1.0)))
    lines = []
    for method in sorted(rmse, key=lambda m: rmse[m]):
        values = {key: found[key][method] for key in units}
        cells = ["" if v is None else _fixed(v, decimals if units[key] else 3) for key, v in values.items()]
        difference = found["difference"].get(method)
        text = "" if difference is None else f"{difference['rmse']:+.{decimals}f}"
        if difference and difference["interval"]:
            text += " [{:+.{d}f}, {:+.{d}f}]".format(*difference["interval"], d=decimals)
        lines.append((method, [*cells, text]))
    return lines


def _fixed(value: float, decimals: int) -> str:
    """The number with so many decimals, and no minus before a zero."""
    return f"{round(value, decimals) + 0.0:.{decimals}f}"
