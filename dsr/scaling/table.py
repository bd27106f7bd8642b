"""`dsr plan`: the derived numbers of every mode side by side, and which cells cannot be and why."""

from collections import defaultdict
from dataclasses import asdict
from typing import Any

from dsr.errors import UserError
from dsr.scaling import schedule
from dsr.scaling.plan import Plan, plan_cells
from dsr.task import Task


def cells(task: Task, gpus: str) -> list[dict[str, Any]]:
    """A plan with "notes" on its schedule, or {"mode", "gpus", "reason"}, for every mode and every count in "1,2,4".

    Raises UserError where these are no counts.
    """
    try:
        counts = [int(text) for text in gpus.split(",")]
    except ValueError:
        counts = [0]
    if min(counts) < 1:
        raise UserError(f"--gpus {gpus}: write positive whole numbers with commas between, such as 1,2,4")
    found, user = list[dict[str, Any]](), task.experiment.deepspeed.get("scheduler")
    for mode, count, cell in plan_cells(task.experiment, counts, task.samples):
        if isinstance(cell, Plan):
            found.append({**asdict(cell), "notes": schedule.notes(cell, user)})
        else:
            found.append({"mode": mode, "gpus": count, "reason": cell})
    return found


def table(found: list[dict[str, Any]]) -> Any:
    """The cells as a rich table, and below it the reasons of those that cannot be."""
    from rich.console import Group
    from rich.table import Table

    keys = (
        "slots",
        "accumulation",
        "effective_batch",
        "learning_rate",
        "warmup_updates",
        "updates_per_epoch",
        "updates",
    )
    grid = Table(title=f"{next((c['samples'] for c in found if 'samples' in c), 0)} training samples")
    grid.add_column("mode")
    for name in ("gpus", *keys):
        grid.add_column(name.replace("_", " "), justify="right")
    notes, noted = [], defaultdict[tuple[str, str], list[str]](list)
    for cell in found:
        name = f"{cell['mode']} at {cell['gpus']}"
        if "reason" in cell:
            grid.add_row(cell["mode"], str(cell["gpus"]), *["-"] * len(keys))
            continue
        rate = f"{cell['learning_rate']:.4g}"  # WarmupCosineLR begins a little below its peak
        grid.add_row(
            cell["mode"], str(cell["gpus"]), *(rate if key == "learning_rate" else f"{cell[key]:g}" for key in keys)
        )
        for note in cell["notes"]:
            noted[cell["mode"], note].append(str(cell["gpus"]))
        if len(cell["phases"]) > 1:
            phases = ", ".join(f"{p['effective_batch']} from update {p['update'] + 1}" for p in cell["phases"])
            notes.append(f"{name}: the batch grows, {phases}")
        if cell["rule"] == "adascale":
            notes.append(f"{name}: the rate is multiplied by the gain that training measures, from 1 to {cell['gpus']}")
        if cell["optimizer"]:
            notes.append(f"{name}: {', '.join(f'{key} {value}' for key, value in cell['optimizer'].items())}")
    notes += [f"{mode} at {', '.join(counts)}: {note}" for (mode, note), counts in noted.items()]
    reasons = [f"{c['mode']} at {c['gpus']}: {c['reason']}" for c in found if "reason" in c]
    tail = max((c["samples"] % c["effective_batch"] for c in found if "samples" in c), default=0)
    note = f"Of an epoch's samples up to {tail} are left out, others in every epoch: an update is never partial."
    return Group(grid, *notes, *reasons, *([note] if tail else []))
