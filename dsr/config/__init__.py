"""An experiment file: read it, extend it, override it, validate it. Never imports deepspeed."""

import difflib
import json
import math
import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dsr.errors import UserError


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# What DeepSpeed 0.19 reads: it accepts a misspelt key in silence, so we hold the list (a test compares it).
DEEPSPEED_KEYS = _words("""
    activation_checkpointing aio autotuning bf16 bfloat16 checkpoint comet comms_logger communication_data_type compile
    csv_monitor data_efficiency data_types dataloader_drop_last datastates_ckpt disable_allgather disable_python_gc
    dump_state expert_parallel flops_profiler fp16 gradient_accumulation_steps gradient_allreduce_op
    gradient_clipping gradient_predivide_factor graph_harvesting hybrid_engine log_level memory_breakdown
    managed_gradient_accumulation optimizer pipeline prescale_gradients scheduler seq_parallel_communication_data_type
    sparse_gradients steps_per_print tensor_parallel tensorboard timers torch_autocast train_batch_size
    train_micro_batch_size_per_gpu use_data_before_expert_parallelism vocabulary_size wall_clock_breakdown wandb
    weight_quantization zero_allow_untested_optimizer zero_force_ds_cpu_optimizer zero_optimization
""")
# Blocks that 0.19 removed: DeepSpeed raises on each.
DEEPSPEED_REMOVED = _words("""
    amp compression_training curriculum_learning eigenvalue elasticity nebula progressive_layer_drop quantize_training
    sparse_attention
""")
_BF16 = _words("""
    enabled immediate_grad_update check_grad_overflow bf16_master_weights_and_grads bf16_optimizer_states
""")
# Blocks in which DeepSpeed refuses an unknown key too, but only after every rank has started, or not at all.
DEEPSPEED_BLOCKS = {
    "bf16": _BF16,
    "bfloat16": _BF16,  # its older name
    "fp16": _words("""
        enabled auto_cast loss_scale initial_scale_power loss_scale_window hysteresis consecutive_hysteresis
        min_loss_scale fp16_master_weights_and_grads
    """),
    "torch_autocast": _words("enabled dtype lower_precision_safe_modules"),
    "zero_optimization": _words("""
        stage contiguous_gradients reduce_scatter reduce_bucket_size use_multi_rank_bucket_allreduce
        allgather_partitions allgather_bucket_size overlap_comm compute_grad_norm load_from_fp32_weights
        elastic_checkpoint offload_param offload_optimizer zenflow sub_group_size cpu_offload_param
        cpu_offload_use_pin_memory cpu_offload stage3_prefetch_bucket_size stage3_param_persistence_threshold
        stage3_model_persistence_threshold stage3_max_live_parameters stage3_max_reuse_distance
        stage3_gather_16bit_weights_on_model_save stage3_module_granularity_threshold
        stage3_use_all_reduce_for_fetch_params stage3_allgather_sequential stage3_gather_fp16_weights_on_model_save
        ignore_unused_parameters legacy_stage1 round_robin_gradients parameter_alignment zero_hpz_partition_size
        zero_quantized_weights zero_quantized_nontrainable_weights zero_quantized_gradients memory_efficient_linear
        pipeline_loading_checkpoint override_module_apply log_trace_cache_warnings enable_sanity_checks
        save_muon_momentum_buffer_in_memory leaf_module
    """),
}
# Blocks that write files of their own, somewhere: what they would tell, dsr tells.
DEEPSPEED_WRITERS = {
    "tensorboard": "dsr writes TensorBoard events into the run's folder",
    "csv_monitor": "metrics.jsonl in the run's folder holds the numbers",
    "wandb": "TensorBoard events and metrics.jsonl in the run's folder hold the numbers",
    "comet": "TensorBoard events and metrics.jsonl in the run's folder hold the numbers",
    "autotuning": "--set and `dsr plan` choose the numbers",
    "data_efficiency": "dsr reads the data itself",
}
_ADAM = _words("lr betas eps weight_decay amsgrad torch_adam adam_w_mode fused")
OPTIMIZER_PARAMS = {
    "Adam": _ADAM,
    "AdamW": _ADAM,
    "SGD": _words("lr momentum dampening weight_decay nesterov fused"),
    "Adagrad": _words("lr lr_decay weight_decay initial_accumulator_value eps"),
    "RMSprop": _words("lr alpha eps weight_decay momentum centered"),
}
# dsr.optimizer: the stock types whose block it reads, and what of that block it does not know.
OWN_OPTIMIZERS = {
    "LARS": (("SGD",), ("dampening", "nesterov")),
    "LAMB": (("Adam", "AdamW"), ("amsgrad",)),
}
_WARMUP = _words("warmup_min_lr warmup_max_lr warmup_num_steps warmup_type last_batch_iteration")
SCHEDULER_PARAMS = {
    "WarmupLR": _WARMUP,
    "WarmupDecayLR": _WARMUP | {"total_num_steps"},
    "WarmupCosineLR": _WARMUP - {"warmup_min_lr", "warmup_max_lr"}
    | {"total_num_steps", "warmup_min_ratio", "cos_min_ratio"},
}


class Section(BaseModel):
    """A part of the `dsr` section: unknown keys are refused, values are not coerced from other types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


Positive = Annotated[int, Field(gt=0)]
Names = Annotated[list[str], Field(min_length=1)]


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
    noise: Annotated[float, Field(ge=0)] = Field(
        0.0, description="augmentation: standard deviation of noise on the normalised low-resolution inputs in training"
    )


class Model(Section):
    """The network: `name` is a key of dsr.models.NETWORKS, the rest its own settings."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str = "deepdownscale"


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

    rule: Literal["none", "linear", "sqrt", "adascale", "adam-sde"] = Field(
        "linear",
        description="weak scaling's learning rate at N GPUs: none (as written), linear (N times), sqrt (sqrt(N) "
        "times), adascale (SGD only: 1 to N times, by the gradients' measured noise), adam-sde (Adam only: sqrt(N) "
        "times, with betas and eps to match)",
    )
    warmup_epochs: Annotated[float, Field(ge=0)] = Field(
        5.0, description="weak scaling's gradual warm-up, 0: none; the rules none and adascale have none"
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
    model: Model = Model()
    loss: Literal["mse", "mae"] = "mse"
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
    def clipping(self) -> float:
        """The gradient norm to clip at, 0 for none. Left out, DeepSpeed's own default of 1.0 holds."""
        return float(self.deepspeed.get("gradient_clipping", 1.0))

    @property
    def zero_stage(self) -> int:
        return self.deepspeed.get("zero_optimization", {}).get("stage", 0)

    @property
    def exact(self) -> bool:
        """Whether gradients go through the slot tree; ZeRO stages 1-3 cannot."""
        return not self.inexact

    @property
    def inexact(self) -> str:
        """Why gradients do not go through the slot tree; empty where they do."""
        if self.zero_stage:
            return "ZeRO shards the gradients"
        return "" if self.dsr.scaling.exact else "dsr.scaling.exact is off"

    def resolved(self) -> dict[str, Any]:
        """The whole experiment as one JSON document, every default of the `dsr` section written out."""
        return {**self.deepspeed, "dsr": self.dsr.model_dump(mode="json")}


def shipped(name: str) -> Path:
    """The path of a configuration that comes with dsr, such as "default.json"."""
    package = Path(__file__).parents[1]
    installed, checkout = package / "ds_configs" / name, package.parent / "ds_configs" / name
    return installed if installed.exists() else checkout


def load(path: Path | None = None, overrides: list[str] | tuple[str, ...] = ()) -> Experiment:
    """Read an experiment file (none: default.json), apply `extends` and KEY=VALUE overrides, validate.

    Raises UserError, naming the file and the key.
    """
    path = shipped("default.json") if path is None else Path(path)
    values = _read(path, ())
    for override in overrides:
        _override(values, override)
    return validate(values, str(path))


def validate(values: dict[str, Any], source: str) -> Experiment:
    """Check a resolved experiment. Raises UserError naming `source` and the key."""
    deepspeed = {key: value for key, value in values.items() if key != "dsr"}
    _check_deepspeed(deepspeed, source)
    try:
        experiment = Experiment(deepspeed=deepspeed, dsr=Dsr.model_validate(values.get("dsr", {})))
    except ValidationError as error:
        raise UserError(f"{source}: {explain(error, Dsr, 'dsr')}") from None
    _check_own_optimizer(experiment, source)
    _check_growth(experiment, source)
    return experiment


def schema() -> dict[str, Any]:
    """The JSON schema of an experiment file, for an editor."""
    dsr = Dsr.model_json_schema()
    definitions = dsr.pop("$defs", {})
    keys: dict[str, Any] = {key: {} for key in sorted(DEEPSPEED_KEYS)}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "dsr experiment",
        "type": "object",
        "properties": {"extends": {"type": "string"}, **keys, "dsr": dsr},
        "additionalProperties": False,
        "$defs": definitions,
    }


def explain(error: ValidationError, model: type[BaseModel], prefix: str) -> str:
    """One line for the first problem pydantic found: the key, what is wrong, and the nearest valid name."""
    first = error.errors()[0]
    location = [str(part) for part in first["loc"]]
    key = ".".join(part for part in [prefix, *location] if part)
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"unknown key {key}{_nearest(location[-1], _names(model, location[:-1]))}"
    given = "" if first["type"] == "missing" else f" (given: {json.dumps(first['input'], default=str)[:60]})"
    return f"{key}: {first['msg'].removeprefix('Value error, ')}{given}"


def _names(model: Any, location: list[str]) -> list[str]:
    """The field names valid at a location inside a nested model."""
    for part in location:
        field = getattr(model, "model_fields", {}).get(part)
        if field is None:
            continue  # a list index, or the name of a union's branch
        candidates = [field.annotation, *get_args(field.annotation)]
        nested = [c for c in candidates if isinstance(c, type) and (issubclass(c, BaseModel) or is_dataclass(c))]
        inner = [a for c in candidates if get_origin(c) in (list, dict, Union) for a in get_args(c)]
        nested += [c for c in inner if isinstance(c, type) and issubclass(c, BaseModel)]
        if nested:
            model = nested[0]
    if is_dataclass(model):
        return [field.name for field in fields(model)]
    return [f.alias or name for name, f in getattr(model, "model_fields", {}).items()]


def _nearest(name: str, names: Any) -> str:
    near = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else f"; valid here: {', '.join(sorted(names))[:160]}"


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file. Raises UserError with the line where it is not JSON."""
    try:
        values = json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: not JSON, line {error.lineno}: {error.msg}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: must hold a JSON object")
    return values


def _read(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in seen:
        chain = " -> ".join(p.name for p in (*seen, path))
        raise UserError(f"{path}: `extends` goes in a circle: {chain}")
    values = read_json(path)
    parent = values.pop("extends", None)
    if parent is None:
        return values
    if not isinstance(parent, str):
        raise UserError(f"{path}: extends must be the name of a file")
    return _merge(_read(path.parent / parent, (*seen, path.resolve())), values)


def _merge(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """Deep merge: objects are merged, everything else (lists too) is replaced."""
    merged = dict(base)
    for key, value in change.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    if {"epochs", "updates"} & change.keys() and len(change) == 1:
        merged = dict(change)  # a budget: epochs and updates exclude each other, the newer one wins
    known = {**OPTIMIZER_PARAMS, **SCHEDULER_PARAMS}.get(str(change.get("type")))
    if known and base.get("type", change["type"]) != change["type"] and isinstance(merged.get("params"), dict):
        own = change.get("params") or {}  # what was inherited from the other type, and this one lacks, falls away
        merged["params"] = {name: value for name, value in merged["params"].items() if name in known or name in own}
    return merged


def _override(values: dict[str, Any], override: str) -> None:
    """Apply one KEY=VALUE, such as dsr.model.width=64; the value is JSON, or else text."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UserError(f"--set {override}: write it as KEY=VALUE, such as dsr.model.width=64")
    if key == "extends":
        raise UserError(f"--set {override}: extends is for files; give the file itself as the config")
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        value = text
    change: Any = value
    for part in reversed(key.split(".")):
        change = {part: change}
    merged = _merge(values, change)
    values.clear()
    values.update(merged)


def _check_deepspeed(part: dict[str, Any], source: str) -> None:
    """Check the DeepSpeed part: known keys, consistent batch numbers, an optimizer that needs no compilation."""
    for key in part:
        if key in DEEPSPEED_REMOVED:
            raise UserError(f"{source}: {key} was removed from DeepSpeed 0.19; leave it out")
        if key not in DEEPSPEED_KEYS:
            raise UserError(f"{source}: unknown key {key}{_nearest(key, [*DEEPSPEED_KEYS, 'dsr', 'extends'])}")
    for block, names in DEEPSPEED_BLOCKS.items():
        if not isinstance(part.get(block, {}), dict):
            raise UserError(f"{source}: {block} must be an object (given: {json.dumps(part[block])})")
        for key in part.get(block, {}):
            if key not in names:
                raise UserError(f"{source}: unknown key {block}.{key}{_nearest(key, names)}")
    _check_places(part, source)
    sizes = ("train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "train_batch_size")
    for name in sizes:
        value = part.get(name)
        if name != "train_batch_size" and value is None:
            raise UserError(f"{source}: {name} is missing; it is a positive whole number")
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise UserError(f"{source}: {name} must be a positive whole number (given: {json.dumps(value)})")
    micro, accumulation = part[sizes[0]], part[sizes[1]]
    if part.get("train_batch_size", micro * accumulation) != micro * accumulation:
        raise UserError(
            f"{source}: train_batch_size {part['train_batch_size']} is not {micro} x {accumulation} "
            f"({sizes[0]} x {sizes[1]}): an experiment is written for one GPU"
        )
    if part.get("managed_gradient_accumulation", True) is not True:
        raise UserError(f"{source}: managed_gradient_accumulation must be true: dsr says where an update ends")
    _check_typed(part, "optimizer", OPTIMIZER_PARAMS, source)
    if "scheduler" in part:
        _check_typed(part, "scheduler", SCHEDULER_PARAMS, source)
    rate = part["optimizer"]["params"].get("lr")
    if not _is_number(rate) or rate <= 0:
        raise UserError(f"{source}: optimizer.params.lr must be a positive number (given: {json.dumps(rate)})")
    clipping = part.get("gradient_clipping", 1.0)
    if not _is_number(clipping) or clipping < 0:
        raise UserError(f"{source}: gradient_clipping must be 0 (none) or a positive number")
    _check_precision(part, source)
    stage = part.get("zero_optimization", {}).get("stage", 0)
    if not _is_number(stage) or stage not in (0, 1, 2, 3):
        raise UserError(f"{source}: zero_optimization.stage must be 0, 1, 2 or 3 (given: {json.dumps(stage)})")


def _check_own_optimizer(experiment: Experiment, source: str) -> None:
    """Check that dsr.optimizer fits the DeepSpeed part, whose optimizer block holds its parameters."""
    own, block = experiment.dsr.optimizer, experiment.deepspeed["optimizer"]
    if own is None:
        return
    bases, ignored = OWN_OPTIMIZERS[own.type]
    if block["type"] not in bases:
        raise UserError(
            f"{source}: dsr.optimizer {own.type} takes its parameters from an optimizer.type of {' or '.join(bases)} "
            f"(given: {json.dumps(block['type'])})"
        )
    params = block["params"]
    unknown = [name for name in ignored if params.get(name)]
    if unknown:
        raise UserError(f"{source}: optimizer.params.{unknown[0]} is nothing that dsr.optimizer {own.type} knows")
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
    if experiment.dsr.scaling.rule == "adascale":
        raise UserError(f"{source}: dsr.scaling.growth keeps the rate, and the rule adascale does not: choose one")
    if experiment.zero_stage:
        raise UserError(
            f"{source}: dsr.scaling.growth changes the accumulation in training, which ZeRO fixes at the start: "
            "set zero_optimization.stage to 0"
        )


def _check_precision(part: dict[str, Any], source: str) -> None:
    """Refuse what dsr's checkpoints and exact sums do not cover."""
    half = "trains in float32 or bfloat16: use bf16.enabled, or torch_autocast with dtype bfloat16"
    if part.get("fp16", {}).get("enabled"):
        raise UserError(f"{source}: fp16.enabled: dsr {half}")
    autocast = part.get("torch_autocast", {})
    if autocast.get("enabled") and autocast.get("dtype") not in ("bfloat16", "bf16", "torch.bfloat16"):
        raise UserError(f"{source}: torch_autocast.dtype {json.dumps(autocast.get('dtype'))}: dsr {half}")
    for key in part.get("zero_optimization", {}):
        if "offload" in key and part["zero_optimization"][key]:
            raise UserError(f"{source}: zero_optimization.{key}: dsr keeps weights on their devices; leave it out")
    bf16 = part.get("bf16", {}).get("enabled") or part.get("bfloat16", {}).get("enabled")
    if bf16 and part["optimizer"]["params"].get("torch_adam") is False:
        raise UserError(f"{source}: optimizer.params.torch_adam must be true with bf16")
    sums = part.get("data_types", {}).get("grad_accum_dtype")
    if bf16 and sums not in (None, "bf16", "bfloat16") and not part.get("zero_optimization", {}).get("stage", 0):
        raise UserError(
            f"{source}: data_types.grad_accum_dtype: at ZeRO stage 0 DeepSpeed takes bf16 only; leave it out: dsr adds "
            "bf16 gradients in float32"
        )


def _check_places(part: dict[str, Any], source: str, prefix: str = "") -> None:
    """Refuse what would have DeepSpeed write or read outside the run's folder, or import a module by its name."""
    for key, value in part.items():
        name = f"{prefix}{key}"
        if name in DEEPSPEED_WRITERS and isinstance(value, dict) and value.get("enabled"):
            raise UserError(
                f"{source}: {name} writes outside the run's folder; leave it out: {DEEPSPEED_WRITERS[name]}"
            )
        if re.search(r"(path|file|dir|folder)s?$", key) and isinstance(value, str):
            raise UserError(
                f"{source}: {name} names a place outside the run's folder (given: {value[:60]}); leave it out"
            )
        if key == "lower_precision_safe_modules" and not all(str(each).startswith("torch.nn.") for each in value or []):
            raise UserError(f"{source}: {name} may name classes of torch.nn only, such as torch.nn.Conv2d")
        if isinstance(value, dict):
            _check_places(value, source, f"{name}.")


def _check_typed(part: dict[str, Any], block: str, known: dict[str, frozenset[str]], source: str) -> None:
    value = part.get(block)
    if not isinstance(value, dict) or not isinstance(value.get("params", {}), dict):
        raise UserError(f'{source}: {block} must be {{"type": ..., "params": {{...}}}}')
    for key in value:
        if key not in ("type", "params"):
            raise UserError(f"{source}: unknown key {block}.{key}{_nearest(key, ['type', 'params'])}")
    if str(value.get("type")) not in known:
        raise UserError(f"{source}: {block}.type {json.dumps(value.get('type'))} is not one of {', '.join(known)}")
    value.setdefault("params", {})
    names = known[value["type"]]
    for key, given in value["params"].items():
        if key not in names:
            raise UserError(f"{source}: unknown key {block}.params.{key}{_nearest(key, names)}")
        if key.endswith("_steps") and not (isinstance(given, int) and given > 0):
            raise UserError(
                f"{source}: {block}.params.{key} must be a positive whole number (given: {json.dumps(given)})"
            )
        if key == "betas" and not (isinstance(given, list) and len(given) == 2 and all(map(_is_number, given))):
            raise UserError(f"{source}: {block}.params.betas must be two numbers (given: {json.dumps(given)})")
        if key not in ("betas", "warmup_type") and not isinstance(given, bool) and not _is_number(given):
            raise UserError(f"{source}: {block}.params.{key} must be a number (given: {json.dumps(given)})")
    if "total_num_steps" in names and "total_num_steps" not in value["params"]:
        raise UserError(f"{source}: {block}.params.total_num_steps is missing: the updates of the sequential run")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
