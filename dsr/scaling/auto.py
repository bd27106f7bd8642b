"""`--mode auto`: which effective batch and how many GPUs, from what a short probe measured. Starts nothing.

The probe is the run's own beginning: the config's own batch, the first updates (`probe_updates` of the plan says how
many), strong scaling on the devices at hand. The noise scale at its end averages about its last 50 updates. It is
small early in training and grows, often by an order of magnitude or more (McCandlish et al. 2018, arXiv:1812.06162):
what a probe sees tells how far a batch may grow without harm, and never that it must shrink. So the config's own
batch, which its author has tried, stays as it is even where it lies above the noise scale of the probe.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from dsr.scaling.noise import unmeasured
from dsr.scaling.rules.noise_scale import updates_worth
from dsr.scaling.speed import Wires, exchange_seconds, update_seconds

if TYPE_CHECKING:
    from dsr.config import Experiment
    from dsr.scaling.plan import Plan

WORTH = 0.5  # more GPUs still help if they bring at least so much of their share
CLOSE = 0.05  # predictions are no better: of batches whose times lie so close the smallest is taken


@dataclass(frozen=True)
class Measured:
    """What a probe told: every number that the choice depends on, as plan.json keeps it."""

    updates: int  # that the probe made
    of: int  # that the config's own run makes
    noise_scale: float | None  # in samples; None: not measured, or noise hides the gradient
    noise_interval: list[float | None] | None  # 95 %: low, and high where there is a bound
    ranks: int
    update_seconds: float  # median, on so many ranks
    parameters: int  # of the network
    wires: Wires
    wires_timed: bool  # between two ranks; else assumed

    @property
    def supported(self) -> float | None:
        """The batch that the noise supports, in samples: the noise scale, or where noise hides the gradient its bound.

        At a batch of B_noise a target takes twice the fewest samples, and twice the fewest updates, that any batch
        takes: S = S_min (1 + B_noise / B), E = E_min (1 + B / B_noise). Beyond, samples are wasted.
        """
        if self.noise_scale is not None:
            return self.noise_scale
        return self.noise_interval[0] if self.noise_interval else None

    def slot_seconds(self, slots: int) -> float:
        """One slot's seconds: an update's, less the exchange (no more than half), by the slots that a rank plays."""
        exchange = exchange_seconds(slots, self.ranks, self.parameters, self.wires)
        return max(self.update_seconds - exchange, self.update_seconds / 2) * self.ranks / slots


@dataclass(frozen=True)
class Choice:
    """Slots and GPUs, and what was not worth it."""

    slots: int
    gpus: int
    rejected: tuple[int, float] | None  # the next more GPUs that would fit, and their worth


def choose(experiment: Experiment, measured: Measured, samples: int, most: int) -> Choice:
    """The slots of an update and the GPUs, at most `most`, from these numbers alone.

    - Batches: the config's own, doubled while it stays within `Measured.supported` and the training set.
    - A target takes S_min (1 + B_noise/B) updates, each of `update_seconds`; for every N that divides the
      slots their product is the predicted time T(N), by the batch that makes it shortest (the smallest within CLOSE).
      For more GPUs than there are devices, the same speed and the same wires are assumed.
    - Going from N to M > N GPUs helps if (T(N)/T(M) - 1) / (M/N - 1) >= WORTH: twice the GPUs at least 1.5 times as
      fast. That is the price of samples at B_noise too: where the exchange costs nothing, and every GPU plays one slot,
      doubling GPUs and batch up to B_noise is worth exactly a half.
    """
    own, micro = experiment.accumulation, experiment.micro_batch
    noise, slot = measured.supported, measured.slot_seconds(own)
    batches = [own]
    while 2 * batches[-1] * micro <= min(noise or 0, samples):
        batches.append(2 * batches[-1])

    def seconds(slots: int, gpus: int) -> float:
        """Of as much training as one update of the config's own batch."""
        update = update_seconds(slots, gpus, slot, measured.parameters, measured.wires)
        return update / updates_worth(noise, own * micro, slots * micro)

    slots, gpus, time = own, 1, seconds(own, 1)  # on one GPU the smallest batch takes the shortest time
    rejected: tuple[int, float] | None = None
    for more in range(2, most + 1):
        times = {batch: seconds(batch, more) for batch in batches if batch % more == 0}
        if not times:
            continue
        batch = next(batch for batch in times if times[batch] <= min(times.values()) * (1 + CLOSE))
        worth = (time / times[batch] - 1) / (more / gpus - 1)
        if worth >= WORTH:
            slots, gpus, time, rejected = batch, more, times[batch], None
        else:
            rejected = rejected or (more, worth)
    return Choice(slots, gpus, rejected)


def record(choice: Choice, measured: Measured) -> dict[str, Any]:
    """What plan.json keeps of a choice."""
    return {"slots": choice.slots, "noise_scale": measured.supported, "measured": asdict(measured)}


def explain(experiment: Experiment, plan: Plan, choice: Choice, measured: Measured, most: int) -> list[str]:
    """The choice in three lines: the batch, the GPUs, and what the run will take."""
    own, wires = experiment.accumulation, measured.wires
    slot = measured.slot_seconds(own)
    update = update_seconds(plan.slots, plan.gpus, slot, measured.parameters, wires)
    exchange = exchange_seconds(plan.slots, plan.gpus, measured.parameters, wires)
    if choice.rejected:
        more = f"{choice.rejected[0]} would bring {max(choice.rejected[1], 0):.0%} of their share, below {WORTH:.0%}"
    elif plan.gpus < most:
        more = f"no more of the {most} divide the slots"
    else:
        more = f"all that may be used, each worth {WORTH:.0%} of its share or more" if most > 1 else "all there is"
    how = "timed between two ranks" if measured.wires_timed else "assumed: one device alone cannot tell"
    rate = "as written" if plan.rule == "none" else f"{plan.rule} rule from {plan.base_learning_rate:g}"
    return [
        f"auto: a batch of {plan.effective_batch}, {plan.slots} slots of {plan.micro_batch}: "
        f"{_batch(experiment, plan, measured)}",
        f"auto: {plan.gpus} of {most} GPUs: {more}. A slot takes {slot * 1e3:.3g} ms, the exchange "
        f"{exchange * 1e3:.3g} ms ({wires.latency_us:.3g} us, {wires.gbit_per_s:.3g} Gbit/s, {how})",
        f"auto: {plan.updates} updates, learning rate {plan.learning_rate:.4g} ({rate}): predicted "
        f"{plan.updates * update:.3g} s on {plan.gpus} such GPUs; the config alone, on one: {measured.of} updates, "
        f"{measured.of * own * slot:.3g} s",
    ]


def _batch(experiment: Experiment, plan: Plan, measured: Measured) -> str:
    """Why this batch: one half of a line."""
    own, noise = experiment.accumulation * experiment.micro_batch, measured.supported
    if noise is None:
        reason = unmeasured(experiment.exact, experiment.accumulation) or "the probe was too short"
        return f"the config's own, since there is no noise scale ({reason})"
    interval = ""
    if measured.noise_interval:
        low, high = measured.noise_interval
        interval = f" (95 %: {low:.3g} to {high:.3g})" if high is not None else f" (95 %: above {low:.3g})"
    hidden = measured.noise_scale is None
    scale = f"noise hides the gradient, noise scale{interval}" if hidden else f"noise scale {noise:.3g}{interval}"
    scale += f" at update {measured.updates}, after {measured.updates / measured.of:.0%} of the run"
    if plan.effective_batch > own:
        return f"{plan.effective_batch // own} x the config's {own}; {scale}"
    if noise < own:
        return f"the config's own, which never shrinks, since the noise scale grows in training; {scale}"
    if 2 * own <= min(noise, plan.samples):
        return f"the config's own, since twice as much would not pay here; {scale}"
    if 2 * own > plan.samples:
        return f"the config's own, since twice as much is more than the training set; {scale}"
    return f"the config's own, since twice as much is more than the noise supports; {scale}"
