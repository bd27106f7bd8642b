"""Time to the target: updates, samples and predicted seconds of every run, and auto against the best of the grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from dsr.scaling import speed
from dsr.scaling.plan import Plan
from dsr.study.cells import Cell
from dsr.study.results import Results
from dsr.study.study import AutoRun, AutoSummary, BestGroup, Comparison, Group, Impossible


@dataclass(frozen=True)
class Reached:
    """What one run needed to reach the target; seconds are predicted, on as many real GPUs as its plan has."""

    updates: int
    samples: int
    seconds: float | None


def skill_of_target(results: Results, data: str) -> float | None:
    """The target: a share, by the definitions, of the sequential runs' mean best skill on validation data."""
    curves = [results.of(cell).curve for cell in results.sequential(data)]
    best = [max(skill for _, skill in curve) for curve in curves if curve]
    return results.ablation.definitions.target * float(np.mean(best)) if best else None


def reached(results: Results, cell: Cell) -> Reached | None:
    """By the first validation that reached the target; None where none did."""
    plan, target = results.plan(cell), skill_of_target(results, cell.data)
    if plan is None or target is None:
        return None
    updates = next((updates for updates, skill in results.of(cell).curve if skill >= target), None)
    if updates is None:
        return None
    update = update_seconds(results, cell, plan)
    return Reached(updates, plan.samples_seen(updates), None if update is None else updates * update)


def median_reached(values: list[float | None]) -> float | None:
    """The median over the seeds, a seed that did not reach the target as infinite; None where it is infinite."""
    middle = median(math.inf if value is None else value for value in values) if values else math.inf
    return None if math.isinf(middle) else middle


@dataclass(frozen=True)
class Times:
    """What an update takes on one device, in seconds: `slot` for each of its slots, and `update` beside them."""

    update: float
    slot: float


def times(results: Results, like: Cell) -> Times | None:
    """From all runs on the same data: seconds = update + slots x slot, by least squares of the relative error.

    A slot's time depends on its micro-batch; what an update takes beside its slots (the optimizer's step, the engine)
    is the same for all. It is 0 where every micro-batch was run with one number of slots only.
    """
    measured: dict[tuple[int, int], list[float]] = {}
    for cell in results.cells:
        plan, seconds = results.plan(cell), results.of(cell).update_seconds
        if plan and seconds and cell.data == like.data:
            measured.setdefault((plan.micro_batch, plan.slots // plan.devices), []).append(seconds)
    sizes = sorted({micro for micro, _ in measured})
    if like.plan is None or like.plan.micro_batch not in sizes:
        return None
    lines, values = [], []
    for (micro, slots), times_taken in measured.items():
        typical = median(times_taken)
        lines.append([1 / typical, *(slots / typical if size == micro else 0.0 for size in sizes)])
        values.append(1.0)
    matrix = np.array(lines)
    solved = np.linalg.lstsq(matrix, values, rcond=None)[0]
    if len(measured) == len(sizes) or solved[0] < 0:
        solved = np.array([0.0, *np.linalg.lstsq(matrix[:, 1:], values, rcond=None)[0]])
    return Times(float(solved[0]), float(solved[1 + sizes.index(like.plan.micro_batch)]))


def update_seconds(results: Results, cell: Cell, plan: Plan) -> float | None:
    """Predicted seconds of an update on the plan's GPUs; None where the study timed no such slot."""
    measured, parameters = times(results, cell), _parameters(results, cell)
    if measured is None or parameters is None:
        return None
    wires = speed.Wires(**results.ablation.wires.model_dump())
    return measured.update + speed.update_seconds(plan.slots, plan.gpus, measured.slot, parameters, wires)


def speed_up(results: Results, cell: Cell) -> float | None:
    """Predicted samples per second relative to one GPU with the batch as the config has it."""
    plan, measured = results.plan(cell), times(results, cell)
    update = update_seconds(results, cell, plan) if plan else None
    if plan is None or measured is None or update is None:
        return None
    sequential = cell.task.experiment.accumulation  # slots
    return plan.slots / sequential * (measured.update + sequential * measured.slot) / update


def _parameters(results: Results, like: Cell) -> int | None:
    """How many the network has, by a run of the same arm."""
    runs = [results.of(cell) for cell in results.cells if (cell.data, cell.arm) == (like.data, like.arm)]
    return next((result.test.parameters for result in runs if result.test), None)


def against_the_best(results: Results, cells: list[Cell], groups: list[Group | Impossible]) -> AutoSummary:
    """The runs of one arm in mode auto, and their medians against the best group of the grid, chosen by hindsight.

    The grid are the groups of the other arms whose seeds all reached the target. What the probe itself took is
    reported separately, and is not part of the ratios.
    """
    first = cells[0]
    grid = [g for g in groups if isinstance(g, Group) and g.data == first.data and g.mode != "auto"]
    grid = [g for g in grid if g.reached_target == g.runs]
    runs = [_auto_run(results, cell) for cell in cells if results.of(cell).plan]
    return AutoSummary(
        data=first.data,
        arm=first.arm,
        gpus=first.gpus,
        runs=runs,
        samples=_compare([run.samples for run in runs], [(g.samples_to_target, g) for g in grid]),
        seconds=_compare([run.seconds for run in runs], [(g.predicted_seconds_to_target, g) for g in grid]),
    )


def _compare(auto: Sequence[float | None], grid: list[tuple[float | None, Group]]) -> Comparison:
    """The median of auto's runs against the least of the grid's values."""
    reached = [(value, group) for value, group in grid if value is not None]
    value, group = min(reached, key=lambda pair: pair[0], default=(None, None))
    middle = median_reached(list(auto))
    return Comparison(
        auto=middle,
        best=value,
        best_cell=group
        and BestGroup(arm=group.arm, budget=group.budget, gpus=group.gpus, effective_batch=group.effective_batch),
        ratio=None if middle is None or value is None else middle / value,
        ratios_by_seed=[run / value for run in auto if run is not None and value is not None],
    )


def _auto_run(results: Results, cell: Cell) -> AutoRun:
    plan, sequential = results.plan(cell), cell.plan
    assert plan is not None and plan.auto is not None and sequential is not None
    measured, to_target = plan.auto["measured"], reached(results, cell)
    return AutoRun(
        seed=cell.seed,
        noise_scale=measured["noise_scale"],
        noise_scale_interval=measured["noise_interval"],
        effective_batch=plan.effective_batch,
        gpus=plan.gpus,
        learning_rate=plan.learning_rate,
        updates=to_target and to_target.updates,
        samples=to_target and to_target.samples,
        seconds=to_target and to_target.seconds,
        probe_updates=measured["updates"],
        probe_samples=measured["updates"] * sequential.effective_batch,
        why=plan.auto["why"],
    )
