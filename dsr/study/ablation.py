"""An ablation file: what is to be compared, on which data, with how many seeds, and what counts as the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from dsr.config import read_json
from dsr.data.simulate import Settings
from dsr.data.store import Store
from dsr.errors import Missing, UserError
from dsr.scaling import speed
from dsr.settings import Positive, Section, first_problem

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")]  # it becomes part of a folder's name
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Rate = Annotated[float, Field(gt=0)]
Changes = Annotated[dict[str, Any] | list[str], Field(description="nested as in an experiment, or a list of KEY=VALUE")]
BudgetName = Literal["epochs", "updates"]
SEQUENTIAL = "sequential"  # the arm that every study has: one GPU, the experiment as written


class Limits(Section):
    """Leaves cells out: what is given here, and no other, takes part. Not given: all that the study has."""

    gpus: list[Positive] | None = None
    seeds: list[Seed] | None = None
    budgets: list[BudgetName] | None = None
    arms: list[str] | None = None

    def allow(self, *, arm: str, budget: str, gpus: int, seed: int) -> bool:
        wanted = ((self.arms, arm), (self.budgets, budget), (self.gpus, gpus), (self.seeds, seed))
        return all(limit is None or value in limit for limit, value in wanted)


class DataSet(Section):
    """One store, or a part of its training split, and what the experiment changes for it."""

    gpus: list[Positive] | None = None
    budgets: dict[BudgetName, Limits] | None = Field(None, description="in place of the study's")
    label: str = Field(description="what a reader of the report calls it")
    store: str | None = Field(None, description="path (from where dsr is started) or URL")
    origin: str | None = Field(None, description="one line for people: where the store's data are to be had")
    simulate: Settings | None = Field(None, description="built-in data with these settings, made once")
    changes: Changes = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one(self) -> DataSet:
        if (self.store is None) == (self.simulate is None):
            raise ValueError("give either store or simulate")
        return self


class Arm(Limits):
    """One way to use N GPUs. An optimizer of its own needs `rates`, its own search for the sequential rate."""

    label: str
    mode: Annotated[
        Literal["strong", "weak", "auto"], Field(description="auto: `gpus` are the most that it may choose")
    ]
    micro_batch: Positive | None = Field(
        None,
        description="samples that a GPU takes at once; the batch stays, so its mean is the same but for rounding "
        "(missing values and dropout go by the slot)",
    )
    changes: Changes = Field(default_factory=dict)
    rates: list[Rate] | None = Field(None, description="tune this arm's own sequential rate over these")
    retune: list[Rate] | None = Field(None, description="tune the rate anew at every batch, over these, on validation")


class Tune(Section):
    """The search for the sequential learning rate: the best mean score on the validation split. It runs first."""

    rates: Annotated[list[Rate], Field(min_length=2)]
    seeds: Annotated[list[Seed], Field(min_length=1)]


class Definitions(Section):
    """What the study's words mean. They are fixed here, before anything runs."""

    level: Annotated[float, Field(gt=0.5, lt=1)] = Field(0.95, description="of every interval")
    diverged_below: float = Field(
        0.0,
        description="a run has diverged if anything is not finite, if its last network has less skill than this on "
        "validation data, or its best network on test data. 0 is bicubic interpolation.",
    )
    same: Literal["prediction", "confidence"] = Field(
        "prediction",
        description="a run is the same if its test error lies inside this interval of the sequential seeds: prediction "
        "(where one more sequential run would lie) or confidence (where their mean lies)",
    )
    target: Annotated[float, Field(gt=0, le=1)] = Field(
        0.95, description="the share of the sequential runs' skill on validation data that counts as the target"
    )


class Proof(Section):
    """Real ranks against one device: these arms at these GPU counts must end with the same bits."""

    data: str
    arms: Annotated[list[str], Field(min_length=1)]
    gpus: Annotated[list[Positive], Field(min_length=1)]
    updates: Positive


class Network(Section):
    """The network of the GPUs that times are predicted for."""

    latency_us: Annotated[float, Field(ge=0)] = speed.Wires.latency_us
    gbit_per_s: Annotated[float, Field(gt=0)] = speed.Wires.gbit_per_s


class Ablation(Section):
    """A whole study."""

    title: str
    base: str = Field(description="an experiment file, relative to this one")
    data: Annotated[dict[Name, DataSet], Field(min_length=1)]
    arms: Annotated[dict[Name, Arm], Field(min_length=1)]
    gpus: Annotated[list[Positive], Field(min_length=1)]
    seeds: Annotated[list[Seed], Field(min_length=2)]
    budgets: Annotated[dict[BudgetName, Limits], Field(min_length=1)] = Field(
        {"epochs": Limits()},
        description="epochs: every arm sees as many samples as the sequential run; updates: it makes as many updates",
    )
    validations: Positive | None = Field(
        None, description="how often a run is validated, after equal shares of its updates; by default as the base says"
    )
    tune: Tune | None = None
    definitions: Definitions = Definitions()
    proof: Proof | None = None
    wires: Network = Network()
    quick: dict[str, Any] = Field(default_factory=dict, description="what --quick changes, as a JSON merge patch")

    @field_validator("arms")
    @classmethod
    def _not_sequential(cls, arms: dict[str, Arm]) -> dict[str, Arm]:
        if SEQUENTIAL in arms:
            raise ValueError(f"{SEQUENTIAL} is always there: one GPU, the experiment as written")
        return arms


def read(path: Path, *, quick: bool = False) -> tuple[Ablation, Path]:
    """An ablation file and its base experiment's path. Raises UserError naming the file and the key."""
    values = read_json(path)
    if quick:
        if not values.get("quick"):
            raise UserError(f"{path}: --quick: the file has no section quick, which says what a quick study leaves out")
        values = _patched(values, values["quick"])
    try:
        ablation = Ablation.model_validate_json(json.dumps(values))
    except ValidationError as error:
        raise UserError(f"{path}: {first_problem(error, Ablation)}") from None
    if problem := _problem(ablation):
        raise UserError(f"{path}: {problem}")
    return ablation, path.parent / ablation.base


def present(ablation: Ablation) -> tuple[Ablation, dict[str, Missing]]:
    """The study without the data sets whose store is missing, and for each of those the error that says so.

    A proof on such a data set is left out too. Raises Missing where no data set remains.
    """
    missing: dict[str, Missing] = {}
    for name, data in ablation.data.items():
        try:
            if data.store:
                Store(data.store)
        except Missing as error:
            missing[name] = error.with_origin(data.origin)
    remaining = {name: data for name, data in ablation.data.items() if name not in missing}
    if not remaining:
        raise next(iter(missing.values()))
    proof = ablation.proof if ablation.proof and ablation.proof.data in remaining else None
    return ablation.model_copy(update={"data": remaining, "proof": proof}), missing


def overrides(changes: dict[str, Any] | list[str]) -> list[str]:
    """Changes as the KEY=VALUE words of --set."""
    if isinstance(changes, list):
        return changes
    return [f"{key}={json.dumps(value)}" for key, value in changes.items()]


def _problem(ablation: Ablation) -> str | None:
    """What does not fit together between the file's parts."""
    arms, proof = ablation.arms, ablation.proof
    budgets = {f"budgets.{name}": limits for name, limits in ablation.budgets.items()}
    for data, part in ablation.data.items():
        budgets |= {f"data.{data}.budgets.{name}": limits for name, limits in (part.budgets or {}).items()}
    limited = budgets | {f"arms.{name}": arm for name, arm in arms.items()}
    named = [(f"{where}.arms", limits.arms or []) for where, limits in limited.items()]
    for where, names in [*named, ("proof.arms", proof.arms if proof else [])]:
        if unknown := [name for name in names if name not in (*arms, SEQUENTIAL)]:
            return f"{where}: {unknown[0]} is not one of {', '.join(arms)}"
    if proof and proof.data not in ablation.data:
        return f"proof.data: {proof.data} is not one of {', '.join(ablation.data)}"
    if speed.Wires(**ablation.wires.model_dump()) != speed.Wires() and any(a.mode == "auto" for a in arms.values()):
        return "wires: a run in mode auto on one device assumes the default wires, and must be held against the same"
    if not ablation.tune and (tuned := [name for name, arm in arms.items() if arm.rates or arm.retune]):
        return f"arms.{tuned[0]}: rates and retune need the section tune, which names the seeds they are tried with"
    return None


def _patched(values: Any, patch: Any) -> Any:
    """RFC 7396: objects merge, null removes, everything else replaces."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(values) if isinstance(values, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _patched(merged.get(key), value)
    return merged
