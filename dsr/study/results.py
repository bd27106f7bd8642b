"""The result of each run: collected from its folder when it has ended, and looked up by cell."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from dsr.run import Run
from dsr.scaling.plan import Plan
from dsr.study.ablation import SEQUENTIAL, Ablation
from dsr.study.cells import Cell, Place

DONE = ("finished", "diverged")
NOT_FINITE = "not finite"  # part of the reason of every run that ended so


class TestError(BaseModel):
    """RMSE on the test split, by variable, in its units, of the best network and of bicubic interpolation."""

    __test__ = False  # not a test of pytest's
    model_config = ConfigDict(frozen=True)

    rmse: dict[str, float]
    bicubic: dict[str, float]  # of the variables that the low-resolution data have
    units: dict[str, str]
    parameters: int  # of the network
    skill: float  # `mean_skill` of the two


class Result(BaseModel):
    """What became of one run.

    `state` is "new" (nothing is known), "running", "finished", "diverged" (anything not finite, or less skill than the
    study's limit) or "failed" (any other end, with its reason).
    """

    model_config = ConfigDict(frozen=True)

    key: str | None = None  # of the cell, which says what was computed
    state: str
    reason: str = ""
    updates: int | None = None
    weights_sha256: str | None = None
    seconds: float | None = None  # from start to end
    plan: dict[str, Any] | None = None
    sources: str | None = None  # hash of dsr's code
    curve: list[tuple[int, float]] = []  # (update, skill on validation data)
    best_validation: float | None = None
    noise_scale: float | None = None  # in samples, an average over the last updates; None: unknown
    update_seconds: float | None = None
    test: TestError | None = None

    @property
    def done(self) -> bool:
        return self.state in DONE

    def score(self) -> float:
        """The best score on validation data, by which a rate is chosen; infinite for a run that diverged."""
        return math.inf if self.state == "diverged" or self.best_validation is None else self.best_validation


@dataclass(frozen=True)
class Results:
    """The cells of a study, the candidates of every tuned rate, the proofs, and the result of every run by key."""

    ablation: Ablation
    cells: list[Cell]
    tuning: dict[Place, list[Cell]]
    rates: dict[Place, float]
    proofs: list[tuple[Cell, Cell]]
    by_key: dict[str, Result]

    def of(self, cell: Cell) -> Result:
        if cell.plan is None:
            return Result(state="impossible", reason=cell.reason)
        return self.by_key.get(cell.key, Result(state="failed", reason="not run"))

    def plan(self, cell: Cell) -> Plan | None:
        """The plan that was run: in mode auto the one that its probe chose."""
        chosen = self.of(cell).plan if cell.mode == "auto" else None
        return Plan(**chosen) if chosen else cell.plan

    def run_name(self, cell: Cell) -> str:
        """The folder of the run whose result is the cell's."""
        candidates = (candidate for cells in self.tuning.values() for candidate in cells)
        return next(c for c in (*candidates, *self.cells) if c.plan and c.key == cell.key).name

    def groups(self) -> list[list[Cell]]:
        """The cells of each place together: its seeds."""
        grouped: dict[Place, list[Cell]] = {}
        for cell in self.cells:
            grouped.setdefault(cell.place, []).append(cell)
        return list(grouped.values())

    def sequential(self, data: str) -> list[Cell]:
        return [cell for cell in self.cells if cell.data == data and cell.arm == SEQUENTIAL]

    def skills(self, cells: list[Cell]) -> list[float]:
        """The test skill of the runs that converged."""
        results = map(self.of, cells)
        return [result.test.skill for result in results if result.test and result.state == "finished"]


def collect(run: Run, diverged_below: float) -> Result:
    """The result of a run that has ended, without its key.

    It has diverged if its last network on validation data, or its best network on test data, has less skill than
    `diverged_below`.
    """
    status, plan = run.status(), json.loads(run.plan.read_text())
    result = Result(
        state=status["state"],
        reason=status["reason"],
        updates=status["updates"],
        weights_sha256=status["weights_sha256"],
        seconds=_seconds(status),
        plan=plan,
        sources=json.loads(run.environment.read_text())["sources"],
        **_logged(run, plan),
    )
    if result.state == "finished":
        test = test_error(run)
        ends = {"validation": result.curve[-1][1], "test": test.skill}
        below = [f"{skill:.3g} on {split} data" for split, skill in ends.items() if skill < diverged_below]
        diverged = {"state": "diverged", "reason": f"final skill {' and '.join(below)}"} if below else {}
        return result.model_copy(update={"test": test, **diverged})
    return result.model_copy(update={"state": "diverged"}) if NOT_FINITE in result.reason else result


def test_error(run: Run, split: str = "test") -> TestError:
    """The error of a run's best network, and of bicubic interpolation, weighted by area."""
    from dsr import predict
    from dsr.data.samples import read
    from dsr.verify.metrics.rmse import RMSE
    from dsr.verify.scoring import Tally, Truth

    network = predict.load(run.model)
    store = _store(network.description["store"])
    features = network.features
    names = [v.name for v in store.low_variables]
    low = [names.index(v.name) for v in features.low]
    area = store.grid("high").area() * store.mask(split)
    tally = Tally({"rmse": RMSE()})
    for samples in read(store, features, store.samples(split), values=2**20):
        given = features.arguments(samples.low[..., low, :, :], samples.init_time, samples.lead_time)
        fields = dict(zip(("network", "bicubic"), network.module.predict(*given), strict=True))
        tally.add(Truth.of(samples.truth, area), fields)
    rmse, bicubic = (
        dict(zip((v.name for v in features.high), tally.values("rmse", method).tolist(), strict=True))
        for method in ("network", "bicubic")
    )
    bicubic = {name: value for name, value in bicubic.items() if name in {v.name for v in features.low}}
    return TestError(
        rmse=rmse,
        bicubic=bicubic,
        units={v.name: v.units for v in features.high},
        parameters=sum(parameter.numel() for parameter in network.module.parameters()),
        skill=mean_skill(rmse, bicubic),
    )


def mean_skill(rmse: dict[str, float], bicubic: dict[str, float]) -> float:
    """The mean over variables of 1 - RMSE / RMSE of bicubic interpolation: 0 is bicubic, 1 is perfect."""
    return float(np.mean([1 - rmse[name] / value for name, value in bicubic.items()]))


def _logged(run: Run, plan: dict[str, Any]) -> dict[str, Any]:
    """From metrics.jsonl: the validation curve, its best score, the noise scale, and the time of an update."""
    records = run.logged()
    validated = [(r["update"], r["validation"]) for r in records if "validation" in r]
    speeds = [r["samples_per_second"] for r in records if "samples_per_second" in r]
    noise = [r["noise_scale"] for r in records if "noise_scale" in r]
    return {
        "curve": [(update, mean_skill(scores["rmse"], scores["bicubic"])) for update, scores in validated],
        "best_validation": min((scores["score"] for _, scores in validated), default=None),
        "noise_scale": noise[-1] if noise else None,
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
