"""The Plan: everything that the size of a run decides, from (mode, GPUs, devices, samples). Pure arithmetic."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from dsr.errors import UserError
from dsr.scaling import schedule
from dsr.scaling.rules import rule_of

if TYPE_CHECKING:
    from dsr.config import Experiment

FORMAT = 2  # of plan.json; format 1 had no number
MODES = ("sequential", "strong", "weak")  # and auto: strong scaling of a batch that a probe chooses (dsr.scaling.auto)
PROBE_SHARE, PROBE_LEAST, PROBE_MOST = 0.1, 25, 200  # of the updates; the noise scale averages about 50


@dataclass(frozen=True)
class Phase:
    """A stretch of updates with one effective batch. A run has one, unless its batch grows."""

    update: int  # the first one, counted from 0
    epoch: int  # that begins with it
    slots: int
    effective_batch: int
    updates_per_epoch: int


@dataclass(frozen=True)
class Plan:
    """The derived numbers of one run. Nothing else in dsr computes a batch, an accumulation or a learning rate."""

    mode: str
    gpus: int  # N, as requested
    devices: int  # D, those that really play
    rehearsal: bool  # fewer devices than GPUs: the same arithmetic in more time
    micro_batch: int
    accumulation: int  # slots per GPU: S / N
    slots: int  # S
    effective_batch: int
    base_learning_rate: float  # the sequential run's
    learning_rate: float  # the highest that is played, before the gain of a rule that measures one
    optimizer_rate: float  # the optimizer's, after the rule; a scheduler may play another
    rule: str  # "none" where the batch does not grow
    optimizer: dict[str, Any]  # the other optimizer parameters that the rule changes
    warmup_updates: int  # of weak scaling's gradual warm-up
    samples: int  # in the training split
    updates_per_epoch: int
    updates: int  # the run's total; under a rule that measures a gain, the most it may take
    sequential_updates: int  # of the sequential run with the same budget
    scheduler: dict[str, Any] | None  # DeepSpeed's, for this run
    phases: list[dict[str, int]]  # the fields of each Phase; slots, batch and updates per epoch above are the first's
    auto: dict[str, Any] | None = None  # in mode auto: the slots chosen, the noise scale, the measurements, and why
    format: int = FORMAT

    @property
    def slots_per_device(self) -> int:
        return self.slots // self.devices

    def phase(self, update: int) -> Phase:
        """The phase that an update (counted from 0) belongs to."""
        return Phase(**[phase for phase in self.phases if phase["update"] <= update][-1])

    def epochs(self, updates: int) -> float:
        """How many epochs the first `updates` updates are, for one or more."""
        phase = self.phase(updates - 1)
        return phase.epoch + (updates - phase.update) / phase.updates_per_epoch

    def samples_seen(self, updates: int) -> int:
        """How many samples the first `updates` updates take."""
        ends = [*(phase["update"] for phase in self.phases[1:]), updates]
        pairs = zip(self.phases, ends, strict=True)
        return sum((min(e, updates) - p["update"]) * p["effective_batch"] for p, e in pairs if p["update"] < updates)


def make_plan(
    experiment: Experiment,
    *,
    mode: str,
    gpus: int,
    samples: int,
    available: int,
    devices: int = 0,
    auto: dict[str, Any] | None = None,
) -> Plan:
    """Derive the plan of a run.

    `samples` counts the training split, `available` the devices that there are, and `devices` those to use; 0 chooses
    the largest number that divides the slots and is at most min(gpus, available).
    Mode "probe" makes the measurements for mode "auto": the first updates, in strong scaling on real devices only, on
    the largest number of them that divides the slots. Mode "auto" takes the result as `auto` (see `auto.record`): it is
    strong scaling with k times the config's batch under the rule noise-scale. In both modes `devices` is a limit.
    Raises UserError, with the reason, for an impossible plan.

    >>> from dsr.config import validate
    >>> values = {"train_micro_batch_size_per_gpu": 2, "gradient_accumulation_steps": 12}
    >>> values |= {"optimizer": {"type": "SGD", "params": {"lr": 0.1}}, "dsr": {"budget": {"epochs": 10}}}
    >>> experiment = validate(values, "example.json")
    >>> for mode in ("strong", "weak"):
    ...     plan = make_plan(experiment, mode=mode, gpus=4, samples=1000, available=2)
    ...     plan.slots, plan.accumulation, plan.devices, plan.effective_batch, plan.learning_rate, plan.updates
    (12, 3, 2, 24, 0.1, 410)
    (48, 12, 2, 96, 0.4, 100)
    """
    _check_request(experiment, mode, gpus, devices)
    if mode in ("probe", "auto"):
        available, devices = devices or available, 0
    s1, micro = experiment.accumulation, experiment.micro_batch
    if mode == "probe":
        gpus = _largest_divisor(s1, min(gpus, available))

    # ---- sizes: slots, batch, devices
    k = auto["slots"] // s1 if auto else gpus if mode == "weak" else 1
    slots, batch = s1 * k, s1 * k * micro
    if mode in ("strong", "auto"):
        _check_strong(gpus, slots, micro)
    if batch > samples:
        raise UserError(_too_large(mode, batch, samples, s1 * micro))
    phases, updates = _phases(experiment, slots, samples)
    sequential = experiment.dsr.budget.updates or _phases(experiment, s1, samples)[1]
    if devices:
        _check_devices(devices, gpus, slots)
    else:
        devices = _largest_divisor(slots, min(gpus, available))

    # ---- the rule: learning rate, schedule, warm-up
    rule = rule_of(experiment, slots, auto)
    scaled = rule.scale(experiment, k)
    # by how much the schedule shrinks: an epoch drops its tail, so that updates / k would not do
    shrink = 1.0 if rule.measures_gain else sequential / updates
    if scaled.worth is not None:
        updates, shrink = max(1, round(sequential / scaled.worth)), scaled.worth
    if mode == "probe":
        updates = probe_updates(updates)
    warmup = 0
    if rule.gradual_warmup:
        warmup = min(round(experiment.dsr.scaling.warmup_epochs * (samples // batch)), updates)
    rate, user = float(experiment.deepspeed["optimizer"]["params"]["lr"]), experiment.deepspeed.get("scheduler")
    scheduler = schedule.scaled(user, rate, scaled.factor, shrink, warmup)
    played = sequential if rule.measures_gain else updates
    begun = schedule.is_begun(scheduler, user, rule)

    return Plan(
        mode=mode,
        gpus=gpus,
        devices=devices,
        rehearsal=devices < gpus,
        micro_batch=micro,
        accumulation=slots // gpus,
        slots=slots,
        effective_batch=batch,
        base_learning_rate=schedule.peak(user, rate, sequential, begun=False),
        learning_rate=schedule.peak(scheduler, rate * scaled.factor, played, begun=begun),
        optimizer_rate=rate * scaled.factor,
        rule=rule.name,
        optimizer=scaled.optimizer,
        warmup_updates=warmup,
        samples=samples,
        updates_per_epoch=samples // batch,
        updates=updates,
        sequential_updates=sequential,
        scheduler=scheduler,
        phases=[asdict(phase) for phase in phases],
        auto=auto,
    )


def _phases(experiment: Experiment, slots: int, samples: int) -> tuple[list[Phase], int]:
    """The phases of a run that begins with this number of slots, and the total of its updates.

    A batch that grows k times lowers the gradient noise as a rate that falls k times would: the noise is proportional
    to rate / batch (Smith et al. 2018, arXiv:1711.00489). The rate stays.
    """
    growth, budget, micro = experiment.dsr.scaling.growth, experiment.dsr.budget, experiment.micro_batch
    epochs, factor = (growth.epochs, growth.factor) if growth else ([], 1)
    phases = [Phase(0, 0, slots, slots * micro, samples // (slots * micro))]
    for epoch in epochs:
        before = phases[-1]
        update = before.update + (epoch - before.epoch) * before.updates_per_epoch
        more = before.slots * factor
        if more * micro > samples:
            raise UserError(
                f"dsr.scaling.growth makes an effective batch of {more * micro} samples after epoch {epoch}, larger "
                f"than the training set of {samples}"
            )
        phases.append(Phase(update, epoch, more, more * micro, samples // (more * micro)))
    last = phases[-1]
    updates = budget.updates or last.update + ((budget.epochs or 0) - last.epoch) * last.updates_per_epoch
    if growth and last.update >= updates:
        raise UserError(
            f"dsr.scaling.growth: epoch {last.epoch} ends with update {last.update}, and the run has no more than "
            f"{max(updates, 0)}"
        )
    return phases, updates


def probe_updates(updates: int) -> int:
    """The length of a probe, for a run of this many updates: a tenth, at least 25 and at most 200."""
    return min(updates, PROBE_MOST, max(PROBE_LEAST, round(PROBE_SHARE * updates)))


def _largest_divisor(number: int, most: int) -> int:
    """The largest divisor of a number that is at most max(most, 1)."""
    return max(d for d in range(1, max(most, 1) + 1) if number % d == 0)


def _check_request(experiment: Experiment, mode: str, gpus: int, devices: int) -> None:
    if gpus < 1:
        raise UserError(f"--gpus {gpus}: must be at least 1")
    if devices < 0:
        raise UserError(f"--devices {devices}: must be at least 1")
    if mode == "sequential" and gpus > 1:
        raise UserError(f"--mode sequential is one GPU; for {gpus} GPUs choose strong or weak")
    if mode in ("probe", "auto") and experiment.dsr.scaling.growth:
        raise UserError("--mode auto chooses the batch itself: leave out dsr.scaling.growth, which changes it too")


def _check_strong(gpus: int, slots: int, micro: int) -> None:
    if gpus > slots:
        raise UserError(
            f"strong scaling shares {slots} slots (micro-batches of {micro}), so at most {slots} GPUs fit, not {gpus}; "
            "a smaller micro-batch with more accumulation gives more slots"
        )
    if slots % gpus:
        below = _largest_divisor(slots, gpus)
        above = next(n for n in range(gpus, slots + 1) if slots % n == 0)
        raise UserError(f"{gpus} GPUs do not divide the {slots} slots; the nearest that do are {below} and {above}")


def _check_devices(devices: int, gpus: int, slots: int) -> None:
    if slots % devices:
        divisors = ", ".join(str(d) for d in range(1, slots + 1) if slots % d == 0)
        raise UserError(f"--devices {devices} does not divide the {slots} slots; {divisors} do")
    if devices > gpus:
        raise UserError(f"--devices {devices} is more than --gpus {gpus}")


def _too_large(mode: str, batch: int, samples: int, sequential_batch: int) -> str:
    text = f"an effective batch of {batch} samples is larger than the training set of {samples}"
    if mode == "weak":
        most = samples // sequential_batch
        return f"{text}; weak scaling fits at most {most} GPUs here" if most else text
    return f"{text}; lower gradient_accumulation_steps or train_micro_batch_size_per_gpu"
