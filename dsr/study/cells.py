"""From an ablation file to its cells: each run that the study needs, with its plan or why it is impossible."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from dsr import components, task
from dsr.config import Experiment, load
from dsr.errors import UserError
from dsr.scaling.plan import Plan, make_plan
from dsr.study.ablation import SEQUENTIAL, Ablation, Arm, overrides
from dsr.task import Task

RANKS_ONLY = ("mode", "gpus", "devices", "rehearsal", "accumulation")  # of a plan: they do not change what is computed


class Place(NamedTuple):
    """Where a cell stands in the study's tables; its seeds share it."""

    data: str
    arm: str
    budget: str
    gpus: int


@dataclass(frozen=True)
class Cell:
    """One run of the study. Cells of the same `key` are the same computation, which is run once for all of them."""

    data: str
    arm: str
    mode: str
    budget: str
    gpus: int
    seed: int
    rate: float  # the sequential learning rate, before the rule
    name: str  # of the run's folder, if no other cell of the same key comes first
    task: Task
    plan: Plan | None  # in mode auto the config's own, before a probe has chosen
    reason: str = ""  # why it is impossible
    devices: int = 1

    @property
    def place(self) -> Place:
        return Place(self.data, self.arm, self.budget, self.gpus)

    @cached_property
    def key(self) -> str:
        """A hash of everything that determines the run's bits, and of nothing else; real ranks count as another run."""
        assert self.plan is not None
        resolved, plan = self.task.experiment.resolved(), asdict(self.plan)
        for name in ("labels", "budget", *(["scaling"] if self.plan.rule == "none" else [])):
            resolved["dsr"].pop(name)
        for name in ("origin", "cache"):
            resolved["dsr"]["data"].pop(name)
        resolved["dsr"]["data"]["store"] = self.task.fingerprint
        resolved["exact"] = self.task.experiment.exact
        if code := [components.source(package) for package in components.packages(self.task.experiment.dsr)]:
            resolved["components"] = code
        if self.task.experiment.exact:
            for name in RANKS_ONLY:
                plan.pop(name)
        probe = [self.mode, self.gpus] if self.mode == "auto" else []
        text = json.dumps([resolved, plan, self.devices, *probe], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def slots(self) -> int:
        """Forward and backward passes of the whole run."""
        return self.plan.updates * self.plan.slots if self.plan else 0


class Expansion:
    """Makes the cells of an ablation file. It opens the stores of its data sets, or simulates them, when it is made."""

    def __init__(self, ablation: Ablation, base: Path):
        """Raises UserError, with data set and arm, for anything that is wrong at every GPU count."""
        self.ablation, self.base = ablation, base
        self.arms = {SEQUENTIAL: Arm(label="sequential, one GPU", mode="strong"), **ablation.arms}
        self.stores = {name: _store(data) for name, data in ablation.data.items()}
        self.tasks: dict[tuple[str, str], Task] = {}
        for data in ablation.data:
            for arm in self.arms:
                try:
                    resolved = task.resolve(base, self._overrides(data, arm), self.stores[data])
                except UserError as error:
                    raise UserError(f"data {data}, arm {arm}: {error}") from None
                if resolved.experiment.dsr.budget.epochs is None:
                    raise UserError(f"data {data}, arm {arm}: a study's experiment needs dsr.budget.epochs")
                self.tasks[data, arm] = resolved
                if ablation.tune and not self.arms[arm].rates and self._optimizer(data, arm) != self._optimizer(data):
                    raise UserError(f"data {data}, arm {arm}: an optimizer or rate of its own needs rates of its own")
            if not any(self._places(data)):
                raise UserError(f"data {data}: no arm takes part at any of its GPU counts")

    def tuning(self) -> dict[Place, list[Cell]]:
        """The candidates for every rate that is tuned: one sequential rate for each data set and for each arm that has
        an optimizer of its own, and one for each batch of a retuned arm."""
        tune = self.ablation.tune
        candidates: dict[Place, list[Cell]] = {}
        if tune is None:
            return candidates
        for data in self.ablation.data:
            for name, arm in self.arms.items():
                rates = tune.rates if name == SEQUENTIAL else arm.rates
                if rates and self._used(data, name):
                    place = Place(data, name, "epochs", 1)
                    candidates[place] = [self._cell(place, seed, rate) for rate in rates for seed in tune.seeds]
            for place, seeds in self._places(data):
                if seeds and (rates := self.arms[place.arm].retune) and place.gpus > 1:
                    cells = [self._cell(place, seed, rate) for rate in rates for seed in tune.seeds]
                    candidates[place] = [cell for cell in cells if cell.plan]
        return {place: cells for place, cells in candidates.items() if cells}

    def study(self, rates: dict[Place, float]) -> list[Cell]:
        """Every run of the study proper, the sequential ones first, with the rates that tuning chose.

        An impossible cell comes once, with the reason, whatever its seeds.
        """
        cells = []
        for data in self.ablation.data:
            sequential = Place(data, SEQUENTIAL, "epochs", 1)
            for seed in self._seeds(data):
                cells.append(self._cell(sequential, seed, self.rate(rates, sequential)))
            for place, seeds in self._places(data):
                for seed in seeds:
                    cells.append(self._cell(place, seed, self.rate(rates, place)))
                    if cells[-1].plan is None:
                        break
        return cells

    def proofs(self, rates: dict[Place, float]) -> list[tuple[Cell, Cell]]:
        """Pairs of runs that must end with the same bits: N real ranks, and one device that plays all of them."""
        proof = self.ablation.proof
        if proof is None:
            return []
        seed = self.ablation.seeds[0]
        pairs = []
        for arm in proof.arms:
            for gpus in proof.gpus:
                place = Place(proof.data, arm, "epochs", gpus)
                rate = self.rate(rates, place)
                real, rehearsed = (self._cell(place, seed, rate, devices, proof.updates) for devices in (gpus, 1))
                if real.plan:
                    pairs.append((real, rehearsed))
        return pairs

    def rate(self, rates: dict[Place, float], place: Place) -> float:
        """The rate at a place: tuned there or for its arm, or the tuned sequential one, or (not tuned) the file's."""
        data, arm, _, _ = place
        tuned = place if self.arms[arm].retune else Place(data, arm, "epochs", 1)
        written = self.tasks[data, arm].experiment.deepspeed["optimizer"]["params"]["lr"]
        return rates.get(tuned, rates.get(Place(data, SEQUENTIAL, "epochs", 1), written))

    def _places(self, data: str) -> Iterable[tuple[Place, list[int]]]:
        """Every place of a data set but the sequential one, with its seeds."""
        settings = self.ablation.data[data]
        for budget, limits in (settings.budgets or self.ablation.budgets).items():
            for name, arm in self.ablation.arms.items():
                for gpus in settings.gpus or self.ablation.gpus:
                    parts = (limits, arm)
                    seeds = [
                        seed
                        for seed in self.ablation.seeds
                        if all(part.allow(arm=name, budget=budget, gpus=gpus, seed=seed) for part in parts)
                    ]
                    if seeds:
                        yield Place(data, name, budget, gpus), seeds

    def _seeds(self, data: str) -> list[int]:
        """The sequential runs' seeds: all that any arm is compared with."""
        wanted = {seed for _, seeds in self._places(data) for seed in seeds}
        return [seed for seed in self.ablation.seeds if seed in wanted]

    def _optimizer(self, data: str, arm: str = SEQUENTIAL) -> Any:
        """What a tuned rate holds for."""
        experiment = self.tasks[data, arm].experiment
        return experiment.deepspeed["optimizer"], experiment.dsr.optimizer

    def _used(self, data: str, arm: str) -> bool:
        return arm == SEQUENTIAL or any(place.arm == arm for place, _ in self._places(data))

    def _cell(self, place: Place, seed: int, rate: float, devices: int = 1, updates: int | None = None) -> Cell:
        """One cell. `updates` shortens it to a proof."""
        data, arm, budget, gpus = place
        written = self.tasks[data, arm]
        name = f"{data}-{arm}" if arm == SEQUENTIAL else f"{data}-{arm}-{gpus}-{budget}"
        name = f"{name}-rate{rate:g}-seed{seed}"
        labels = json.dumps({"data": data, "arm": arm, "budget": budget})
        changes = [f"optimizer.params.lr={rate}", f"dsr.seed={seed}", f"dsr.labels={labels}"]
        sequential = make_plan(written.experiment, mode="sequential", gpus=1, samples=written.samples, available=1)
        if updates:
            name = f"{name}-proof-{devices}"
            changes += [f"dsr.budget.updates={updates}", f"dsr.validation.every={updates}"]
        elif budget == "updates" and self.arms[arm].mode == "weak" and gpus > 1:  # else it is the same as epochs
            every = written.experiment.dsr.validation.every or sequential.updates_per_epoch
            changes += [f"dsr.budget.updates={sequential.updates}", f"dsr.validation.every={every}"]
        experiment = load(self.base, self._overrides(data, arm, *changes))
        mode = SEQUENTIAL if arm == SEQUENTIAL else self.arms[arm].mode
        try:
            plan, reason = _plan(experiment, mode, gpus, written.samples, devices), ""
        except UserError as error:
            plan, reason = None, str(error)
        if plan and self.ablation.validations and not updates:
            changes.append(f"dsr.validation.every={max(1, plan.updates // self.ablation.validations)}")
            experiment = load(self.base, self._overrides(data, arm, *changes))
        cell_task = Task(experiment, written.store, written.samples, written.fingerprint)
        return Cell(data, arm, mode, budget, gpus, seed, rate, name, cell_task, plan, reason, devices)

    def _overrides(self, data: str, arm: str, *more: str) -> tuple[str, ...]:
        changes = (*overrides(self.ablation.data[data].changes), *overrides(self.arms[arm].changes))
        if micro := self.arms[arm].micro_batch:
            written = load(self.base, changes)
            batch = written.micro_batch * written.accumulation
            if batch % micro:
                raise UserError(f"micro_batch {micro} does not divide the batch of {batch}")
            sizes = {"train_micro_batch_size_per_gpu": micro, "gradient_accumulation_steps": batch // micro}
            changes += (*overrides(sizes),)
        return (*changes, *more)


def choose(candidates: list[Cell], scores: dict[str, float]) -> float:
    """The rate with the best mean validation score over the tuning seeds; one that ever diverged has none.

    `scores` holds a number for each cell's key, infinite where the run diverged. Where all did, it is the lowest rate.
    """
    means: dict[float, float] = {}
    for rate in sorted({cell.rate for cell in candidates}):
        of_rate = [scores[cell.key] for cell in candidates if cell.rate == rate]
        means[rate] = sum(of_rate) / len(of_rate)
    return min(means, key=lambda rate: means[rate])


def distinct(cells: Iterable[Cell]) -> dict[str, Cell]:
    """The runs of the possible cells: by key, the first cell of each."""
    first: dict[str, Cell] = {}
    for cell in cells:
        if cell.plan:
            first.setdefault(cell.key, cell)
    return first


def _plan(experiment: Experiment, mode: str, gpus: int, samples: int, devices: int) -> Plan:
    planned = functools.partial(make_plan, experiment, samples=samples, available=devices, devices=devices)
    if mode == "auto":
        planned(mode="probe", gpus=gpus)  # it must be possible
        return planned(mode=SEQUENTIAL, gpus=1)
    return planned(mode=mode, gpus=gpus)


def _store(data: Any) -> str:
    from dsr.data.simulate import builtin

    return data.store if data.store else str(builtin(data.simulate))
