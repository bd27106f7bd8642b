"""The Plan: from (mode, GPUs, devices, samples) to everything that a run's size decides. Pure arithmetic."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dsr.errors import UserError

if TYPE_CHECKING:
    from dsr.config import Experiment

MODES = ("sequential", "strong", "weak")


@dataclass(frozen=True)
class Plan:
    """The derived numbers of one run. Nothing else in dsr computes a batch, an accumulation or a learning rate."""

    mode: str
    gpus: int  # N, as asked
    devices: int  # D, that really play
    rehearsal: bool  # fewer devices than GPUs: same arithmetic, more time
    micro_batch: int
    accumulation: int  # slots a GPU: S / N
    slots: int  # S
    effective_batch: int
    base_learning_rate: float  # the sequential run's
    learning_rate: float  # after the rule
    rule: str  # "none" where the batch does not grow
    warmup_updates: int  # weak scaling's gradual warm-up
    samples: int  # of the training split
    updates_per_epoch: int
    updates: int  # the run's total
    scheduler: dict[str, Any] | None  # DeepSpeed's, for this run

    @property
    def slots_per_device(self) -> int:
        return self.slots // self.devices


def make_plan(experiment: Experiment, *, mode: str, gpus: int, samples: int, available: int, devices: int = 0) -> Plan:
    """Derive the plan of a run.

    `samples` counts the training split, `available` the devices at hand, and `devices` (0: choose) those to use: by
    default the largest number that divides the slots and is at most min(gpus, available).
    Raises UserError, with the reason, for what cannot be.
    """
    scaling, s1, micro = experiment.dsr.scaling, experiment.accumulation, experiment.micro_batch
    if gpus < 1:
        raise UserError(f"--gpus {gpus}: must be at least 1")
    if devices < 0:
        raise UserError(f"--devices {devices}: must be at least 1")
    if mode == "sequential" and gpus > 1:
        raise UserError(f"--mode sequential is one GPU; for {gpus} GPUs choose strong or weak")
    if mode == "strong":
        _check_strong(gpus, s1, micro)
    grown = gpus if mode == "weak" else 1
    slots = s1 * grown
    batch = slots * micro
    if batch > samples:
        raise UserError(_too_large(mode, gpus, batch, samples, s1 * micro))
    if devices:
        if slots % devices:
            raise UserError(f"--devices {devices} does not divide the {slots} slots; {_divisors(slots)} do")
        if devices > gpus:
            raise UserError(f"--devices {devices} is more than --gpus {gpus}")
    else:
        devices = max(d for d in range(1, min(gpus, max(available, 1)) + 1) if slots % d == 0)

    budget = experiment.dsr.budget
    per_epoch = samples // batch
    updates = budget.updates or (budget.epochs or 0) * per_epoch
    factor = {"none": 1.0, "linear": float(grown), "sqrt": math.sqrt(grown)}[scaling.rule]
    warmup = min(round(scaling.warmup_epochs * per_epoch), updates) if grown > 1 and scaling.rule != "none" else 0
    rate = float(experiment.deepspeed["optimizer"]["params"]["lr"])
    shrink = grown if budget.epochs else 1
    return Plan(
        mode=mode,
        gpus=gpus,
        devices=devices,
        rehearsal=devices < gpus,
        micro_batch=micro,
        accumulation=slots // gpus,
        slots=slots,
        effective_batch=batch,
        base_learning_rate=rate,
        learning_rate=rate * factor,
        rule=scaling.rule if grown > 1 else "none",
        warmup_updates=warmup,
        samples=samples,
        updates_per_epoch=per_epoch,
        updates=updates,
        scheduler=_scheduler(experiment.deepspeed.get("scheduler"), rate, factor, shrink, warmup),
    )


def deepspeed_config(experiment: Experiment, plan: Plan) -> dict[str, Any]:
    """What the DeepSpeed engine gets: the user's part, for this plan's devices; under "dsr" it says what differs."""
    part = {key: value for key, value in experiment.deepspeed.items() if key != "scheduler"}
    optimizer = part["optimizer"]
    changed = {}
    params = {**optimizer["params"], "lr": plan.learning_rate}
    if plan.learning_rate != plan.base_learning_rate:
        changed["optimizer.params.lr"] = f"{plan.rule} rule from {plan.base_learning_rate:g} for {plan.gpus} GPUs"
    if optimizer["type"] in ("Adam", "AdamW") and "torch_adam" not in params:
        params["torch_adam"] = True
        changed["optimizer.params.torch_adam"] = "DeepSpeed's own Adam compiles at run time"
    if (optimizer["type"] == "SGD" or params.get("torch_adam")) and "fused" not in params:
        params["fused"] = True
        changed["optimizer.params.fused"] = "torch's fused step: one pass over the weights"
    part["optimizer"] = {**optimizer, "params": params}
    if plan.scheduler is not None:
        part["scheduler"] = plan.scheduler
    if plan.scheduler != experiment.deepspeed.get("scheduler"):
        changed["scheduler"] = f"step counts and warm-up for {plan.gpus} GPUs in weak scaling"
    if experiment.zero_stage and "zero_allow_untested_optimizer" not in part:
        part["zero_allow_untested_optimizer"] = True
        changed["zero_allow_untested_optimizer"] = "every optimizer here works element by element, as sharding needs"
    if experiment.exact:
        part["gradient_clipping"] = 0.0
        if experiment.clipping:
            changed["gradient_clipping"] = f"clipped at {experiment.clipping:g} from the slot tree's one sum instead"
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


def plan_cells(experiment: Experiment, gpus: list[int], samples: int) -> list[tuple[str, int, Plan | str]]:
    """Every mode at every GPU count, with enough devices: (mode, gpus, plan, or the reason why it cannot be)."""
    cells: list[tuple[str, int, Plan | str]] = []
    for mode in MODES:
        for count in gpus if mode != "sequential" else [1]:
            try:
                plan = make_plan(experiment, mode=mode, gpus=count, samples=samples, available=count)
                cells.append((mode, count, plan))
            except UserError as error:
                cells.append((mode, count, str(error)))
    return cells


def _check_strong(gpus: int, slots: int, micro: int) -> None:
    fits = [n for n in range(1, slots + 1) if slots % n == 0]
    if gpus > slots:
        raise UserError(
            f"strong scaling shares {slots} slots (micro-batches of {micro}), so at most {slots} GPUs fit, not {gpus}; "
            "a smaller micro-batch with more accumulation gives more slots"
        )
    if slots % gpus:
        below = max(n for n in fits if n <= gpus)
        above = min(n for n in fits if n >= gpus)
        raise UserError(f"{gpus} GPUs do not divide the {slots} slots; the nearest that do are {below} and {above}")


def _too_large(mode: str, gpus: int, batch: int, samples: int, sequential: int) -> str:
    text = f"an effective batch of {batch} samples is larger than the training set of {samples}"
    if mode == "weak":
        most = samples // sequential
        return f"{text}; weak scaling fits at most {most} GPUs here" if most else text
    return f"{text}; lower gradient_accumulation_steps or train_micro_batch_size_per_gpu"


def _divisors(number: int) -> str:
    return ", ".join(str(d) for d in range(1, number + 1) if number % d == 0)


def _scheduler(
    user: dict[str, Any] | None, rate: float, factor: float, shrink: int, warmup: int
) -> dict[str, Any] | None:
    """DeepSpeed's scheduler for a run whose rate grows by `factor` and whose steps shrink by `shrink`.

    The warm-up is gradual (Goyal et al. 2017, arXiv:1706.02677): linear from the sequential rate to the rule's. Only
    WarmupDecayLR, which has one minimum for both its ends, starts from where it ends, at the user's minimum.
    """
    if user is None:
        if not warmup or factor == 1:
            return None
        params: dict[str, Any] = {"warmup_min_lr": rate, "warmup_max_lr": rate * factor}
        return {"type": "WarmupLR", "params": {**params, "warmup_num_steps": warmup, "warmup_type": "linear"}}
    params = dict(user["params"])
    for name in ("total_num_steps", "warmup_num_steps"):
        if name in params:
            params[name] = max(1, round(params[name] / shrink))
    if user["type"] == "WarmupCosineLR":
        if warmup:
            params.update(warmup_min_ratio=1 / factor, warmup_num_steps=warmup, warmup_type="linear")
    elif factor != 1:
        decays = user["type"] == "WarmupDecayLR"
        peak = params.get("warmup_max_lr", 0.001 if decays else rate)  # DeepSpeed's defaults
        params.update(warmup_max_lr=peak * factor, warmup_min_lr=params.get("warmup_min_lr", 0.0) * factor)
        if warmup:
            params.update(warmup_num_steps=warmup, warmup_type="linear")
            if not decays:
                params["warmup_min_lr"] = peak
    return {**user, "params": params}
