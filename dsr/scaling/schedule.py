"""The learning rate of every update: DeepSpeed's schedulers as arithmetic, and how a rule changes them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from dsr.scaling.rules import rule_of

if TYPE_CHECKING:
    from dsr.config import Experiment
    from dsr.scaling.plan import Plan
    from dsr.scaling.rules import Rule

DECAY_PEAK = 0.001  # WarmupDecayLR's default for warmup_max_lr, whatever the optimizer's rate


def scaled(
    user: dict[str, Any] | None, rate: float, factor: float, shrink: float, warmup: int
) -> dict[str, Any] | None:
    """DeepSpeed's scheduler for a run whose rate grows by `factor` and whose step counts shrink by `shrink`.

    `user` is the scheduler as written, `rate` the optimizer's rate as written, `warmup` the updates of the gradual
    warm-up (Goyal et al. 2017, arXiv:1706.02677), which is linear from the sequential rate to the rule's. Only
    WarmupDecayLR, which has one minimum for both ends, starts from the user's minimum, where it also ends.
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
        peak = params.get("warmup_max_lr", DECAY_PEAK if decays else rate)
        params.update(warmup_max_lr=peak * factor, warmup_min_lr=params.get("warmup_min_lr", 0.0) * factor)
        if warmup:
            params.update(warmup_num_steps=warmup, warmup_type="linear")
            if not decays:
                params["warmup_min_lr"] = peak
    return {**user, "params": params}


def rate_at(scheduler: dict[str, Any] | None, rate: float, update: int, *, begun: bool) -> float:
    """The rate of an update, counted from 0, where `rate` is the optimizer's.

    A schedule that `is_begun` plays its step 0 in update 0. Any other one starts as DeepSpeed starts it, one update
    later: until then WarmupCosineLR plays a rate of 0, and the others their minimum.
    """
    if scheduler is None:
        return rate
    params = scheduler["params"]
    before = params.get("last_batch_iteration", -1)
    if begun:
        return _rate(scheduler["type"], params, rate, update)
    if update == 0 and before == -1:
        return 0.0 if scheduler["type"] == "WarmupCosineLR" else params.get("warmup_min_lr", 0.0)
    return rate if update == 0 else _rate(scheduler["type"], params, rate, before + update)


def peak(scheduler: dict[str, Any] | None, rate: float, updates: int, *, begun: bool) -> float:
    """The highest rate of a run of `updates` updates, whose rate is monotonic up to the warm-up's end and after it."""
    params = scheduler["params"] if scheduler else {}
    turn = _warmup(params) - (0 if begun else params.get("last_batch_iteration", -1))
    candidates = {0, 1, turn - 1, turn, updates - 1}
    return max(rate_at(scheduler, rate, update, begun=begun) for update in candidates if 0 <= update < updates)


def is_begun(scheduler: dict[str, Any] | None, user: dict[str, Any] | None, rule: Rule) -> bool:
    """Whether update 0 plays the schedule's step 0, in place of what DeepSpeed plays before it.

    So it is with a scheduler that differs from the user's, and where the schedule is read at a measured progress.
    """
    return rule.measures_gain or scheduler != user


def notes(experiment: Experiment, plan: Plan) -> list[str]:
    """Where a plan's schedule does not fit its run in length or rate."""
    scheduler, rate, user = plan.scheduler, plan.optimizer_rate, experiment.deepspeed.get("scheduler")
    if scheduler is None or plan.mode == "probe":
        return []
    rule = rule_of(experiment, plan.slots, plan.auto)
    updates = plan.sequential_updates if rule.measures_gain else plan.updates
    last = rate_at(scheduler, rate, updates - 1, begun=is_begun(scheduler, user, rule))
    warmup, total = _warmup(scheduler["params"]), scheduler["params"].get("total_num_steps", updates)
    lines = []
    if warmup > updates:
        lines.append(f"the warm-up takes {warmup} steps, the run has {updates} updates: it ends at {last:.3g}")
    elif total > updates:
        lines.append(f"the schedule has {total} steps, the run {updates} updates: it stops at a rate of {last:.3g}")
    elif total < updates:
        lines.append(f"the schedule has {total} steps, the run {updates} updates: the rest plays a rate of {last:.3g}")
    if warmup <= updates and not math.isclose(plan.learning_rate, rate, rel_tol=0.01):
        lines.append(f"{scheduler['type']} plays up to {plan.learning_rate:.4g}, not the optimizer's {rate:.4g}")
    return lines


def _warmup(params: dict[str, Any]) -> int:
    return max(2, params.get("warmup_num_steps", 1000))


def _rate(kind: str, params: dict[str, Any], rate: float, step: int) -> float:
    """The rate at a step of the schedule, counted from 0."""
    warmup = _warmup(params)
    linear = params.get("warmup_type") == "linear"
    climbed = step / warmup if linear else math.log(step + 1) / math.log(warmup)
    if kind == "WarmupCosineLR":
        low = params.get("warmup_min_ratio", 0.0)
        return rate * (low + (1 - low) * climbed if step < warmup else _cosine(params, step - warmup + 1))
    low = params.get("warmup_min_lr", 0.0)
    high = params.get("warmup_max_lr", DECAY_PEAK if kind == "WarmupDecayLR" else rate)
    if step >= warmup:
        left = (params["total_num_steps"] - step) / max(1, params["total_num_steps"] - warmup) if "Decay" in kind else 1
        climbed = max(0.0, left)
    return low + (high - low) * climbed


def _cosine(params: dict[str, Any], step: int) -> float:
    """WarmupCosineLR's share of the rate at a step after the warm-up."""
    low, steps = params.get("cos_min_ratio", 0.0001), max(1, params["total_num_steps"] - _warmup(params))
    return max(0.0, low + (1 - low) * (1 + math.cos(math.pi * min(1.0, step / steps))) / 2)
