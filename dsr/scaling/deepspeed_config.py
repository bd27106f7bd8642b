"""What the DeepSpeed engine reads (deepspeed.json): the user's part, adapted to the plan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dsr.scaling.rules import rule_of

if TYPE_CHECKING:
    from dsr.config import Experiment
    from dsr.scaling.plan import Plan


def deepspeed_config(experiment: Experiment, plan: Plan) -> dict[str, Any]:
    """The content of deepspeed.json. Under "dsr" it says what differs from the user's part, and why."""
    part = {key: value for key, value in experiment.deepspeed.items() if key != "scheduler"}
    part["optimizer"], changed = _optimizer(experiment, plan)
    if plan.scheduler is not None:
        part["scheduler"] = plan.scheduler
    if plan.scheduler != experiment.deepspeed.get("scheduler"):
        changed["scheduler"] = f"step counts and warm-up for {plan.effective_batch} samples an update"
    if experiment.zero_stage and "zero_allow_untested_optimizer" not in part:
        part["zero_allow_untested_optimizer"] = True
        changed["zero_allow_untested_optimizer"] = "every optimizer here works element by element, as sharding needs"
    if experiment.exact:
        part["gradient_clipping"] = 0.0
        if experiment.clipping:
            changed["gradient_clipping"] = f"clipped at {experiment.clipping:g} from the slot tree's one sum instead"
        if experiment.zero_stage:
            part["zero_optimization"] = {**part["zero_optimization"], "compute_grad_norm": False}
            changed["zero_optimization.compute_grad_norm"] = "the slot tree's one sum has the norm"
            if part.get("data_types", {}).get("grad_accum_dtype"):
                part["data_types"] = {k: v for k, v in part["data_types"].items() if k != "grad_accum_dtype"}
                changed["data_types.grad_accum_dtype"] = "the slot tree adds in float32"
    if "timers" not in part:
        part["timers"] = {"throughput": {"enabled": False}}
        changed["timers"] = "DeepSpeed's throughput timer costs time in every update; dsr logs samples/s"
    part["train_micro_batch_size_per_gpu"] = plan.micro_batch
    part["gradient_accumulation_steps"] = plan.slots_per_device
    part["train_batch_size"] = plan.effective_batch
    if plan.slots_per_device != experiment.accumulation:
        changed["gradient_accumulation_steps"] = f"{plan.slots} slots over {plan.devices} devices"
    part["dsr"] = {"changed": changed}
    return part


def _optimizer(experiment: Experiment, plan: Plan) -> tuple[dict[str, Any], dict[str, str]]:
    """The optimizer block after the rule, and what differs from the user's, with the reason."""
    block, own = experiment.deepspeed["optimizer"], experiment.dsr.optimizer
    changed, size = {}, f"{plan.effective_batch} samples an update"
    params = {**block["params"], "lr": plan.optimizer_rate, **plan.optimizer}
    if plan.optimizer_rate != block["params"]["lr"]:
        changed["optimizer.params.lr"] = f"{plan.rule} rule from {block['params']['lr']:g} for {size}"
    for key in plan.optimizer:
        changed[f"optimizer.params.{key}"] = f"{plan.rule} rule for {size}"
    if rule_of(experiment, plan.slots, plan.auto).measures_gain:
        changed["optimizer.params.lr"] = f"{plan.rule} rule: times its gain, the scheduler read at its progress"
    if own:
        changed["optimizer.type"] = f"{own.type} of dsr, with these parameters, is passed to DeepSpeed instead"
    elif block["type"] in ("Adam", "AdamW") and "torch_adam" not in params:
        params["torch_adam"] = True
        changed["optimizer.params.torch_adam"] = "DeepSpeed's own Adam compiles at run time"
    moving = experiment.exact and experiment.zero_stage  # a fused step rounds by place, and ranks move ZeRO's shards
    if not own and not moving and (block["type"] == "SGD" or params.get("torch_adam")) and "fused" not in params:
        params["fused"] = True
        changed["optimizer.params.fused"] = "torch's fused step: one pass over the weights"
    return {**block, "params": params}, changed
