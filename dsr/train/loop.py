"""The training loop, as every rank runs it: started by the launcher as `-m dsr.train --run-dir DIR`."""

import argparse
import contextlib
import hashlib
import json
import math
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from dsr import components
from dsr.config import Experiment, validate
from dsr.data import cache
from dsr.data.domain import Domain
from dsr.data.features import Features
from dsr.data.order import order
from dsr.data.store import Store
from dsr.data.stream import Batch, Stream
from dsr.errors import UserError
from dsr.models.downscaler import Downscaler, Example
from dsr.run import Run
from dsr.run.checkpoints import checkpoint_name, weights_sha256
from dsr.run.lock import claim
from dsr.scaling.noise import Noise
from dsr.scaling.plan import Phase, Plan
from dsr.scaling.rules import rule_of
from dsr.train import engine, sameness, watch
from dsr.train.ema import Average
from dsr.train.gradients import Reduction, Totals
from dsr.train.journal import Journal
from dsr.train.objective import Objective, objective
from dsr.train.reduce import time_messages
from dsr.train.sameness import Unlike
from dsr.train.validation import Skill, Validation


class NotFinite(RuntimeError):
    """A loss, a gradient or a predicted field is not a finite number. Every rank raises it."""


def main() -> None:
    """Train the run in --run-dir. Exit 0: ended as status.json says; 1: failed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--run-dir", type=Path, required=True)
    run = Run(parser.parse_args().run_dir)
    components.allow(filter(None, os.environ.get(components.ALLOWED, "").split(",")))
    watch.start(run.last_words)
    device = engine.start(max(1800.0, watch.limit() + 60))  # the watchdog must bite before the group times out
    lead = dist.get_rank() == 0  # the only rank that needs to see the run's folder
    if lead:
        claim(run)
    try:
        train(run if lead else None, device)
    except Exception as error:
        everywhere = isinstance(error, NotFinite | Unlike)
        known = everywhere or isinstance(error, UserError)
        reason = str(error) if known else f"{type(error).__name__}: {error}"
        lost = _lost_a_rank(error)
        if lost or not lead or not _reported(run, reason):
            print(f"rank {dist.get_rank()}: {reason}", file=sys.stderr)
            watch.let_the_other_end() if lost else watch.leave(reason)
        if everywhere:
            engine.finish()  # together: a rank that ended first would end the others before the status is written
        if os.environ.get("DSR_DEBUG"):
            raise
        raise SystemExit(1) from None
    engine.finish()


def _reported(run: Run, reason: str) -> bool:
    """Write why the run failed; False where even that cannot be written, as on a full disk."""
    try:
        run.set_status("failed", reason)
    except OSError:
        return False
    return True


def _lost_a_rank(error: Exception) -> bool:
    """Whether the error only says that another rank has ended; `dsr launch` knows the reason better."""
    return isinstance(error, dist.DistError) or "gloo/transport" in str(error)


def train(run: Run | None, device: torch.device) -> None:
    """Play this rank's slots of every update to the end of the plan, or until the ranks agree to stop."""
    # ---- what to do: rank 0 reads it from the run's folder, and every rank receives it
    files = [run.experiment, run.plan, run.deepspeed] if run else []
    texts = engine.broadcast_json([json.loads(file.read_text()) for file in files])
    experiment, plan, config = validate(texts[0], "experiment.json"), Plan(**texts[1]), texts[2]
    settings, rule = experiment.dsr, rule_of(experiment, plan.slots, plan.auto)
    rank, ranks = dist.get_rank(), dist.get_world_size()
    if ranks != plan.devices:
        raise RuntimeError(f"{ranks} ranks were started for a plan of {plan.devices} devices")

    wires = time_messages(device) if plan.mode == "probe" and ranks > 1 else None

    # ---- data, network, engine
    store = Store(settings.data.store or "")
    sameness.compare(store.fingerprint, experiment.exact, device, components.packages(settings))
    why = cache.attach(store, settings.data.cache)
    if why and settings.data.cache and run:
        print(f"{store.path}: decoded rows are not cached: {why}")
    features = Features.of(store, settings.data)
    stream = Stream(store, features, settings.data, "train", settings.seed, watch.beat)
    shares = settings.loss.shares([variable.name for variable in features.high])
    torch.manual_seed(settings.seed)
    downscaler = Downscaler(features, settings.model.build(features)).to(device)
    deepspeed, reduction = engine.build(downscaler.network, config, experiment, plan)
    validation = Validation(store, downscaler, settings.data, plan.micro_batch, store.grid("high").area())

    # ---- where to begin: at the last checkpoint that the folder holds
    first, best = 0, float("inf")
    noise, progress = Noise(), 0.0  # progress: the sequential updates done, where the rule measures a gain
    checkpoint = engine.broadcast_state(run.load_checkpoint() if run else None, device)
    if checkpoint:
        tensors, values = checkpoint
        engine.restore(deepspeed, tensors, values["engine"])
        first = values["updates"]
        best = float("inf") if values["best"] is None else values["best"]
        noise, progress = Noise(**values["noise"]), values["progress"]
    average = None
    if settings.ema:
        average = Average(deepspeed.module, settings.ema, checkpoint[0].get("ema") if checkpoint else None)
    if run and wires:
        run.log(update=first, wires=wires)
    journal = Journal(run, experiment, plan, features, first)

    # ---- the loop
    done, stopped = first, False
    updates = plan.updates if progress < plan.sequential_updates else first
    watch.listen()  # from here on a request to stop waits until the update is done
    with journal:
        for update, phase, mine, counts, batches in coming(stream, plan, first, updates, rank):
            begun = time.perf_counter()
            engine.resize(deepspeed, reduction, phase)
            goal = objective(settings.loss, shares, counts, mine.start, phase.slots, device)
            waiting = Waiting(batches)
            examples = (downscaler.example(batch, settings.data.noise) for batch in waiting)
            totals = play(deepspeed, reduction, goal, settings.seed, update, mine, examples, device)
            check_finite(totals, update, stream, plan)
            if totals.slot_squares and totals.gradient_norm is not None:
                weights = [goal.weights[slot] for slot in totals.slot_squares]
                noise.add(list(totals.slot_squares.values()), weights, totals.gradient_norm, phase.effective_batch)
            if rule.measures_gain:
                gain = rule.gain(noise, plan.effective_batch // plan.gpus, plan.gpus)
                engine.set_rate(deepspeed, plan, progress, gain)
                progress += gain
            rate = engine.learning_rate(deepspeed)
            deepspeed.step()
            if average:
                average.update(update + 1)
            if totals.gradient_norm is None:  # ZeRO knows it only now
                totals.gradient_norm = engine.gradient_norm(deepspeed)
                check_finite(totals, update, stream, plan)
            watch.beat()
            done = update + 1
            last = done == plan.updates or progress >= plan.sequential_updates
            journal.update(done, rate, totals, noise, time.perf_counter() - begun, waiting.seconds, last)
            stopped = totals.stop and not last
            every = settings.validation.every
            if last or (done % every if every else (done - phase.update) % phase.updates_per_epoch) == 0:
                with average.in_place() if average else contextlib.nullcontext():
                    skill = validation.measure(device)
                    if not math.isfinite(skill.score):
                        raise NotFinite(
                            f"the network's fields are not finite after update {done}: lower the learning rate"
                        )
                    journal.validated(done, skill, validation)
                    if skill.score < best:
                        best = skill.score
                        save_model(run, deepspeed, experiment, features, store, done, skill)
                watch.beat()
            if done % settings.checkpoint.every == 0 or last or stopped:
                save_checkpoint(run, deepspeed, average, done, best, noise, progress)
                watch.beat()
            if last or stopped:
                break

    # ---- the end: every rank confirms it, with the same weights
    held = engine.weights(deepspeed)
    trained = {name: held[name] for name, _ in deepspeed.module.named_parameters()}
    averages = {f"ema.{name}": value for name, value in average.values.items()} if average else {}
    marks = engine.gather_marks(weights_sha256(trained | averages))
    final = weights_sha256(held | averages)
    buffers = sorted(set(engine.gather_marks(weights_sha256(dict(deepspeed.module.named_buffers())))))
    if len(set(marks)) != 1:
        raise RuntimeError(f"the ranks ended with different weights: {marks}")
    if run:
        state, reason = "finished", ""
        if stopped:
            state, reason = "stopped", f"stopped from outside after update {done} of {plan.updates}"
        ended = {"updates": done, "weights_sha256": final, "buffers_sha256": buffers, "ranks": len(marks)}
        run.set_status(state, reason, **ended)


def coming(
    stream: Stream, plan: Plan, first: int, updates: int, rank: int
) -> Iterator[tuple[int, Phase, range, np.ndarray, Iterator[Batch]]]:
    """Yield (update, its phase, this rank's slots, counts, their batches) for updates first..updates-1."""
    while first < updates:
        phase = plan.phase(first)
        end = min([updates, *(p["update"] for p in plan.phases if p["update"] > first)])
        share = phase.slots // plan.devices
        mine = range(rank * share, (rank + 1) * share)
        origin = phase.update, phase.epoch
        for update, counts, batches in stream.slots(first, end, phase.slots, plan.micro_batch, mine, origin):
            yield update, phase, mine, counts, batches
        first = end


class Waiting:
    """Passes on batches and counts the seconds spent waiting for them."""

    def __init__(self, batches: Iterator[Batch]):
        self.batches, self.seconds = batches, 0.0

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        begun = time.perf_counter()
        try:
            return next(self.batches)
        finally:
            self.seconds += time.perf_counter() - begun


def play(
    deepspeed: Any,
    reduction: Reduction,
    objective: Objective,
    seed: int,
    update: int,
    mine: range,
    examples: Iterator[Example],
    device: torch.device,
) -> Totals:
    """Forward and backward of this rank's slots of one update; the last backward ends in the reduction."""
    network = deepspeed.module
    if not network.training:  # after a validation
        network.train()
    dtype = next(network.parameters()).dtype
    generator = engine.generator(device)
    deepspeed.set_gradient_accumulation_boundary(False)
    for slot, example in zip(mine, examples, strict=True):
        generator.manual_seed(slot_seed(seed, update, slot))
        loss = objective.of_slot(deepspeed(example.inputs.to(dtype)).float(), example.target, example.mask)
        watch.beat()
        share = reduction.note(slot, loss, watch.stop_requested())
        if slot == mine[-1]:
            deepspeed.set_gradient_accumulation_boundary(True)
        deepspeed.backward(share, scale_wrt_gas=False)
    return reduction.finish()


def slot_seed(seed: int, update: int, slot: int) -> int:
    """The seed of all randomness inside a slot. It depends on (seed, update, slot), never on the rank."""
    digest = hashlib.sha256(f"{seed} {update} {slot}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def check_finite(totals: Totals, update: int, stream: Stream, plan: Plan) -> None:
    """Raise NotFinite on every rank, naming the update and the samples, before the optimizer steps."""
    wrong = [slot for slot, loss in enumerate(totals.losses) if not math.isfinite(loss)]
    if not wrong and (totals.gradient_norm is None or math.isfinite(totals.gradient_norm)):
        return
    phase = plan.phase(update)
    epoch, step = divmod(update - phase.update, phase.updates_per_epoch)
    epoch += phase.epoch
    begin = step * phase.effective_batch
    samples = order(stream.seed, epoch, stream.count, np.arange(begin, begin + phase.effective_batch))
    if wrong:
        slots = samples.reshape(phase.slots, plan.micro_batch)[wrong]
        raise NotFinite(
            f"the loss is not finite in update {update + 1} (epoch {epoch + 1}), training samples "
            f"{', '.join(map(str, slots.ravel()[:16]))}: lower the learning rate, or look at these samples"
        )
    raise NotFinite(
        f"the gradient is not finite in update {update + 1} (epoch {epoch + 1}), among training samples "
        f"{', '.join(map(str, samples[:16]))}...: lower the learning rate"
    )


def save_checkpoint(
    run: Run | None,
    deepspeed: Any,
    average: Average | None,
    updates: int,
    best: float,
    noise: Noise,
    progress: float,
) -> None:
    """Save everything that a resumed run needs; rank 0 writes it."""
    tensors, values = engine.state(deepspeed)
    if average:
        tensors["ema"] = average.values
    if run:
        score = best if math.isfinite(best) else None  # JSON has no infinity
        values = {"updates": updates, "best": score, "engine": values, "noise": vars(noise), "progress": progress}
        run.save_checkpoint(checkpoint_name(updates), tensors, values)


def save_model(
    run: Run | None,
    deepspeed: Any,
    experiment: Experiment,
    features: Features,
    store: Store,
    updates: int,
    skill: Skill,
) -> None:
    """Save the network as the best so far, with everything that prediction needs; no pickle."""
    tensors = engine.weights(deepspeed)
    if run:
        domain = Domain.of(store)
        description = {
            "network": experiment.dsr.model.model_dump(mode="json"),  # with today's defaults
            "features": features.to_json(),
            "domain": domain.to_json(),
            "store": str(store.path),
            "fingerprint": store.fingerprint,
            "updates": updates,
            "validation": skill.rmse,
        }
        arrays = {name: torch.from_numpy(array) for name, array in (features.arrays() | domain.arrays()).items()}
        run.save_model(tensors, arrays, description)


if __name__ == "__main__":
    main()
