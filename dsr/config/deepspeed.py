"""The DeepSpeed part of an experiment: the keys that DeepSpeed reads and what their values must be, and its checks.

DeepSpeed accepts a misspelt key in silence, and refuses many mistyped values only after every rank has started. What
version 0.19 reads is therefore data here, and tests compare it with the DeepSpeed that is installed.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from dsr.errors import UserError
from dsr.settings import nearest


@dataclass(frozen=True)
class Kind:
    """What a value must be: in words, as a check, and in a JSON schema."""

    text: str
    holds: Callable[[Any], bool]
    schema: dict[str, Any]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31


def _is_size(value: Any) -> bool:
    return _is_number(value) and value >= 0 and value == int(value)  # DeepSpeed takes 5e8 too


def _one_of(*values: str) -> Kind:
    return Kind(f"one of {', '.join(values)}", lambda value: value in values, {"enum": [*values]})


def _or_null(kind: Kind) -> Kind:
    return Kind(
        f"{kind.text}, or null",
        lambda value: value is None or kind.holds(value),
        {"anyOf": [kind.schema, {"type": "null"}]},
    )


def _keys(kind: Kind, names: str) -> dict[str, Kind]:
    return dict.fromkeys(names.split(), kind)


ANYTHING = Kind("anything", lambda value: True, {})
FLAG = Kind("true or false", lambda value: isinstance(value, bool), {"type": "boolean"})
COUNT = Kind("a positive whole number", _is_count, {"type": "integer", "minimum": 1, "exclusiveMaximum": 2**31})
SIZE = Kind("a whole number of 0 or more", _is_size, {"type": "integer", "minimum": 0})
STEP = Kind(
    "a whole number of -1 or more", lambda value: value == -1 or _is_size(value), {"type": "integer", "minimum": -1}
)
NUMBER = Kind("a finite number", _is_number, {"type": "number"})
RATE = Kind(
    "a finite number of 0 or more", lambda value: _is_number(value) and value >= 0, {"type": "number", "minimum": 0}
)
TEXT = Kind("text", lambda value: isinstance(value, str), {"type": "string"})
BLOCK = Kind("an object", lambda value: isinstance(value, dict), {"type": "object"})
TYPED = Kind(
    '{"type": ..., "params": {...}}',
    lambda value: isinstance(value, dict) and isinstance(value.get("params", {}), dict),
    {"type": "object", "properties": {"type": {"type": "string"}, "params": {"type": "object"}}},
)
DTYPE = _or_null(_one_of("fp32", "fp16", "bf16"))
AUTOCAST = _one_of("bfloat16", "bf16", "torch.bfloat16", "float16", "fp16", "torch.float16")
MODULES = Kind(  # DeepSpeed imports them by name
    "a list of classes of torch.nn, such as torch.nn.Conv2d",
    lambda value: isinstance(value, list) and all(str(name).startswith("torch.nn.") for name in value),
    {"type": "array", "items": {"type": "string", "pattern": r"^torch\.nn\."}},
)
BETAS = Kind(
    "two numbers in [0, 1)",
    lambda value: isinstance(value, list) and len(value) == 2 and all(_is_number(v) and 0 <= v < 1 for v in value),
    {"type": "array", "items": {"type": "number", "minimum": 0, "exclusiveMaximum": 1}, "minItems": 2, "maxItems": 2},
)

KEYS = {
    **_keys(COUNT, "train_batch_size train_micro_batch_size_per_gpu gradient_accumulation_steps"),
    **_keys(
        FLAG,
        """
        dataloader_drop_last disable_allgather disable_python_gc dump_state managed_gradient_accumulation
        memory_breakdown prescale_gradients use_data_before_expert_parallelism wall_clock_breakdown
        zero_allow_untested_optimizer zero_force_ds_cpu_optimizer
        """,
    ),
    **_keys(
        BLOCK,
        """
        activation_checkpointing aio autotuning bf16 bfloat16 checkpoint comet comms_logger compile csv_monitor
        data_efficiency data_types datastates_ckpt expert_parallel flops_profiler fp16 hybrid_engine pipeline
        tensor_parallel tensorboard timers torch_autocast wandb weight_quantization zero_optimization
        """,
    ),
    **_keys(TYPED, "optimizer scheduler"),
    **_keys(DTYPE, "communication_data_type seq_parallel_communication_data_type"),
    **_keys(_one_of("mean", "sum"), "gradient_allreduce_op"),
    **_keys(Kind("0 (none) or a positive number", RATE.holds, RATE.schema), "gradient_clipping"),
    **_keys(NUMBER, "gradient_predivide_factor"),
    **_keys(_or_null(TEXT), "log_level"),
    **_keys(_or_null(COUNT), "steps_per_print"),
    **_keys(SIZE, "vocabulary_size"),
}
# Blocks that 0.19 removed: DeepSpeed raises on each.
REMOVED = _keys(
    ANYTHING,
    """
    amp compression_training curriculum_learning eigenvalue elasticity graph_harvesting nebula progressive_layer_drop
    quantize_training sparse_attention sparse_gradients
    """,
)
_BF16 = _keys(
    FLAG, "enabled immediate_grad_update check_grad_overflow bf16_master_weights_and_grads bf16_optimizer_states"
)
# Blocks in which DeepSpeed refuses an unknown key too, but only after every rank has started, or not at all.
BLOCKS: dict[str, dict[str, Kind]] = {
    "bf16": _BF16,
    "bfloat16": _BF16,  # its older name
    "fp16": {
        **_keys(FLAG, "enabled auto_cast consecutive_hysteresis fp16_master_weights_and_grads"),
        **_keys(RATE, "loss_scale"),
        **_keys(SIZE, "initial_scale_power loss_scale_window hysteresis min_loss_scale"),
    },
    "torch_autocast": {"enabled": FLAG, "dtype": AUTOCAST, "lower_precision_safe_modules": MODULES},
    "zero_optimization": {
        "stage": Kind("0, 1, 2 or 3", lambda value: _is_size(value) and value < 4, {"enum": [0, 1, 2, 3]}),
        **_keys(
            FLAG,
            """
            contiguous_gradients reduce_scatter use_multi_rank_bucket_allreduce allgather_partitions compute_grad_norm
            load_from_fp32_weights elastic_checkpoint stage3_gather_16bit_weights_on_model_save
            stage3_use_all_reduce_for_fetch_params stage3_allgather_sequential stage3_gather_fp16_weights_on_model_save
            ignore_unused_parameters legacy_stage1 round_robin_gradients parameter_alignment zero_quantized_weights
            zero_quantized_nontrainable_weights zero_quantized_gradients memory_efficient_linear
            pipeline_loading_checkpoint override_module_apply log_trace_cache_warnings enable_sanity_checks
            save_muon_momentum_buffer_in_memory
            """,
        ),
        **_keys(_or_null(FLAG), "overlap_comm cpu_offload_param cpu_offload_use_pin_memory cpu_offload"),
        **_keys(Kind(COUNT.text, lambda value: _is_size(value) and value > 0, COUNT.schema), "reduce_bucket_size"),
        **_keys(
            SIZE,
            """
            allgather_bucket_size sub_group_size stage3_prefetch_bucket_size stage3_param_persistence_threshold
            stage3_model_persistence_threshold stage3_max_live_parameters stage3_max_reuse_distance
            stage3_module_granularity_threshold zero_hpz_partition_size
            """,
        ),
        **_keys(_or_null(BLOCK), "offload_param offload_optimizer zenflow"),
        **_keys(BLOCK, "leaf_module"),
    },
}
# Blocks that make DeepSpeed write files of its own, and where dsr has what they would hold.
WRITERS = {
    "tensorboard": "dsr writes TensorBoard events into the run's folder",
    "csv_monitor": "metrics.jsonl in the run's folder holds the numbers",
    "wandb": "TensorBoard events and metrics.jsonl in the run's folder hold the numbers",
    "comet": "TensorBoard events and metrics.jsonl in the run's folder hold the numbers",
    "autotuning": "--set and `dsr plan` choose the numbers",
    "data_efficiency": "dsr reads the data itself",
}
_ADAM = {
    **_keys(RATE, "lr eps weight_decay"),
    "betas": BETAS,
    **_keys(FLAG, "amsgrad torch_adam adam_w_mode fused"),
}
OPTIMIZER_PARAMS: dict[str, dict[str, Kind]] = {
    "Adam": _ADAM,
    "AdamW": _ADAM,
    "SGD": {**_keys(RATE, "lr momentum weight_decay"), **_keys(NUMBER, "dampening"), **_keys(FLAG, "nesterov fused")},
    "Adagrad": _keys(RATE, "lr lr_decay weight_decay initial_accumulator_value eps"),
    "RMSprop": {**_keys(RATE, "lr alpha eps weight_decay momentum"), **_keys(FLAG, "centered")},
}
# dsr.optimizer: the stock types whose block it reads, and what of that block has no meaning for it.
OWN_OPTIMIZERS = {
    "LARS": (("SGD",), ("dampening", "nesterov")),
    "LAMB": (("Adam", "AdamW"), ("amsgrad",)),
}
_WARMUP = {**_keys(COUNT, "warmup_num_steps"), **_keys(TEXT, "warmup_type"), **_keys(STEP, "last_batch_iteration")}
_RATES = _keys(RATE, "warmup_min_lr warmup_max_lr")
_TOTAL = _keys(COUNT, "total_num_steps")
SCHEDULER_PARAMS: dict[str, dict[str, Kind]] = {
    "WarmupLR": {**_WARMUP, **_RATES},
    "WarmupDecayLR": {**_WARMUP, **_RATES, **_TOTAL},
    "WarmupCosineLR": {**_WARMUP, **_TOTAL, **_keys(RATE, "warmup_min_ratio cos_min_ratio")},
}
PARAMS = {"optimizer": OPTIMIZER_PARAMS, "scheduler": SCHEDULER_PARAMS}


def json_schema() -> dict[str, Any]:
    """The JSON schema of every key that DeepSpeed reads."""
    schema = {key: kind.schema for key, kind in sorted(KEYS.items())}
    for block, known in BLOCKS.items():
        properties = {key: kind.schema for key, kind in known.items()}
        schema[block] = {"type": "object", "properties": properties, "additionalProperties": False}
    return schema


def check(part: dict[str, Any], source: str) -> None:
    """Check the DeepSpeed part: known keys, values of their kind, consistent batch sizes, nothing that dsr cannot do.

    A missing `params` of optimizer and scheduler is added, empty. Raises UserError naming `source` and the key.
    """
    if removed := REMOVED.keys() & part.keys():
        raise UserError(f"{source}: {min(removed)} was removed from DeepSpeed 0.19; leave it out")
    _check_values(part, KEYS, source, others=("dsr", "extends"))
    if "optimizer" not in part:
        raise UserError(f"{source}: optimizer is missing; it must be {TYPED.text}")
    for block in PARAMS:
        if block in part:
            _check_params(part[block], block, source)
    for block, known in BLOCKS.items():
        _check_values(part.get(block, {}), known, source, f"{block}.")
    _check_places(part, source)
    _check_batch(part, source)
    if part.get("managed_gradient_accumulation", True) is not True:
        raise UserError(f"{source}: managed_gradient_accumulation must be true: dsr decides where an update ends")
    rate = part["optimizer"]["params"].get("lr")
    if not rate:
        raise UserError(f"{source}: optimizer.params.lr must be a positive number (given: {json.dumps(rate)})")
    _check_precision(part, source)


def _check_values(
    values: Mapping[str, Any], known: dict[str, Kind], source: str, prefix: str = "", others: Iterable[str] = ()
) -> None:
    for key, value in values.items():
        if key not in known:
            raise UserError(f"{source}: unknown key {prefix}{key}{nearest(key, [*known, *others])}")
        if not known[key].holds(value):
            given = json.dumps(value)[:60]
            raise UserError(f"{source}: {prefix}{key} must be {known[key].text} (given: {given})")


def _check_params(value: dict[str, Any], block: str, source: str) -> None:
    known = PARAMS[block]
    _check_values(value, {"type": ANYTHING, "params": BLOCK}, source, f"{block}.")
    if str(value.get("type")) not in known:
        raise UserError(f"{source}: {block}.type {json.dumps(value.get('type'))} is not one of {', '.join(known)}")
    params = value.setdefault("params", {})
    _check_values(params, known[value["type"]], source, f"{block}.params.")
    if "total_num_steps" in known[value["type"]] and "total_num_steps" not in params:
        raise UserError(f"{source}: {block}.params.total_num_steps is missing: the updates of the sequential run")


def _check_batch(part: dict[str, Any], source: str) -> None:
    names = ("train_micro_batch_size_per_gpu", "gradient_accumulation_steps")
    for name in names:
        if name not in part:
            raise UserError(f"{source}: {name} is missing; it is a positive whole number")
    micro, accumulation = (part[name] for name in names)
    if part.get("train_batch_size", micro * accumulation) != micro * accumulation:
        raise UserError(
            f"{source}: train_batch_size {part['train_batch_size']} is not {micro} x {accumulation} "
            f"({names[0]} x {names[1]}): an experiment is written for one GPU"
        )


def _check_precision(part: dict[str, Any], source: str) -> None:
    """Refuse what dsr's checkpoints and exact sums do not cover."""
    half = "trains in float32 or bfloat16: use bf16.enabled, or torch_autocast with dtype bfloat16"
    if part.get("fp16", {}).get("enabled"):
        raise UserError(f"{source}: fp16.enabled: dsr {half}")
    autocast = part.get("torch_autocast", {})
    if autocast.get("enabled") and autocast.get("dtype") not in ("bfloat16", "bf16", "torch.bfloat16"):
        raise UserError(f"{source}: torch_autocast.dtype {json.dumps(autocast.get('dtype'))}: dsr {half}")
    zero = part.get("zero_optimization", {})
    for key in zero:
        if "offload" in key and zero[key]:
            raise UserError(f"{source}: zero_optimization.{key}: dsr keeps weights on their devices; leave it out")
    bf16 = part.get("bf16", {}).get("enabled") or part.get("bfloat16", {}).get("enabled")
    if bf16 and part["optimizer"]["params"].get("torch_adam") is False:
        raise UserError(f"{source}: optimizer.params.torch_adam must be true with bf16")
    sums = part.get("data_types", {}).get("grad_accum_dtype")
    if bf16 and sums not in (None, "bf16", "bfloat16") and not zero.get("stage", 0):
        raise UserError(
            f"{source}: data_types.grad_accum_dtype: at ZeRO stage 0 DeepSpeed takes bf16 only; leave it out: dsr adds "
            "bf16 gradients in float32"
        )


def _check_places(part: dict[str, Any], source: str, prefix: str = "") -> None:
    """Refuse what would have DeepSpeed write or read outside the run's folder."""
    for key, value in part.items():
        name = f"{prefix}{key}"
        if name in WRITERS and isinstance(value, dict) and value.get("enabled"):
            raise UserError(f"{source}: {name} writes outside the run's folder; leave it out: {WRITERS[name]}")
        if re.search(r"(path|file|dir|folder)s?$", key) and isinstance(value, str):
            raise UserError(
                f"{source}: {name} names a place outside the run's folder (given: {value[:60]}); leave it out"
            )
        if isinstance(value, dict):
            _check_places(value, source, f"{name}.")
