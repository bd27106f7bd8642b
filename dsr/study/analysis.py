"""From the runs' results to what the study found: outcomes by the file's definitions, intervals, times, proofs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dsr import speed
from dsr.study.ablation import SEQUENTIAL, Ablation
from dsr.study.cells import Cell, Choice
from dsr.study.statistics import (
    Interval,
    difference_interval,
    mean_interval,
    prediction_interval,
    wilson_interval,
)

Record = dict[str, Any]


@dataclass(frozen=True)
class Found:
    """All that was run: the study's cells, the candidates of every tuned rate, the proofs, and the records by key."""

    ablation: Ablation
    cells: list[Cell]
    tuning: dict[Choice, list[Cell]]
    rates: dict[Choice, float]
    proofs: list[tuple[Cell, Cell]]
    records: dict[str, Record]

    def record(self, cell: Cell) -> Record:
        return self.records.get(cell.key, {"state": "failed", "reason": "not run"}) if cell.plan else {"state": ""}

    def name(self, cell: Cell) -> str:
        """The folder of the run that answers for the cell."""
        first = next((c for cells in self.tuning.values() for c in cells if c.key == cell.key), None)
        return (first or next(c for c in self.cells if c.plan and c.key == cell.key)).name


def study(found: Found) -> dict[str, Any]:
    """What study.json holds, but for how the study was run: definitions, data, tuned rates, groups, proofs."""
    ablation = found.ablation
    return {
        "title": ablation.title,
        "definitions": ablation.definitions.model_dump(),
        "arms": {SEQUENTIAL: "sequential, one GPU", **{name: arm.label for name, arm in ablation.arms.items()}},
        "data": {name: _data(found, name) for name in ablation.data},
        "tuning": [_tuned(choice, cells, found) for choice, cells in found.tuning.items()],
        "groups": [_group(found, cells) for cells in _groups(found.cells)],
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
    """The interval of the sequential seeds' skill that means "the same", as the file defines it."""
    definitions = found.ablation.definitions
    interval = prediction_interval if definitions.same == "prediction" else mean_interval
    return interval(_skills(found, _sequential(found, data)), definitions.level)


def curves(found: Found) -> list[dict[str, Any]]:
    """A line for each validation of each run: skill on validation data against updates and samples."""
    lines = []
    for cell in found.cells:
        for updates, skill in found.record(cell).get("curve", []):
            assert cell.plan is not None
            lines.append({**_place(cell), "seed": cell.seed, "updates": updates,
                          "samples": updates * cell.plan.effective_batch, "skill": skill})  # fmt: skip
    return lines


def _row(found: Found, cell: Cell) -> dict[str, Any]:
    record, plan = found.record(cell), cell.plan
    test = record.get("test", {})
    rmse = test.get("rmse", {})
    units = list(test.get("units", {}).values())
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
        "updates": plan.updates if plan else None,
        "warmup_updates": plan.warmup_updates if plan else None,
        "samples_seen": plan.updates * plan.effective_batch if plan else None,
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


def _groups(cells: Sequence[Cell]) -> list[list[Cell]]:
    grouped: dict[Choice, list[Cell]] = {}
    for cell in cells:
        grouped.setdefault(cell.choice, []).append(cell)
    return list(grouped.values())


def _group(found: Found, cells: list[Cell]) -> dict[str, Any]:
    """The seeds of one (data, budget, arm, gpus) together."""
    first, level = cells[0], found.ablation.definitions.level
    group: dict[str, Any] = {**_place(first), "mode": first.mode, "runs": len(cells)}
    if first.plan is None:
        return {**group, "runs": 0, "reason": first.reason}
    records = [found.record(cell) for cell in cells]
    reference, skills = _skills(found, _sequential(found, first.data)), _skills(found, cells)
    expected = expected_skill(found, first.data)
    outcomes = [outcome(record, expected) for record in records]
    diverged, ran = outcomes.count("diverged"), len(outcomes) - outcomes.count("failed")
    return {
        **group,
        "seeds": [cell.seed for cell in cells],
        "effective_batch": first.plan.effective_batch,
        "slots": first.plan.slots,
        "share": first.plan.effective_batch / first.plan.samples,
        "learning_rate": first.plan.learning_rate,
        "updates": first.plan.updates,
        "warmup_updates": first.plan.warmup_updates,
        "outcomes": {name: outcomes.count(name) for name in dict.fromkeys(outcomes)},
        "diverged": diverged,
        "diverged_interval": wilson_interval(diverged, ran, level) if ran else None,
        "skill": float(np.mean(skills)) if skills else None,
        "skill_interval": mean_interval(skills, level),
        "difference": float(np.mean(skills) - np.mean(reference)) if skills and reference else None,
        "difference_interval": difference_interval(skills, reference, level),
        "identical": _keys(cells) <= _keys(_sequential(found, first.data)),
        "noise_scale": _median([r["noise_scale"] for r in records if r.get("noise_scale") is not None]),
        **_time(found, cells, records),
    }


def _time(found: Found, cells: list[Cell], records: list[Record]) -> dict[str, Any]:
    """Updates and samples to the target, and predicted seconds on as many real GPUs; None where no run reached it."""
    plan = cells[0].plan
    assert plan is not None
    target = target_skill(found, cells[0].data)
    reached = [updates_to(record.get("curve", []), target) for record in records] if target is not None else []
    updates = _median([count for count in reached if count is not None])
    slot = _slot_seconds(found, cells[0])
    parameters = next((r["test"]["parameters"] for r in records if "test" in r), None)
    update = None
    if slot is not None and parameters is not None:
        wires = speed.Wires(**found.ablation.wires.model_dump())
        update = speed.update_seconds(plan.slots, plan.gpus, slot, parameters, wires)
    return {
        "reached_target": sum(count is not None for count in reached),
        "updates_to_target": updates,
        "samples_to_target": None if updates is None else updates * plan.effective_batch,
        "slot_seconds": slot,
        "predicted_update_seconds": update,
        "predicted_seconds_to_target": updates * update if updates is not None and update is not None else None,
    }


def _slot_seconds(found: Found, like: Cell) -> float | None:
    """One slot's seconds on one device: the median of all runs on the same data with the same micro-batch."""
    seconds = []
    for cell in found.cells:
        if cell.plan and like.plan and (cell.data, cell.plan.micro_batch) == (like.data, like.plan.micro_batch):
            update = found.record(cell).get("update_seconds")
            seconds += [update * cell.plan.devices / cell.plan.slots] if update else []
    return _median(seconds)


def target_skill(found: Found, data: str) -> float | None:
    """The target: a share, by the definitions, of the sequential runs' mean best skill on validation data."""
    best = [
        max(skill for _, skill in r["curve"]) for r in map(found.record, _sequential(found, data)) if r.get("curve")
    ]
    return found.ablation.definitions.target * float(np.mean(best)) if best else None


def updates_to(curve: list[tuple[int, float]], target: float) -> int | None:
    """The update of the first validation that reached the target."""
    return next((updates for updates, skill in curve if skill >= target), None)


def _data(found: Found, name: str) -> dict[str, Any]:
    cells = _sequential(found, name)
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
        "sequential_skill": _skills(found, cells),
        "same": expected_skill(found, name),
        "target_skill": target_skill(found, name),
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


def _sequential(found: Found, data: str) -> list[Cell]:
    return [cell for cell in found.cells if cell.data == data and cell.arm == SEQUENTIAL]


def _skills(found: Found, cells: list[Cell]) -> list[float]:
    """The test skill of the runs that converged."""
    records = [found.record(cell) for cell in cells]
    return [record["test"]["skill"] for record in records if record["state"] == "finished"]


def _keys(cells: list[Cell]) -> set[str]:
    return {cell.key for cell in cells if cell.plan}


def _median(values: list[float]) -> float | None:
    return float(np.median(values)) if values else None


def _mean_of(values: list[dict[str, float]]) -> dict[str, float] | None:
    return {name: float(np.mean([v[name] for v in values])) for name in values[0]} if values else None
