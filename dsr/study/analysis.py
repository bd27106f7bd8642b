"""From the runs' results to what the study found: outcomes by the file's definitions, intervals, times, proofs."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from dsr.study import target
from dsr.study.ablation import SEQUENTIAL
from dsr.study.cells import Cell, Choice, distinct
from dsr.study.found import Found, Record
from dsr.study.outcome import NOT_FINITE
from dsr.study.statistics import (
    Interval,
    difference_interval,
    mean_interval,
    prediction_interval,
    wilson_interval,
)


def study(found: Found) -> dict[str, Any]:
    """What study.json holds, but for how the study was run: definitions, data, tuned rates, groups, proofs."""
    ablation = found.ablation
    groups = [_group(found, cells) for cells in found.groups()]
    return {
        "title": ablation.title,
        "definitions": ablation.definitions.model_dump(),
        "arms": {SEQUENTIAL: "sequential, one GPU", **{name: arm.label for name, arm in ablation.arms.items()}},
        "data": {name: _data(found, name) for name in ablation.data},
        "tuning": [_tuned(choice, cells, found) for choice, cells in found.tuning.items()],
        "groups": groups,
        "failures": {budget: _failures(found, budget) for budget in ablation.budgets},
        "sources": sorted({record["sources"] for record in found.records.values() if "sources" in record}),
        "auto": [target.against_the_best(found, cells, groups) for cells in found.groups() if cells[0].mode == "auto"],
        "proofs": [_proof(real, rehearsed, found) for real, rehearsed in found.proofs],
        "wires": ablation.wires.model_dump(),
        "cores": len(os.sched_getaffinity(0)),
    }


def rows(found: Found) -> list[dict[str, Any]]:
    """What cells.csv holds: a line for each run of each cell; one that cannot be has one line and the reason."""
    return [_row(found, cell) for cell in found.cells]


def outcome(record: Record, expected: Interval | None) -> str:
    """same, better or worse than `expected` (an interval of sequential skill), diverged, failed or impossible."""
    if record["state"] != "finished":
        return record["state"] or "impossible"
    skill = record["test"]["skill"]
    if expected is None:
        return "unknown"
    return "worse" if skill < expected[0] else "better" if skill > expected[1] else "same"


def expected_skill(found: Found, data: str) -> Interval | None:
    """The interval of the sequential seeds' skill that means "the same", as the file defines it.

    None for fewer than three: of two, the interval is so wide (Student's t is 12.7) that anything were the same.
    """
    definitions, skills = found.ablation.definitions, found.skills(found.sequential(data))
    interval = prediction_interval if definitions.same == "prediction" else mean_interval
    return interval(skills, definitions.level) if len(skills) >= 3 else None


def curves(found: Found) -> list[dict[str, Any]]:
    """A line for each validation of each run: skill on validation data against updates and samples."""
    lines = []
    for cell in found.cells:
        plan = found.plan(cell)
        if plan is None:
            continue
        for updates, skill in found.record(cell).get("curve", []):
            lines.append({**_place(cell), "seed": cell.seed, "updates": updates,
                          "samples": plan.samples_seen(updates), "skill": skill})  # fmt: skip
    return lines


def _row(found: Found, cell: Cell) -> dict[str, Any]:
    record, plan = found.record(cell), found.plan(cell)
    test = record.get("test", {})
    rmse = test.get("rmse", {})
    units = list(test.get("units", {}).values())
    made = record.get("updates") if plan else None
    only = next(iter(rmse.values())) if len(rmse) == 1 else 1 - test["skill"] if rmse else None
    return {
        **_place(cell),
        "mode": cell.mode,
        "devices": cell.devices if plan else None,
        "seed": cell.seed if plan else None,
        "rule": plan.rule if plan else None,
        "effective_batch": plan.effective_batch if plan else None,
        "training_samples": cell.task.samples,
        "share": plan.effective_batch / plan.samples if plan else None,
        "learning_rate": plan.learning_rate if plan else None,
        "updates": made,
        "planned_updates": plan.updates if plan else None,
        "warmup_updates": plan.warmup_updates if plan else None,
        "samples_seen": plan.samples_seen(made) if plan and made is not None else None,
        "noise_scale": record.get("noise_scale"),
        "outcome": outcome(record, expected_skill(found, cell.data)),
        "rmse": only,
        "rmse_units": (units[0] if len(units) == 1 else "relative to bicubic") if rmse else None,
        "skill": test.get("skill"),
        **{f"rmse_{name}": value for name, value in rmse.items()},
        "bicubic": next(iter(test["bicubic"].values())) if len(rmse) == 1 else 1.0 if rmse else None,
        "best_validation_score": record.get("best_validation"),
        "last_validation_skill": record["curve"][-1][1] if record.get("curve") else None,
        "reason": cell.reason or record.get("reason", ""),
        "seconds": record.get("seconds"),
        "weights_sha256": record.get("weights_sha256"),
        "run": f"cells/{found.name(cell)}" if plan else None,
    }


def _place(cell: Cell) -> dict[str, Any]:
    return {"data": cell.data, "budget": cell.budget, "arm": cell.arm, "gpus": cell.gpus}


def _group(found: Found, cells: list[Cell]) -> dict[str, Any]:
    """The seeds of one (data, budget, arm, gpus) together."""
    first, level = cells[0], found.ablation.definitions.level
    group: dict[str, Any] = {**_place(first), "mode": first.mode, "runs": len(cells)}
    if first.plan is None:
        return {**group, "runs": 0, "reason": first.reason}
    records = [found.record(cell) for cell in cells]
    plans = [plan for cell in cells if (plan := found.plan(cell))]
    reference, skills = found.skills(found.sequential(first.data)), found.skills(cells)
    expected = expected_skill(found, first.data)
    outcomes = [outcome(record, expected) for record in records]
    diverged, ran = outcomes.count("diverged"), len(outcomes) - outcomes.count("failed")
    return {
        **group,
        "seeds": [cell.seed for cell in cells],
        "effective_batch": _common([plan.effective_batch for plan in plans]),
        "micro_batch": first.plan.micro_batch,
        "slots": _common([plan.slots for plan in plans]),
        "share": _common([plan.effective_batch / plan.samples for plan in plans]),
        "learning_rate": _common([plan.learning_rate for plan in plans]),
        "updates": _common([plan.updates for plan in plans]),
        "warmup_updates": _common([plan.warmup_updates for plan in plans]),
        "outcomes": {name: outcomes.count(name) for name in dict.fromkeys(outcomes)},
        "diverged": diverged,
        "diverged_interval": wilson_interval(diverged, ran, level) if ran else None,
        "skill": float(np.mean(skills)) if skills else None,
        "skill_interval": mean_interval(skills, level),
        "difference": float(np.mean(skills) - np.mean(reference)) if skills and reference else None,
        "difference_interval": difference_interval(skills, reference, level),
        "identical": _same_weights(found, cells),
        "noise_scale": _median([r["noise_scale"] for r in records if r.get("noise_scale") is not None]),
        "noise_scale_unknown": sum(r.get("noise_scale") is None for r in records),
        **_time(found, cells),
    }


def _time(found: Found, cells: list[Cell]) -> dict[str, Any]:
    """Medians over the seeds of updates, samples and predicted seconds to the target, and what predicts them."""
    runs = [target.reached(found, cell) for cell in cells]
    plans = [plan for cell in cells if (plan := found.plan(cell))]
    updates = [target.update_seconds(found, cells[0], plan) for plan in plans]
    times = target.times(found, cells[0])
    return {
        "reached_target": sum(run is not None for run in runs),
        "updates_to_target": target.middle([run.updates if run else None for run in runs]),
        "samples_to_target": target.middle([run.samples if run else None for run in runs]),
        "slot_seconds": times and times.slot,
        "fixed_seconds": times and times.update,
        "predicted_update_seconds": target.middle(updates),
        "predicted_seconds_to_target": target.middle([run.seconds if run else None for run in runs]),
        "predicted_speed_up": target.speed_up(found, cells[0]),
    }


def _data(found: Found, name: str) -> dict[str, Any]:
    cells = found.sequential(name)
    tests = [r["test"] for r in map(found.record, cells) if "test" in r]
    plan = cells[0].plan
    return {
        "label": found.ablation.data[name].label,
        "store": cells[0].task.store,
        "fingerprint": cells[0].task.fingerprint,
        "training_samples": cells[0].task.samples,
        "effective_batch": plan.effective_batch if plan else None,
        "slots": plan.slots if plan else None,
        "updates": plan.updates if plan else None,
        "bicubic": tests[0]["bicubic"] if tests else None,
        "units": tests[0]["units"] if tests else None,
        "sequential_rmse": _mean_of([test["rmse"] for test in tests]),
        "sequential_skill": found.skills(cells),
        "same": expected_skill(found, name),
        "target_skill": target.skill_of_target(found, name),
    }


def _tuned(choice: Choice, cells: list[Cell], found: Found) -> dict[str, Any]:
    scores: dict[float, list[float | None]] = {}
    for cell in cells:
        record = found.record(cell)
        good = record["state"] == "finished"
        scores.setdefault(cell.rate, []).append(record["best_validation"] if good else None)
    chosen = found.rates.get(choice)
    data, arm, budget, gpus = choice
    return {
        **{"data": data, "arm": arm, "budget": budget, "gpus": gpus, "rate": chosen},
        "seeds": sorted({cell.seed for cell in cells}),
        "validation_scores": {f"{rate:g}": values for rate, values in scores.items()},
        "at_the_edge": len(scores) > 1 and chosen in (min(scores), max(scores)),
    }


def _proof(real: Cell, rehearsed: Cell, found: Found) -> dict[str, Any]:
    records = found.record(real), found.record(rehearsed)
    hashes = [record.get("weights_sha256") for record in records]
    assert real.plan is not None
    return {
        **{"data": real.data, "arm": real.arm, "gpus": real.gpus, "ranks": real.devices, "seed": real.seed},
        "updates": real.plan.updates,
        "weights_sha256": hashes,
        "same_bits": None if None in hashes else hashes[0] == hashes[1],
        "reason": "; ".join(dict.fromkeys(record["reason"] for record in records if record.get("reason"))),
        "update_seconds": [record.get("update_seconds") for record in records],
        "timed": real.devices <= len(os.sched_getaffinity(0)),  # more ranks than cores wait for each other
    }


def _failures(found: Found, budget: str) -> dict[str, int]:
    """Of the weak runs on two GPUs or more, each counted once: how many there are, diverged, and were not finite."""
    weak = [c for c in found.cells if c.plan and c.mode == "weak" and c.gpus > 1 and c.budget == budget]
    records = [found.record(cell) for cell in distinct(weak).values()]
    diverged = [record for record in records if record["state"] == "diverged"]
    return {
        "runs": sum(record["state"] in ("finished", "diverged") for record in records),
        "diverged": len(diverged),
        "not_finite": sum(NOT_FINITE in record["reason"] for record in diverged),
    }


def _same_weights(found: Found, cells: list[Cell]) -> bool:
    """Whether every run is a sequential one: the same computation, or (a probe chose it) the same weights."""
    sequential = found.sequential(cells[0].data)
    keys = {cell.key for cell in sequential}
    hashes = {found.record(cell).get("weights_sha256") for cell in sequential} - {None}
    return all(cell.key in keys or found.record(cell).get("weights_sha256") in hashes for cell in cells)


def _common(values: list[Any]) -> Any:
    """What all seeds have in common; None where a probe chose differently for them."""
    return values[0] if len(set(values)) == 1 else None


def _median(values: list[float]) -> float | None:
    return float(np.median(values)) if values else None


def _mean_of(values: list[dict[str, float]]) -> dict[str, float] | None:
    return {name: float(np.mean([v[name] for v in values])) for name in values[0]} if values else None
