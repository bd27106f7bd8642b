"""What became of one run: whether it converged, its error on the test split, its curve and its noise scale."""

from __future__ import annotations

import json
from datetime import datetime
from functools import lru_cache
from typing import Any

import numpy as np

from dsr.run import Run

NOT_FINITE = "not finite"  # stands in the reason of every run that ended so


def collect(run: Run, diverged_below: float) -> dict[str, Any]:
    """The result of a run that has ended.

    "state" is finished, diverged (anything not finite, or less skill than `diverged_below` of the last network on
    validation or of the best network on test data) or failed (any other end, with its "reason").
    """
    status, plan = run.status(), json.loads(run.plan.read_text())
    result: dict[str, Any] = {
        "state": status["state"],
        "reason": status["reason"],
        "updates": status["updates"],
        "weights_sha256": status["weights_sha256"],
        "seconds": _seconds(status),
        "plan": plan,
        "sources": json.loads(run.environment.read_text())["sources"],
        **_logged(run, plan),
    }
    if status["state"] == "finished":
        result["test"] = test_error(run)
        ends = {"validation": result["curve"][-1][1], "test": result["test"]["skill"]}
        if below := [f"{ends[split]:.3g} on {split} data" for split in ends if ends[split] < diverged_below]:
            result.update(state="diverged", reason=f"skill {' and '.join(below)} in the end")
    elif NOT_FINITE in status["reason"]:
        result["state"] = "diverged"
    return result


def test_error(run: Run, split: str = "test") -> dict[str, Any]:
    """RMSE by variable of the run's best network, and of bicubic interpolation: area-weighted, in physical units.

    "bicubic" holds the variables that the low data have, and "skill" is `skill_of` the two.
    """
    from dsr import predict
    from dsr.verify.baselines import batches

    network = predict.load(run.model)
    store = _store(network.description["store"])
    features = network.features
    names = [v.name for v in store.low_variables]
    low = [names.index(v.name) for v in features.low]
    weights = store.grid("high").area() * store.mask(split)
    sums = np.zeros((3, len(features.high)))  # squared errors of network and bicubic, and weights
    for batch in batches(store, features, store.samples(split), values=2**20):
        there = np.isfinite(batch.truth)
        weight = there * weights
        given = batch.low[..., low, :, :], batch.init_time, batch.lead_time
        fields = network(*given), features.clip(features.inputs(*given)[1])
        for row, field in zip(sums[:2], fields, strict=True):
            row += (weight * np.where(there, field - batch.truth, 0.0) ** 2).sum((0, 2, 3))
        sums[2] += weight.sum((0, 2, 3))
    rmse, bicubic = np.sqrt(sums[:2] / sums[2])
    names, seen = [v.name for v in features.high], {v.name for v in features.low}
    result = {
        "rmse": dict(zip(names, rmse.tolist(), strict=True)),
        "bicubic": {name: value for name, value in zip(names, bicubic.tolist(), strict=True) if name in seen},
        "units": {v.name: v.units for v in features.high},
        "parameters": sum(parameter.numel() for parameter in network.module.parameters()),
    }
    return {**result, "skill": skill_of(result)}


def skill_of(found: dict[str, Any]) -> float:
    """The mean over variables of 1 - RMSE / RMSE of bicubic interpolation: 0 is bicubic, 1 is perfect."""
    return float(np.mean([1 - found["rmse"][name] / value for name, value in found["bicubic"].items()]))


def _logged(run: Run, plan: dict[str, Any]) -> dict[str, Any]:
    """From metrics.jsonl: the validation curve, its best score, the noise scale, and the time of an update."""
    records = run.logged()
    validated = [(r["update"], r["validation"]) for r in records if "validation" in r]
    speeds = [r["samples_per_second"] for r in records if "samples_per_second" in r]
    noise = [r["noise_scale"] for r in records if "noise_scale" in r]
    return {
        "curve": [(update, skill_of(found)) for update, found in validated],
        "best_validation": min((found["score"] for _, found in validated), default=None),
        "noise_scale": noise[-1] if noise else None,  # in samples, an average over the last updates; None: unknown
        "update_seconds": plan["effective_batch"] / float(np.median(speeds)) if speeds else None,
    }


def _seconds(status: dict[str, Any]) -> float | None:
    """From start to end; a run that was killed has no end."""
    started, ended = (status[key] and datetime.fromisoformat(status[key]) for key in ("started", "ended"))
    return (ended - started).total_seconds() if ended else None


@lru_cache
def _store(path: str) -> Any:
    from dsr.data.store import Store

    return Store(path)
