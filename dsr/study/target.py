"""Time to the target: updates, samples and predicted seconds of every run, and auto against the best of the grid."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from dsr.scaling import speed
from dsr.scaling.plan import Plan
from dsr.study.cells import Cell
from dsr.study.found import Found


@dataclass(frozen=True)
class Reached:
    """What one run needed to the target; seconds are predicted, on as many real GPUs as its plan has."""

    updates: int
    samples: int
    seconds: float | None


def skill_of_target(found: Found, data: str) -> float | None:
    """The target: a share, by the definitions, of the sequential runs' mean best skill on validation data."""
    curves = [found.record(cell).get("curve") for cell in found.sequential(data)]
    best = [max(skill for _, skill in curve) for curve in curves if curve]
    return found.ablation.definitions.target * float(np.mean(best)) if best else None


def reached(found: Found, cell: Cell) -> Reached | None:
    """By the first validation that reached the target; None where none did."""
    plan, target = found.plan(cell), skill_of_target(found, cell.data)
    if plan is None or target is None:
        return None
    curve = found.record(cell).get("curve", [])
    updates = next((updates for updates, skill in curve if skill >= target), None)
    if updates is None:
        return None
    update = update_seconds(found, cell, plan)
    return Reached(updates, plan.samples_seen(updates), None if update is None else updates * update)


def middle(values: list[float | None]) -> float | None:
    """The median over the seeds, one that did not reach the target as infinite; None where it is infinite."""
    found = median(math.inf if value is None else value for value in values) if values else math.inf
    return None if math.isinf(found) else found


@dataclass(frozen=True)
class Times:
    """What an update takes on one device: `update` for itself, and `slot` for each of its slots, in seconds."""

    update: float
    slot: float


def times(found: Found, like: Cell) -> Times | None:
    """From all runs on the same data: seconds = update + slots x slot, by least squares of the relative error.

    A slot's time is its micro-batch's own; what an update takes beside its slots (the optimizer's step, the engine)
    is the same for all. It is 0 where every micro-batch was played with one number of slots only.
    """
    measured: dict[tuple[int, int], list[float]] = {}
    for cell in found.cells:
        plan, seconds = found.plan(cell), found.record(cell).get("update_seconds")
        if plan and seconds and cell.data == like.data:
            measured.setdefault((plan.micro_batch, plan.slots // plan.devices), []).append(seconds)
    sizes = sorted({micro for micro, _ in measured})
    if like.plan is None or like.plan.micro_batch not in sizes:
        return None
    lines, values = [], []
    for (micro, slots), seconds in measured.items():
        value = median(seconds)
        lines.append([1 / value, *(slots / value if size == micro else 0.0 for size in sizes)])
        values.append(1.0)
    matrix = np.array(lines)
    solved = np.linalg.lstsq(matrix, values, rcond=None)[0]
    if len(measured) == len(sizes) or solved[0] < 0:
        solved = np.array([0.0, *np.linalg.lstsq(matrix[:, 1:], values, rcond=None)[0]])
    return Times(float(solved[0]), float(solved[1 + sizes.index(like.plan.micro_batch)]))


def update_seconds(found: Found, cell: Cell, plan: Plan) -> float | None:
    """Predicted seconds of an update on the plan's GPUs; None where the study timed no such slot."""
    measured, parameters = times(found, cell), _parameters(found, cell)
    if measured is None or parameters is None:
        return None
    wires = speed.Wires(**found.ablation.wires.model_dump())
    return measured.update + speed.update_seconds(plan.slots, plan.gpus, measured.slot, parameters, wires)


def speed_up(found: Found, cell: Cell) -> float | None:
    """Predicted samples per second relative to one GPU with the config's own batch."""
    plan, measured = found.plan(cell), times(found, cell)
    update = update_seconds(found, cell, plan) if plan else None
    if plan is None or measured is None or update is None:
        return None
    own = cell.task.experiment.accumulation
    return plan.slots / own * (measured.update + own * measured.slot) / update


def _parameters(found: Found, like: Cell) -> int | None:
    """How many the network has, as a run of the same arm tells."""
    records = [found.record(cell) for cell in found.cells if (cell.data, cell.arm) == (like.data, like.arm)]
    return next((record["test"]["parameters"] for record in records if "test" in record), None)


def against_the_best(found: Found, cells: list[Cell], groups: list[dict[str, Any]]) -> dict[str, Any]:
    """The runs of one arm in mode auto, and their medians against the best cell of the grid, found by hindsight.

    Of the grid count the cells, other than auto's, whose seeds all reached the target. What the probe itself took is
    told beside, and is not part of the ratios.
    """
    first = cells[0]
    grid = [g for g in groups if g["data"] == first.data and g["mode"] != "auto" and "reason" not in g]
    grid = [g for g in grid if g["reached_target"] == g["runs"]]
    runs = [_auto_run(found, cell) for cell in cells if found.record(cell).get("plan")]
    against = {}
    for what, column in (("samples", "samples_to_target"), ("seconds", "predicted_seconds_to_target")):
        best = min((g for g in grid if g[column] is not None), key=lambda g: g[column], default=None)
        own = middle([run[what] for run in runs])
        by_seed = [run[what] / best[column] for run in runs if best and run[what] is not None]
        against[what] = {
            "auto": own,
            "best": best and best[column],
            "best_cell": best and {key: best[key] for key in ("arm", "budget", "gpus", "effective_batch")},
            "ratio": own / best[column] if own is not None and best else None,
            "ratios_by_seed": by_seed,
        }
    return {"data": first.data, "arm": first.arm, "gpus": first.gpus, "runs": runs, **against}


def _auto_run(found: Found, cell: Cell) -> dict[str, Any]:
    """What one run's probe measured and chose, and what run and probe took."""
    plan, own = found.plan(cell), cell.plan
    assert plan is not None and plan.auto is not None and own is not None
    measured, to_target = plan.auto["measured"], reached(found, cell)
    return {
        "seed": cell.seed,
        "noise_scale": measured["noise_scale"],
        "noise_scale_interval": measured["noise_interval"],
        "effective_batch": plan.effective_batch,
        "gpus": plan.gpus,
        "learning_rate": plan.learning_rate,
        "updates": to_target and to_target.updates,
        "samples": to_target and to_target.samples,
        "seconds": to_target and to_target.seconds,
        "probe_updates": measured["updates"],
        "probe_samples": measured["updates"] * own.effective_batch,
        "why": plan.auto["why"],
    }
