"""Puts every run's outcome beside its curves, so that TensorBoard's HParams page compares a study's runs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

OUTCOMES = {"better": 2, "same": 1, "worse": 0, "diverged": -1}  # the metric study/outcome
SUFFIX = ".study"


def write(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Write the metrics study/skill, study/rmse and study/outcome into each run's folder, and their names to `folder`.

    Rows are those of cells.csv; a run that answers for several cells has the arm of the first. What was written here
    before is replaced.
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
