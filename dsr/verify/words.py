"""What an evaluation says: who wins in plain words, and the skill table."""

from __future__ import annotations

import math
from typing import Any

LABELS = {
    "network": "network",
    "nearest": "nearest",
    "bilinear": "bilinear",
    "bicubic": "bicubic",
    "elevation": "bicubic + lapse rate",
    "bicubic_bias": "bicubic + bias",
    "climatology": "climatology",
    "ridge": "ridge regression",
    "control": "control member",
    "ensemble_mean": "ensemble mean",
}
COLUMNS = ("RMSE", "MAE", "bias", "corr.", "anom. corr.", "SSIM", "network minus it")
FEWEST_BLOCKS = 10  # with fewer independent blocks there is no interval


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
        text += "; too close to call: the 95 % interval of the difference holds zero"
    if found["leads"]:
        text += ". By lead time: " + _by_lead(found["leads"], labels)
    return text + "."


def undecided(found: dict[str, Any]) -> bool:
    """Whether the interval of the network's difference to the best baseline holds zero."""
    if not found["difference"]:
        return False
    best = min(found["difference"], key=lambda method: found["rmse"][method])
    interval = found["difference"][best]["interval"]
    return interval is not None and interval[0] <= 0 <= interval[1]


def _by_lead(leads: list[dict[str, Any]], labels: dict[str, str]) -> str:
    winners: dict[str, list[str]] = {}
    for lead in leads:
        winners.setdefault(lead["winner"], []).append(f"+{lead['lead_time'] / 3600:g}")
    if len(winners) == 1:
        return f"{labels.get(leads[0]['winner'], 'nobody')} wins throughout"
    return "; ".join(f"{labels.get(m, 'nobody')} wins at {', '.join(hours)} h" for m, hours in winners.items())


def caution(result: dict[str, Any]) -> str:
    """How far the figures can be trusted."""
    blocks, length = result["independent_blocks"], result["block_runs"]
    each = "1 init time" if length == 1 else f"{length} init times"
    basis = f"{result['samples']} samples, {result['runs']} init times, {blocks} independent blocks of {each}"
    if blocks < FEWEST_BLOCKS:
        return f"Too few independent cases for an interval ({basis}): a demonstration, not evidence."
    return f"{basis}; intervals: 95 %, paired bootstrap of the difference over whole blocks."


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
    keys = ("rmse", "mae", "bias", "correlation", "anomaly_correlation", "ssim")
    units = ("rmse", "mae", "bias")  # metrics in the variable's units: as many decimals as the best RMSE needs
    rmse = {method: value for method, value in found["rmse"].items() if value is not None}
    decimals = max(0, 2 - math.floor(math.log10(min(rmse.values(), default=1.0) or 1.0)))
    lines = []
    for method in sorted(rmse, key=lambda m: rmse[m]):
        values = {key: found[key][method] for key in keys}
        cells = ["" if v is None else _fixed(v, decimals if key in units else 3) for key, v in values.items()]
        difference = found["difference"].get(method)
        text = "" if difference is None else f"{difference['rmse']:+.{decimals}f}"
        if difference and difference["interval"]:
            text += " [{:+.{d}f}, {:+.{d}f}]".format(*difference["interval"], d=decimals)
        lines.append((method, [*cells, text]))
    return lines


def _fixed(value: float, decimals: int) -> str:
    """The number with so many decimals, and no minus before a zero."""
    return f"{round(value, decimals) + 0.0:.{decimals}f}"
