"""The Plan: from (mode, GPUs, devices, samples) to everything that a run's size decides. Pure arithmetic."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from dsr.errors import UserError
from dsr.scaling import schedule

if TYPE_CHECKING:
    from dsr.config import Experiment

FORMAT = 2  # of plan.json; 1 had no number
MODES = ("sequential", "strong", "weak")  # and auto, strong scaling of a batch that a probe chooses (dsr.scaling.auto)
PROBE_SHARE, PROBE_LEAST, PROBE_MOST = 0.1, 25, 200  # of the updates; the noise scale averages about 50


@dataclass(frozen=True)
class Phase:
    """A stretch of updates of one effective batch. A run has one, unless its batch grows."""

    update: int  # its first, counted from 0
    epoch: int  # that begins with it
    slots: int
    effective_batch: int
    updates_per_epoch: int


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
    learning_rate: float  # the highest that is played; under adascale engine.set_rate multiplies it
    optimizer_rate: float  # the optimizer's, after the rule; a scheduler may play another
    rule: str  # "none" where the batch does not grow
    optimizer: dict[str, Any]  # what else the rule changes in the optimizer's parameters
    warmup_updates: int  # weak scaling's gradual warm-up
    samples: int  # of the training split
    updates_per_epoch: int
    updates: int  # the run's total; under adascale at most so many
    sequential_updates: int  # that the sequential run makes in the same budget
    scheduler: dict[str, Any] | None  # DeepSpeed's, for this run
    phases: list[dict[str, int]]  # the fields of each Phase; slots, batch and updates an epoch above are the first's
    auto: dict[str, Any] | None = None  # in mode auto: the slots chosen, the noise scale, what was measured, and why
    format: int = FORMAT

    @property
    def slots_per_device(self) -> int:
        return self.slots // self.devices

    def phase(self, update: int) -> Phase:
        """The phase that an update (from 0) belongs to."""
        return Phase(**[phase for phase in self.phases if phase["update"] <= update][-1])

    def epochs(self, updates: int) -> float:
        """How many epochs the first so many updates are, one or more."""
        phase = self.phase(updates - 1)
        return phase.epoch + (updates - phase.update) / phase.updates_per_epoch

    def samples_seen(self, updates: int) -> int:
        """How many samples the first so many updates take."""
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

    `samples` counts the training split, `available` the devices at hand, and `devices` (0: choose) those to use: by
    default the largest number that divides the slots and is at most min(gpus, available).
    Mode "probe" is what measures for mode "auto": the first updates, in strong scaling on real devices only, as many as
    divide the slots. Mode "auto" takes `auto`, what `auto.record` gave: strong scaling with k times the config's
    batch, its rate by `noise_rate`, and as many updates fewer as one is worth more (`updates_worth`), the scheduler's
    steps alike. In both `devices` is a limit.
    Raises UserError, with the reason, for what cannot be.
    """
    scaling, s1, micro = experiment.dsr.scaling, experiment.accumulation, experiment.micro_batch
    if gpus < 1:
        raise UserError(f"--gpus {gpus}: must be at least 1")
    if devices < 0:
        raise UserError(f"--devices {devices}: must be at least 1")
    if mode == "sequential" and gpus > 1:
        raise UserError(f"--mode sequential is one GPU; for {gpus} GPUs choose strong or weak")
    if mode in ("probe", "auto"):
        if scaling.growth:
            raise UserError("--mode auto chooses the batch itself: leave out dsr.scaling.growth, which changes it too")
        available, devices = devices or available, 0
    if mode == "probe":
        gpus = max(n for n in range(1, min(gpus, max(available, 1)) + 1) if s1 % n == 0)
    grown = auto["slots"] // s1 if auto else gpus if mode == "weak" else 1
    slots = s1 * grown
    batch = slots * micro
    if mode in ("strong", "auto"):
        _check_strong(gpus, slots, micro)
    if batch > samples:
        raise UserError(_too_large(mode, gpus, batch, samples, s1 * micro))
    phases, updates = _phases(experiment, slots, samples)
    sequential = experiment.dsr.budget.updates or _phases(experiment, s1, samples)[1]
    if devices:
        if slots % devices:
            raise UserError(f"--devices {devices} does not divide the {slots} slots; {_divisors(slots)} do")
        if devices > gpus:
            raise UserError(f"--devices {devices} is more than --gpus {gpus}")
    else:
        devices = max(d for d in range(1, min(gpus, max(available, 1)) + 1) if slots % d == 0)

    per_epoch = samples // batch
    rule = "none" if grown == 1 else "noise-scale" if auto else scaling.rule
    if auto:
        worth = updates_worth(auto["noise_scale"], s1 * micro, batch)
        factor, changed, shrink = noise_rate(experiment, worth), dict[str, Any](), worth
        updates = max(1, round(sequential / worth))
    else:
        factor, changed = scaled(experiment, rule, grown)
        # an epoch drops its tail, so that the updates shrink by a little more than the batch grows; adascale's progress
        # counts sequential updates
        shrink = sequential / updates if rule != "adascale" else 1.0
    if mode == "probe":
        updates = probe_updates(updates)
    gradual = rule not in ("none", "adascale", "noise-scale")
    warmup = min(round(scaling.warmup_epochs * per_epoch), updates) if gradual else 0
    rate, user = float(experiment.deepspeed["optimizer"]["params"]["lr"]), experiment.deepspeed.get("scheduler")
    scheduler = _scheduler(user, rate, factor, shrink, warmup)
    played, begun = sequential if rule == "adascale" else updates, schedule.is_begun(scheduler, user, rule)
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
        learning_rate=schedule.peak(scheduler, rate * factor, played, begun=begun),
        optimizer_rate=rate * factor,
        rule=rule,
        optimizer=changed,
        warmup_updates=warmup,
        samples=samples,
        updates_per_epoch=per_epoch,
        updates=updates,
        sequential_updates=sequential,
        scheduler=scheduler,
        phases=[asdict(phase) for phase in phases],
        auto=auto,
    )


def _phases(experiment: Experiment, slots: int, samples: int) -> tuple[list[Phase], int]:
    """The phases of a run that begins with so many slots, and its updates in all.

    Growing the batch k times lowers the gradient noise as lowering the rate k times would: it goes with rate / batch
    (Smith et al. 2018, arXiv:1711.00489). The rate stays.
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


def scaled(experiment: Experiment, rule: str, k: int) -> tuple[float, dict[str, Any]]:
    """What a rule makes of a batch that is k times as large: the rate's factor, and other optimizer parameters.

    - none: 1, the control.
    - linear: k (Goyal et al. 2017, arXiv:1706.02677), with a gradual warm-up from the sequential rate.
    - sqrt: sqrt(k) (Krizhevsky 2014, arXiv:1404.5997; Hoffer et al. 2017, arXiv:1705.08741).
    - adam-sde: sqrt(k), 1 - beta -> k (1 - beta) for both betas, eps -> eps / sqrt(k) (Malladi et al. 2022,
      arXiv:2205.10287); the weight decay, which the paper does not treat, stays.
    - adascale: 1 here; in training the measured gain in [1, k] multiplies it (Johnson et al. 2020, arXiv:2007.05105;
      `dsr.scaling.noise.Noise.gain`).
    Raises UserError where the rule does not apply.
    """
    optimizer = experiment.deepspeed["optimizer"]
    kind = experiment.dsr.optimizer.type if experiment.dsr.optimizer else optimizer["type"]
    if rule == "adascale":
        if kind != "SGD":
            raise UserError(f"dsr.scaling.rule adascale is for SGD, not for {kind}: choose another rule or optimizer")
        if not experiment.exact:
            why = f"measures every slot's gradient, and cannot here: {experiment.inexact}"
            raise UserError(f"dsr.scaling.rule adascale {why}")
    if rule == "adam-sde":
        if kind not in ("Adam", "AdamW"):
            raise UserError(f"dsr.scaling.rule adam-sde is for Adam and AdamW, not for {kind}")
        params = optimizer["params"]
        betas = [Fraction(str(beta)) for beta in params.get("betas", (0.9, 0.999))]  # as written: 10 (1 - 0.9) is 1
        grown = [1 - k * (1 - beta) for beta in betas]
        for i, beta in enumerate(betas):
            if grown[i] <= 0:
                most = max(1, math.ceil(1 / max(1 - beta for beta in betas)) - 1)
                raise UserError(
                    f"dsr.scaling.rule adam-sde makes beta{i + 1} 1 - {k} x (1 - {float(beta):g}) = "
                    f"{float(grown[i]):g} at {k} GPUs, and it must stay above 0; the rule reaches to {most} GPUs here"
                )
        eps = params.get("eps", 1e-8) / math.sqrt(k)
        return math.sqrt(k), {"betas": [float(beta) for beta in grown], "eps": eps}
    return {"none": 1.0, "linear": float(k), "sqrt": math.sqrt(k), "adascale": 1.0}[rule], {}


def updates_worth(noise_scale: float | None, own: int, batch: int) -> float:
    """How many updates of `own` samples one of `batch` >= own is worth: (1 + B_noise/own) / (1 + B_noise/batch).

    A target takes S = S_min (1 + B_noise / B) updates (McCandlish et al. 2018, arXiv:1812.06162), so it lies
    in [1, batch/own]. It is AdaScale's gain with the noise scale measured once. None, not measured: 1.
    """
    return 1.0 if noise_scale is None else (1 + noise_scale / own) / (1 + noise_scale / batch)


def noise_rate(experiment: Experiment, worth: float) -> float:
    """The rate's factor in mode auto, for an update that is worth so many of the config's (`updates_worth`).

    SGD's best rate goes with 1 / (1 + B_noise/B), so by the worth itself, and Adam's with a power of it between 1/2 and
    1 (McCandlish et al. 2018, arXiv:1812.06162): here the careful 1/2, for all optimizers but SGD and LARS.
    """
    return worth if experiment.deepspeed["optimizer"]["type"] == "SGD" else math.sqrt(worth)


def probe_updates(updates: int) -> int:
    """How many updates a probe of a run of so many makes: a tenth, at least 25 and at most 200."""
    return min(updates, PROBE_MOST, max(PROBE_LEAST, round(PROBE_SHARE * updates)))


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
    user: dict[str, Any] | None, rate: float, factor: float, shrink: float, warmup: int
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
        peak = params.get("warmup_max_lr", schedule.DECAY_PEAK if decays else rate)
        params.update(warmup_max_lr=peak * factor, warmup_min_lr=params.get("warmup_min_lr", 0.0) * factor)
        if warmup:
            params.update(warmup_num_steps=warmup, warmup_type="linear")
            if not decays:
                params["warmup_min_lr"] = peak
    return {**user, "params": params}
