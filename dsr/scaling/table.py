"""`dsr plan`: every mode at every number of GPUs, side by side, and why some combinations are impossible."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from dsr.errors import UserError
from dsr.scaling import schedule
from dsr.scaling.plan import MODES, make_plan
from dsr.scaling.rules import rule_of

if TYPE_CHECKING:
    from dsr.config import Experiment

COLUMNS = (
    "slots",
    "accumulation",
    "effective_batch",
    "learning_rate",
    "warmup_updates",
    "updates_per_epoch",
    "updates",
)


def cells(experiment: Experiment, samples: int, counts: Sequence[int]) -> list[dict[str, Any]]:
    """Every mode at every number of GPUs in `counts`, with as many devices as GPUs.

    `samples` counts the training split. Each cell holds the fields of its Plan and "notes" on its rates, or "mode",
    "gpus" and the "reason" why there is no such plan.
    """
    result = []
    for mode in MODES:
        for gpus in counts if mode != "sequential" else [1]:
            try:
                plan = make_plan(experiment, mode=mode, gpus=gpus, samples=samples, available=gpus)
            except UserError as error:
                result.append({"mode": mode, "gpus": gpus, "reason": str(error)})
            else:
                notes = schedule.notes(experiment, plan)
                if rule_of(experiment, plan.slots, plan.auto).measures_gain:
                    notes.append(f"training multiplies the rate by the gain that it measures, from 1 to {gpus}")
                result.append({**asdict(plan), "notes": notes})
    return result


def table(cells: list[dict[str, Any]]) -> Any:
    """The cells as a rich table, followed by the notes on plans and the reasons of impossible cells."""
    from rich.console import Group
    from rich.table import Table

    plans = [cell for cell in cells if "reason" not in cell]
    grid = Table(title=f"{plans[0]['samples'] if plans else 0} training samples")
    grid.add_column("mode")
    for name in ("gpus", *COLUMNS):
        grid.add_column(name.replace("_", " "), justify="right")
    for cell in cells:
        grid.add_row(cell["mode"], str(cell["gpus"]), *(_shown(cell, name) for name in COLUMNS))
    reasons = [f"{_name(cell)}: {cell['reason']}" for cell in cells if "reason" in cell]
    return Group(grid, *_notes(plans), *reasons, *_left_out(plans))


def _name(cell: dict[str, Any]) -> str:
    return f"{cell['mode']} at {cell['gpus']}"


def _shown(cell: dict[str, Any], column: str) -> str:
    if "reason" in cell:
        return "-"
    return f"{cell[column]:.4g}" if column == "learning_rate" else f"{cell[column]:g}"


def _notes(plans: list[dict[str, Any]]) -> list[str]:
    """What the table does not show: growing batches, changed optimizer parameters, and each plan's notes."""
    notes, shared = [], defaultdict[tuple[str, str], list[str]](list)
    for plan in plans:
        if len(plan["phases"]) > 1:
            phases = ", ".join(f"{p['effective_batch']} from update {p['update'] + 1}" for p in plan["phases"])
            notes.append(f"{_name(plan)}: the batch grows, {phases}")
        if plan["optimizer"]:
            notes.append(f"{_name(plan)}: {', '.join(f'{key} {value}' for key, value in plan['optimizer'].items())}")
        for note in plan["notes"]:
            shared[plan["mode"], note].append(str(plan["gpus"]))
    return notes + [f"{mode} at {', '.join(gpus)}: {note}" for (mode, note), gpus in shared.items()]


def _left_out(plans: list[dict[str, Any]]) -> list[str]:
    tail = max((plan["samples"] % plan["effective_batch"] for plan in plans), default=0)
    if not tail:
        return []
    return [f"Up to {tail} samples are left out of each epoch, different ones every time: an update is never partial."]
