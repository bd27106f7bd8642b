"""`--mode auto`: the effective batch and the number of GPUs, from what a short probe has measured.

The noise scale at the probe's end averages about its last 50 updates. It is small early in training and grows, often by
an order of magnitude or more (McCandlish et al. 2018, arXiv:1812.06162): a probe shows how far a batch may grow without
harm, and never that it must shrink. So the config's own batch, which its author has tried, is kept even where it is
larger than the probe's noise scale.
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

WORTH = 0.5  # more GPUs pay if they bring at least this much of their share
TIE = 0.05  # predictions are no more precise: of batches whose times differ by less the smallest is taken


@dataclass(frozen=True)
class Measured:
    """What a probe has measured: every number that the sizes depend on, as plan.json keeps them."""

    updates: int  # of the probe
    of: int  # of the config's own run
    noise_scale: float | None  # in samples; None: not measured, or noise hides the gradient
    noise_interval: list[float | None] | None  # 95 %: low and high, which is None where there is no bound
    ranks: int
    update_seconds: float  # the median, on `ranks` ranks
    parameters: int  # of the network
    wires: Wires
    wires_timed: bool  # between two ranks; otherwise assumed

    @property
    def supported(self) -> float | None:
        """The batch that the noise supports, in samples: the noise scale, or its lower bound where it is unbounded.

        At a batch of B_noise a target takes twice the fewest samples, and twice the fewest updates, that any batch
        takes: S = S_min (1 + B_noise / B), E = E_min (1 + B / B_noise). Beyond, samples are wasted.
        """
        if self.noise_scale is not None:
            return self.noise_scale
        return self.noise_interval[0] if self.noise_interval else None

    def slot_seconds(self, slots: int) -> float:
        """Seconds per slot: an update's time without the exchange (at most half of it), per slot that a rank plays."""
        exchange = exchange_seconds(slots, self.ranks, self.parameters, self.wires)
        return max(self.update_seconds - exchange, self.update_seconds / 2) * self.ranks / slots


@dataclass(frozen=True)
class Sizes:
    """The chosen slots and GPUs, and what was not worth it."""

    slots: int
    gpus: int
    rejected: tuple[int, float] | None  # the next larger number of GPUs that would fit, and its worth


def choose(experiment: Experiment, measured: Measured, samples: int, most: int) -> Sizes:
    """The slots of an update and the number of GPUs, at most `most`, from these numbers alone.

    - Batches: the config's own, doubled while it stays within `Measured.supported` and the training set.
    - A target takes S_min (1 + B_noise/B) updates, each of `update_seconds`; for every N that divides the
      slots their product is the predicted time T(N), by the batch that makes it shortest (the smallest within TIE).
      For more GPUs than there are devices, the same speed and the same wires are assumed.
    - Going from N to M > N GPUs helps if (T(N)/T(M) - 1) / (M/N - 1) >= WORTH: twice the GPUs at least 1.5 times as
      fast. That is the price of samples at B_noise too: where the exchange costs nothing, and every GPU plays one slot,
      doubling GPUs and batch up to B_noise is worth exactly a half.
    """
    written, micro = experiment.accumulation, experiment.micro_batch  # the config's own batch
    noise, slot = measured.supported, measured.slot_seconds(written)
    batches = [written]
    while 2 * batches[-1] * micro <= min(noise or 0, samples):
        batches.append(2 * batches[-1])

    def seconds(slots: int, gpus: int) -> float:
        """The time of as much training as one update of the config's own batch."""
        update = update_seconds(slots, gpus, slot, measured.parameters, measured.wires)
        return update / updates_worth(noise, written * micro, slots * micro)

    slots, gpus, time = written, 1, seconds(written, 1)  # on one GPU the smallest batch is the fastest
    rejected: tuple[int, float] | None = None
    for more in range(2, most + 1):
        times = {batch: seconds(batch, more) for batch in batches if batch % more == 0}
        if not times:
            continue
        batch = next(batch for batch in times if times[batch] <= min(times.values()) * (1 + TIE))
        worth = (time / times[batch] - 1) / (more / gpus - 1)
        if worth >= WORTH:
            slots, gpus, time, rejected = batch, more, times[batch], None
        else:
            rejected = rejected or (more, worth)
    return Sizes(slots, gpus, rejected)


def record(sizes: Sizes, measured: Measured) -> dict[str, Any]:
    """What plan.json keeps of the sizes and the measurements."""
    return {"slots": sizes.slots, "noise_scale": measured.supported, "measured": asdict(measured)}


def reasons(experiment: Experiment, plan: Plan, sizes: Sizes, measured: Measured, most: int) -> list[str]:
    """Three lines on the sizes: why this batch, why these GPUs, and how long the run will take."""
    written, wires = experiment.accumulation, measured.wires
    slot = measured.slot_seconds(written)
    update = update_seconds(plan.slots, plan.gpus, slot, measured.parameters, wires)
    exchange = exchange_seconds(plan.slots, plan.gpus, measured.parameters, wires)
    if sizes.rejected:
        more = f"{sizes.rejected[0]} would bring {max(sizes.rejected[1], 0):.0%} of their share, below {WORTH:.0%}"
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
        f"{measured.of * written * slot:.3g} s",
    ]


def _batch(experiment: Experiment, plan: Plan, measured: Measured) -> str:
    """Why this batch: half of a line."""
    written, noise = experiment.accumulation * experiment.micro_batch, measured.supported
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
    if plan.effective_batch > written:
        return f"{plan.effective_batch // written} x the config's {written}; {scale}"
    if noise < written:
        return f"the config's own, which never shrinks, since the noise scale grows in training; {scale}"
    if 2 * written <= min(noise, plan.samples):
        return f"the config's own, since twice as much would not pay here; {scale}"
    if 2 * written > plan.samples:
        return f"the config's own, since twice as much is more than the training set; {scale}"
    return f"the config's own, since twice as much is more than the noise supports; {scale}"
