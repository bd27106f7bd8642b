"""From the runs' results to what the study shows: outcomes by the file's definitions, intervals, times, proofs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from dsr.study import target
from dsr.study.ablation import SEQUENTIAL
from dsr.study.cells import Cell, Place, distinct
from dsr.study.results import NOT_FINITE, Result, Results
from dsr.study.statistics import (
    Interval,
    difference_interval,
    mean_interval,
    prediction_interval,
    share_interval,
)
from dsr.study.study import DataSummary, Failures, Group, Impossible, Proof, Study, TunedRate


def analyse(results: Results, file: Path) -> Study:
    """The whole study that the ablation file describes, by its definitions."""
    ablation = results.ablation
    groups = [_group(results, cells) for cells in results.groups()]
    return Study(
        title=ablation.title,
        definitions=ablation.definitions,
        arms={SEQUENTIAL: "sequential, one GPU", **{name: arm.label for name, arm in ablation.arms.items()}},
        data={name: _data(results, name) for name in ablation.data},
        tuning=[_tuned(place, cells, results) for place, cells in results.tuning.items()],
        groups=groups,
        failures={budget: _failures(results, budget) for budget in ablation.budgets},
        sources=sorted({result.sources for result in results.by_key.values() if result.sources}),
        auto=[target.against_the_best(results, cells, groups) for cells in results.groups() if cells[0].mode == "auto"],
        proofs=[_proof(real, rehearsed, results) for real, rehearsed in results.proofs],
        wires=ablation.wires,
        cores=len(os.sched_getaffinity(0)),
        file=str(file),
        runs=len(results.by_key),
        run_seconds=sum(result.seconds or 0 for result in results.by_key.values()),
    )


def outcome(result: Result, expected: Interval | None) -> str:
    """same, better or worse than `expected` (an interval of sequential skill), diverged, failed or impossible."""
    if result.state != "finished" or result.test is None:
        return result.state
    if expected is None:
        return "unknown"
    skill = result.test.skill
    return "worse" if skill < expected[0] else "better" if skill > expected[1] else "same"


def expected_skill(results: Results, data: str) -> Interval | None:
    """The interval of the sequential seeds' skill that means "the same", as the file defines it.

    None for fewer than three: of two, the interval is so wide (Student's t is 12.7) that every run would be the same.
    """
    definitions, skills = results.ablation.definitions, results.skills(results.sequential(data))
    interval = prediction_interval if definitions.same == "prediction" else mean_interval
    return interval(skills, definitions.level) if len(skills) >= 3 else None


def _group(results: Results, cells: list[Cell]) -> Group | Impossible:
    """The seeds of one place together."""
    first, level = cells[0], results.ablation.definitions.level
    place = {**first.place._asdict(), "mode": first.mode}
    if first.plan is None:
        return Impossible(**place, runs=0, reason=first.reason)
    of_cells = [results.of(cell) for cell in cells]
    plans = [plan for cell in cells if (plan := results.plan(cell))]
    reference, skills = results.skills(results.sequential(first.data)), results.skills(cells)
    expected = expected_skill(results, first.data)
    outcomes = [outcome(result, expected) for result in of_cells]
    diverged, ended = outcomes.count("diverged"), len(outcomes) - outcomes.count("failed")
    return Group(
        **place,
        runs=len(cells),
        seeds=[cell.seed for cell in cells],
        effective_batch=_common([plan.effective_batch for plan in plans]),
        micro_batch=first.plan.micro_batch,
        slots=_common([plan.slots for plan in plans]),
        share=_common([plan.effective_batch / plan.samples for plan in plans]),
        learning_rate=_common([plan.learning_rate for plan in plans]),
        updates=_common([plan.updates for plan in plans]),
        warmup_updates=_common([plan.warmup_updates for plan in plans]),
        outcomes={name: outcomes.count(name) for name in dict.fromkeys(outcomes)},
        diverged=diverged,
        diverged_interval=share_interval(diverged, ended, level) if ended else None,
        skill=float(np.mean(skills)) if skills else None,
        skill_interval=mean_interval(skills, level),
        difference=float(np.mean(skills) - np.mean(reference)) if skills and reference else None,
        difference_interval=difference_interval(skills, reference, level),
        identical=_same_weights(results, cells),
        noise_scale=_median([r.noise_scale for r in of_cells if r.noise_scale is not None]),
        noise_scale_unknown=sum(r.noise_scale is None for r in of_cells),
        **_time(results, cells),
    )


def _time(results: Results, cells: list[Cell]) -> dict[str, Any]:
    """Of a `Group`, the medians over the seeds of what it takes to reach the target, and what predicts them."""
    runs = [target.reached(results, cell) for cell in cells]
    plans = [plan for cell in cells if (plan := results.plan(cell))]
    updates = [target.update_seconds(results, cells[0], plan) for plan in plans]
    times = target.times(results, cells[0])
    return {
        "reached_target": sum(run is not None for run in runs),
        "updates_to_target": target.median_reached([run.updates if run else None for run in runs]),
        "samples_to_target": target.median_reached([run.samples if run else None for run in runs]),
        "slot_seconds": times and times.slot,
        "fixed_seconds": times and times.update,
        "predicted_update_seconds": target.median_reached(updates),
        "predicted_seconds_to_target": target.median_reached([run.seconds if run else None for run in runs]),
        "predicted_speed_up": target.speed_up(results, cells[0]),
    }


def _data(results: Results, name: str) -> DataSummary:
    cells = results.sequential(name)
    tests = [test for cell in cells if (test := results.of(cell).test)]
    plan = cells[0].plan
    return DataSummary(
        label=results.ablation.data[name].label,
        store=cells[0].task.store,
        fingerprint=cells[0].task.fingerprint,
        training_samples=cells[0].task.samples,
        effective_batch=plan.effective_batch if plan else None,
        slots=plan.slots if plan else None,
        updates=plan.updates if plan else None,
        bicubic=tests[0].bicubic if tests else None,
        units=tests[0].units if tests else None,
        sequential_rmse=_means([test.rmse for test in tests]),
        sequential_skill=results.skills(cells),
        same=expected_skill(results, name),
        target_skill=target.skill_of_target(results, name),
    )


def _tuned(place: Place, cells: list[Cell], results: Results) -> TunedRate:
    scores: dict[float, list[float | None]] = {}
    for cell in cells:
        result = results.of(cell)
        scores.setdefault(cell.rate, []).append(result.best_validation if result.state == "finished" else None)
    rate = results.rates.get(place)
    return TunedRate(
        **place._asdict(),
        rate=rate,
        seeds=sorted({cell.seed for cell in cells}),
        validation_scores={f"{rate:g}": values for rate, values in scores.items()},
        at_the_edge=len(scores) > 1 and rate in (min(scores), max(scores)),
    )


def _proof(real: Cell, rehearsed: Cell, results: Results) -> Proof:
    pair = results.of(real), results.of(rehearsed)
    hashes = [result.weights_sha256 for result in pair]
    assert real.plan is not None
    return Proof(
        data=real.data,
        arm=real.arm,
        gpus=real.gpus,
        ranks=real.devices,
        seed=real.seed,
        updates=real.plan.updates,
        weights_sha256=hashes,
        same_bits=None if None in hashes else hashes[0] == hashes[1],
        reason="; ".join(dict.fromkeys(result.reason for result in pair if result.reason)),
        update_seconds=[result.update_seconds for result in pair],
        timed=real.devices <= len(os.sched_getaffinity(0)),  # more ranks than cores wait for each other
    )


def _failures(results: Results, budget: str) -> Failures:
    """Each run is counted once."""
    weak = [c for c in results.cells if c.plan and c.mode == "weak" and c.gpus > 1 and c.budget == budget]
    runs = [results.of(cell) for cell in distinct(weak).values()]
    diverged = [result for result in runs if result.state == "diverged"]
    return Failures(
        runs=sum(result.done for result in runs),
        diverged=len(diverged),
        not_finite=sum(NOT_FINITE in result.reason for result in diverged),
    )


def _same_weights(results: Results, cells: list[Cell]) -> bool:
    """Whether every run is a sequential one: the same computation, or (a probe chose it) the same weights."""
    sequential = results.sequential(cells[0].data)
    keys = {cell.key for cell in sequential}
    hashes = {results.of(cell).weights_sha256 for cell in sequential} - {None}
    return all(cell.key in keys or results.of(cell).weights_sha256 in hashes for cell in cells)


def _common(values: list[Any]) -> Any:
    """What all seeds have in common; None where a probe chose differently for them."""
    return values[0] if len(set(values)) == 1 else None


def _median(values: list[float]) -> float | None:
    return float(np.median(values)) if values else None


def _means(values: list[dict[str, float]]) -> dict[str, float] | None:
    return {name: float(np.mean([v[name] for v in values])) for name in values[0]} if values else None
