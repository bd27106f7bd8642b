"""A study's results as tables: a line for each run in cells.csv and TensorBoard, and one for each validation."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from dsr.study.analysis import expected_skill, outcome
from dsr.study.cells import Cell
from dsr.study.results import Results

OUTCOMES = {"better": 2, "same": 1, "worse": 0, "diverged": -1}  # TensorBoard's metric study/outcome
SUFFIX = ".study"


def cell_rows(results: Results) -> list[dict[str, Any]]:
    """What cells.csv holds: a line for each run of each cell; an impossible cell has one line and the reason."""
    return [_row(results, cell) for cell in results.cells]


def curve_rows(results: Results) -> list[dict[str, Any]]:
    """A line for each validation of each run: skill on validation data against updates and samples."""
    lines = []
    for cell in results.cells:
        if plan := results.plan(cell):
            for updates, skill in results.of(cell).curve:
                lines.append({**_place(cell), "seed": cell.seed, "updates": updates,
                              "samples": plan.samples_seen(updates), "skill": skill})  # fmt: skip
    return lines


def write_tensorboard(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Write study/skill, study/rmse and study/outcome into each run's folder, and their names into `folder`.

    TensorBoard's HParams page then compares the study's runs. `rows` are those of cells.csv; a run of several cells
    has the arm of the first. What was written here before is replaced.
    """
    from torch.utils.tensorboard import SummaryWriter
    from torch.utils.tensorboard.summary import hparams

    for old in (*folder.glob(f"events.out.*{SUFFIX}"), *folder.glob(f"cells/*/events.out.*{SUFFIX}")):
        old.unlink()
    runs = {row["run"]: row for row in reversed(rows) if row["outcome"] in (*OUTCOMES, "unknown")}
    for name, row in runs.items():
        with SummaryWriter(str(folder / name), filename_suffix=SUFFIX) as board:
            for key in ("skill", "rmse"):
                board.add_scalar(f"study/{key}", math.nan if row[key] is None else row[key], row["updates"])
            board.add_scalar("study/outcome", OUTCOMES.get(row["outcome"], math.nan), row["updates"])
    if not runs:
        return
    first = next(iter(runs.values()))
    names = ("data", "budget", "arm", "mode", "gpus", "effective_batch", "learning_rate", "rule", "seed")
    metrics = {f"study/{name}": None for name in ("skill", "rmse", "outcome")}
    with SummaryWriter(str(folder), filename_suffix=SUFFIX) as board:
        experiment, *_ = hparams({name: first[name] for name in names}, metrics)
        board.file_writer.add_summary(experiment)  # type: ignore[attr-defined]


def _row(results: Results, cell: Cell) -> dict[str, Any]:
    result, plan = results.of(cell), results.plan(cell)
    test = result.test
    rmse = test.rmse if test else {}
    units = list(test.units.values()) if test else []
    made = result.updates if plan else None
    only = next(iter(rmse.values())) if len(rmse) == 1 else 1 - test.skill if test else None
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
        "noise_scale": result.noise_scale,
        "outcome": outcome(result, expected_skill(results, cell.data)),
        "rmse": only,
        "rmse_units": (units[0] if len(units) == 1 else "relative to bicubic") if rmse else None,
        "skill": test.skill if test else None,
        **{f"rmse_{name}": value for name, value in rmse.items()},
        "bicubic": (next(iter(test.bicubic.values())) if len(rmse) == 1 else 1.0) if test else None,
        "best_validation_score": result.best_validation,
        "last_validation_skill": result.curve[-1][1] if result.curve else None,
        "reason": result.reason,
        "seconds": result.seconds,
        "weights_sha256": result.weights_sha256,
        "run": f"cells/{results.run_name(cell)}" if plan else None,
    }


def _place(cell: Cell) -> dict[str, Any]:
    return {"data": cell.data, "budget": cell.budget, "arm": cell.arm, "gpus": cell.gpus}
