"""The rates that a run plays, update by update: DeepSpeed's schedulers, as arithmetic (needs neither it nor torch)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dsr.scaling.plan import Plan

DECAY_PEAK = 0.001  # what WarmupDecayLR climbs to where no warmup_max_lr is given, whatever the optimizer's rate


def rate_at(scheduler: dict[str, Any] | None, rate: float, update: int, *, begun: bool) -> float:
    """The rate of an update, counted from 0, where `rate` is the optimizer's.

    A schedule that `engine.begin_schedule` has begun plays its step 0 in update 0. Any other starts as DeepSpeed
    has it, one update later: that plays 0 with WarmupCosineLR, and with the others their minimum.
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
    """The highest rate of so many updates: it rises or falls to the warm-up's end, and from there to the run's."""
    params = scheduler["params"] if scheduler else {}
    turn = _warmup(params) - (0 if begun else params.get("last_batch_iteration", -1))
    near = {0, 1, turn - 1, turn, updates - 1}
    return max(rate_at(scheduler, rate, update, begun=begun) for update in near if 0 <= update < updates)


def is_begun(scheduler: dict[str, Any] | None, user: dict[str, Any] | None, rule: str) -> bool:
    """Whether a schedule begins with its first step: adascale reads it at its progress, a rule's own is begun."""
    return rule == "adascale" or scheduler != user


def notes(plan: Plan, user: dict[str, Any] | None) -> list[str]:
    """What people should know of a plan's schedule beside the `user`'s own scheduler: lengths and rates that differ."""
    scheduler, rate = plan.scheduler, plan.optimizer_rate
    if scheduler is None or plan.mode == "probe":
        return []
    updates = plan.sequential_updates if plan.rule == "adascale" else plan.updates
    last = rate_at(scheduler, rate, updates - 1, begun=is_begun(scheduler, user, plan.rule))
    warmup, total = _warmup(scheduler["params"]), scheduler["params"].get("total_num_steps", updates)
    found = []
    if warmup > updates:
        found.append(f"the warm-up takes {warmup} steps, the run has {updates} updates: it ends at {last:.3g}")
    elif total > updates:
        found.append(f"the schedule has {total} steps, the run {updates} updates: it stops at a rate of {last:.3g}")
    elif total < updates:
        found.append(f"the schedule has {total} steps, the run {updates} updates: the rest plays a rate of {last:.3g}")
    if warmup <= updates and not math.isclose(plan.learning_rate, rate, rel_tol=0.01):
        found.append(f"{scheduler['type']} plays up to {plan.learning_rate:.4g}, not the optimizer's {rate:.4g}")
    return found


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
    """WarmupCosineLR's share of the rate, so many steps after the warm-up."""
    low, steps = params.get("cos_min_ratio", 0.0001), max(1, params["total_num_steps"] - _warmup(params))
    return max(0.0, low + (1 - low) * (1 + math.cos(math.pi * min(1.0, step / steps))) / 2)
