"""An experiment: its typed `dsr` section beside the DeepSpeed part, and whether the two fit each other."""

import json
import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dsr.config import deepspeed
from dsr.errors import UserError
from dsr.models.losses import LOSSES, Loss
from dsr.models.networks import NETWORKS, Network
from dsr.scaling.rules import RULES, Rule
from dsr.settings import Names, Positive, Section, first_problem


class Budget(Section):
    """How long to train: the sequential run's epochs, or its updates, one of the two."""

    epochs: Positive | None = None
    updates: Positive | None = None

    @model_validator(mode="after")
    def _one(self) -> "Budget":
        if (self.epochs is None) == (self.updates is None):
            raise ValueError("give either epochs or updates")
        return self


class Data(Section):
    """What the network sees and learns. Names left out mean: all that the store has."""

    store: str | None = Field(None, description="path (from where dsr is started) or URL; none: the built-in data")
    origin: str | None = Field(None, description="one line for people: where the store's data are to be had")
    low: Names | None = Field(None, description="low-resolution variables that the network sees")
    high: Names | None = Field(None, description="high-resolution variables that it learns")
    static: list[str] | None = Field(None, description="static fields that it sees")
    extras: list[Literal["solar_zenith", "day_of_year", "lead_time"]] = Field(default_factory=list)
    members: Literal["mean_spread", "mean", "control"] = Field("mean_spread", description="how an ensemble enters")
    patch: Positive | None = Field(None, description="side of the square training patches, in high-resolution cells")
    fill: bool = Field(False, description="replace missing low-resolution values by the variable's mean")
    samples: Positive | None = Field(
        None, description="train on no more than so many fields: whole runs, evenly spread over the training split"
    )
    cache: Annotated[float, Field(ge=0)] = Field(
        8.0, description="GB of the user's cache folder for decoded rows; larger stores are not cached"
    )
    noise: Annotated[float, Field(ge=0)] = Field(
        0.0, description="augmentation: standard deviation of noise on the normalised low-resolution inputs in training"
    )


class Optimizer(Section):
    """What stock DeepSpeed cannot build: the `optimizer` block's own optimizer, with a rate for each layer."""

    type: Literal["LARS", "LAMB"] = Field(description="LARS makes it of SGD, LAMB of Adam or AdamW")
    trust: Annotated[float, Field(gt=0)] | None = Field(
        None, description="LARS's trust coefficient, none: 0.001; LAMB has none"
    )


class Growth(Section):
    """At each of these epochs' ends the effective batch grows by the factor, where else the rate would fall by it."""

    epochs: Annotated[list[Positive], Field(min_length=1)]
    factor: Annotated[int, Field(ge=2)] = 2

    @model_validator(mode="after")
    def _rising(self) -> "Growth":
        if self.epochs != sorted(set(self.epochs)):
            raise ValueError("the epochs must rise")
        return self


class Scaling(Section):
    """What --mode does with the learning rate, and how gradients are summed."""

    rule: Annotated[Rule, RULES] = RULES.field()
    warmup_epochs: Annotated[float, Field(ge=0)] = Field(
        5.0,
        description="weak scaling's gradual warm-up, 0: none; not with the rules "
        + ", ".join(name for name in RULES.table if not RULES.find(name).gradual_warmup),
    )
    growth: Growth | None = Field(None, description="the batch grows while it trains, in place of a decaying rate")
    exact: bool = Field(True, description="sum gradients in the slot tree: the same bits on any number of GPUs")


class Checkpoint(Section):
    every: Positive = Field(default=100, description="updates between two checkpoints")


class Validation(Section):
    every: Positive | None = Field(default=None, description="updates between two validations; none: once an epoch")


class Log(Section):
    every: Positive = Field(default=10, description="updates between two lines in metrics.jsonl and TensorBoard")


class Watchdog(Section):
    minutes: Annotated[float, Field(gt=0, le=10080)] = Field(
        default=10.0, description="without an update, validation or checkpoint after which a run is ended"
    )


class Dsr(Section):
    """The `dsr` section of an experiment."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 1
    labels: dict[str, str] = Field(default_factory=dict, description="stand beside the settings in TensorBoard")
    budget: Budget = Budget(epochs=10)
    data: Data = Data()
    model: Annotated[Network, NETWORKS] = NETWORKS.field()
    loss: Annotated[Loss, LOSSES] = LOSSES.field()
    ema: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="decay, per update, of an average of the weights that is validated and saved in their place"
    )
    optimizer: Optimizer | None = Field(None, description="in place of the optimizer block's type, with its parameters")
    scaling: Scaling = Scaling()
    checkpoint: Checkpoint = Checkpoint()
    validation: Validation = Validation()
    log: Log = Log()
    watchdog: Watchdog = Watchdog()


class Experiment(BaseModel):
    """One experiment: the DeepSpeed part as the user wrote it, and the typed `dsr` section."""

    model_config = ConfigDict(frozen=True)
    deepspeed: dict[str, Any]
    dsr: Dsr

    @property
    def micro_batch(self) -> int:
        return self.deepspeed["train_micro_batch_size_per_gpu"]

    @property
    def accumulation(self) -> int:
        """The slots of the sequential run, S1."""
        return self.deepspeed["gradient_accumulation_steps"]

    @property
    def optimizer_type(self) -> str:
        """The optimizer that trains: DeepSpeed's, or dsr's own in its place."""
        own = self.dsr.optimizer
        return own.type if own else self.deepspeed["optimizer"]["type"]

    @property
    def clipping(self) -> float:
        """The gradient norm to clip at, 0 for none. Left out, DeepSpeed's own default of 1.0 holds."""
        return float(self.deepspeed.get("gradient_clipping", 1.0))

    @property
    def zero_stage(self) -> int:
        return self.deepspeed.get("zero_optimization", {}).get("stage", 0)

    @property
    def exact(self) -> bool:
        """Whether gradients go through the slot tree; at ZeRO stage 3 they cannot."""
        return not self.inexact

    @property
    def inexact(self) -> str:
        """Why gradients do not go through the slot tree; empty where they do."""
        if self.zero_stage == 3:
            return "ZeRO stage 3 shards the weights"
        if self.zero_stage and self.deepspeed["optimizer"]["params"].get("fused"):
            return "optimizer.params.fused: how a fused step rounds depends on where ZeRO's shards begin"
        return "" if self.dsr.scaling.exact else "dsr.scaling.exact is off"

    def resolved(self) -> dict[str, Any]:
        """The whole experiment as one JSON document, every default of the `dsr` section written out."""
        return {**self.deepspeed, "dsr": self.dsr.model_dump(mode="json")}


def validate(values: dict[str, Any], source: str, *, named: bool = False) -> Experiment:
    """Check a resolved experiment. Raises UserError naming `source` and the key.

    `named`: the user named it on this command line, so that the components from outside dsr that it names are imported.
    """
    _check_numbers(values, source)
    part = {key: value for key, value in values.items() if key != "dsr"}
    deepspeed.check(part, source)
    try:
        dsr = Dsr.model_validate(values.get("dsr", {}), context={"named": named})
    except ValidationError as error:
        raise UserError(f"{source}: {first_problem(error, Dsr, 'dsr')}") from None
    except UserError as error:  # of a component
        raise UserError(f"{source}: {error}") from None
    experiment = Experiment(deepspeed=part, dsr=dsr)
    _check_own_optimizer(experiment, source)
    _check_growth(experiment, source)
    if dsr.ema is not None and experiment.zero_stage == 3:
        raise UserError(
            f"{source}: dsr.ema averages whole weights, and ZeRO stage 3 shards them: set zero_optimization.stage to 2"
        )
    return experiment


def _check_numbers(value: Any, source: str, key: str = "") -> None:
    """Refuse numbers that no part of a run can compute with, wherever they are."""
    if isinstance(value, (dict, list)):
        for name, item in value.items() if isinstance(value, dict) else enumerate(value):
            _check_numbers(item, source, f"{key}.{name}" if key else str(name))
    elif isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{source}: {key} must be a finite number (given: {json.dumps(value)})")
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise UserError(f"{source}: {key} must be a number of at most 64 bits (given: {value.bit_length()} bits)")


def json_schema() -> dict[str, Any]:
    """The JSON schema of an experiment file, for an editor."""
    dsr = Dsr.model_json_schema()
    definitions = dsr.pop("$defs", {})
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "dsr experiment",
        "type": "object",
        "properties": {"extends": {"type": "string"}, **deepspeed.json_schema(), "dsr": dsr},
        "additionalProperties": False,
        "$defs": definitions,
    }


def _check_own_optimizer(experiment: Experiment, source: str) -> None:
    """Check that dsr.optimizer fits the DeepSpeed part, whose optimizer block holds its parameters."""
    own, block = experiment.dsr.optimizer, experiment.deepspeed["optimizer"]
    if own is None:
        return
    bases, meaningless = deepspeed.OWN_OPTIMIZERS[own.type]
    if block["type"] not in bases:
        raise UserError(
            f"{source}: dsr.optimizer {own.type} takes its parameters from an optimizer.type of {' or '.join(bases)} "
            f"(given: {json.dumps(block['type'])})"
        )
    params = block["params"]
    unknown = [name for name in meaningless if params.get(name)]
    if unknown:
        raise UserError(f"{source}: optimizer.params.{unknown[0]} has no meaning for dsr.optimizer {own.type}")
    if own.type == "LAMB" and own.trust is not None:
        raise UserError(f"{source}: dsr.optimizer.trust is LARS's; leave it out for LAMB")
    if own.type == "LAMB" and params.get("weight_decay") and not params.get("adam_w_mode", True):
        raise UserError(f"{source}: LAMB's weight decay is AdamW's: leave out optimizer.params.adam_w_mode")
    if experiment.zero_stage:
        raise UserError(
            f"{source}: dsr.optimizer {own.type} needs whole layers, and ZeRO stage {experiment.zero_stage} cuts them "
            "into flat shards: set zero_optimization.stage to 0"
        )


def _check_growth(experiment: Experiment, source: str) -> None:
    """Check that what dsr.scaling.growth stands in for is not there too."""
    if experiment.dsr.scaling.growth is None:
        return
    decaying = experiment.deepspeed.get("scheduler", {}).get("type", "WarmupLR")
    if decaying != "WarmupLR":
        raise UserError(
            f"{source}: dsr.scaling.growth stands in for a decaying rate, and scheduler.type {decaying} decays it too: "
            "WarmupLR, or none, keeps it"
        )
    rule = experiment.dsr.scaling.rule
    if rule.measures_gain:
        raise UserError(f"{source}: dsr.scaling.growth keeps the rate, and the rule {rule.name} does not: choose one")
    if experiment.zero_stage:
        raise UserError(
            f"{source}: dsr.scaling.growth changes the accumulation in training, which ZeRO fixes at the start: "
            "set zero_optimization.stage to 0"
        )
