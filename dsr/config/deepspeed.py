"""The DeepSpeed part of an experiment: the keys that DeepSpeed reads, as data, and their checks."""

import json
import math
import re
from typing import Any

from dsr.errors import UserError
from dsr.settings import nearest


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# What DeepSpeed 0.19 reads: it accepts a misspelt key in silence, so we hold the list (a test compares it).
KEYS = _words("""
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
REMOVED = _words("""
    amp compression_training curriculum_learning eigenvalue elasticity nebula progressive_layer_drop quantize_training
    sparse_attention
""")
_BF16 = _words("""
    enabled immediate_grad_update check_grad_overflow bf16_master_weights_and_grads bf16_optimizer_states
""")
# Blocks in which DeepSpeed refuses an unknown key too, but only after every rank has started, or not at all.
BLOCKS = {
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
WRITERS = {
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


def check(part: dict[str, Any], source: str) -> None:
    """Check the DeepSpeed part: known keys, consistent batch numbers, an optimizer that needs no compilation."""
    for key in part:
        if key in REMOVED:
            raise UserError(f"{source}: {key} was removed from DeepSpeed 0.19; leave it out")
        if key not in KEYS:
            raise UserError(f"{source}: unknown key {key}{nearest(key, [*KEYS, 'dsr', 'extends'])}")
    for block, names in BLOCKS.items():
        if not isinstance(part.get(block, {}), dict):
            raise UserError(f"{source}: {block} must be an object (given: {json.dumps(part[block])})")
        for key in part.get(block, {}):
            if key not in names:
                raise UserError(f"{source}: unknown key {block}.{key}{nearest(key, names)}")
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
        if name in WRITERS and isinstance(value, dict) and value.get("enabled"):
            raise UserError(f"{source}: {name} writes outside the run's folder; leave it out: {WRITERS[name]}")
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
            raise UserError(f"{source}: unknown key {block}.{key}{nearest(key, ['type', 'params'])}")
    if str(value.get("type")) not in known:
        raise UserError(f"{source}: {block}.type {json.dumps(value.get('type'))} is not one of {', '.join(known)}")
    value.setdefault("params", {})
    names = known[value["type"]]
    for key, given in value["params"].items():
        if key not in names:
            raise UserError(f"{source}: unknown key {block}.params.{key}{nearest(key, names)}")
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
