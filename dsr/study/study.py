"""What a study shows, as records: study.json holds one `Study`, and the report is written from it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from dsr.study.ablation import Definitions, Network

Interval = tuple[float, float]


class Record(BaseModel):
    """Read-only, and without keys that nobody knows."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DataSummary(Record):
    """One data set, and its sequential runs."""

    label: str
    store: str
    fingerprint: str
    training_samples: int
    effective_batch: int | None
    slots: int | None
    updates: int | None
    bicubic: dict[str, float] | None  # RMSE by variable, in its units
    units: dict[str, str] | None
    sequential_rmse: dict[str, float] | None
    sequential_skill: list[float]
    same: Interval | None  # the skill of a run that counts as the same
    target_skill: float | None


class TunedRate(Record):
    """One choice of a learning rate. A score is None where the run diverged."""

    data: str
    arm: str
    budget: str
    gpus: int
    rate: float | None
    seeds: list[int]
    validation_scores: dict[str, list[float | None]]
    at_the_edge: bool


class Common(Record):
    """What every group has: the place of its runs, and their number."""

    data: str
    budget: str
    arm: str
    gpus: int
    mode: str
    runs: int


class Impossible(Common):
    """A place where no run can be, and why."""

    reason: str


class Group(Common):
    """The runs of one place together, one for each seed. None where a probe chose differently for them."""

    seeds: list[int]
    effective_batch: int | None
    micro_batch: int
    slots: int | None
    share: float | None  # of the training set in one update
    learning_rate: float | None
    updates: int | None
    warmup_updates: int | None
    outcomes: dict[str, int]
    diverged: int
    diverged_interval: Interval | None  # of the share of runs that diverge
    skill: float | None  # mean over the runs that converged
    skill_interval: Interval | None
    difference: float | None  # of that mean from the sequential runs'
    difference_interval: Interval | None
    identical: bool  # the same weights as the sequential runs, bit for bit
    noise_scale: float | None  # samples, median
    noise_scale_unknown: int
    reached_target: int
    updates_to_target: float | None
    samples_to_target: float | None
    slot_seconds: float | None
    fixed_seconds: float | None
    predicted_update_seconds: float | None
    predicted_seconds_to_target: float | None
    predicted_speed_up: float | None


class Failures(Record):
    """Of the weak runs on two GPUs or more: how many there are, diverged, and were not finite."""

    runs: int
    diverged: int
    not_finite: int


class BestGroup(Record):
    arm: str
    budget: str
    gpus: int
    effective_batch: int | None


class Comparison(Record):
    """What mode auto needed to reach the target, against the best group of the other arms."""

    auto: float | None
    best: float | None
    best_cell: BestGroup | None
    ratio: float | None
    ratios_by_seed: list[float]


class AutoRun(Record):
    """What one run's probe measured and chose, and what run and probe needed."""

    seed: int
    noise_scale: float | None
    noise_scale_interval: list[float | None] | None
    effective_batch: int
    gpus: int
    learning_rate: float
    updates: int | None
    samples: int | None
    seconds: float | None
    probe_updates: int
    probe_samples: int
    why: list[str]


class AutoSummary(Record):
    """The runs of one arm in mode auto."""

    data: str
    arm: str
    gpus: int
    runs: list[AutoRun]
    samples: Comparison
    seconds: Comparison


class Proof(Record):
    """N real ranks and one device that plays all of them: whether they end with the same bits."""

    data: str
    arm: str
    gpus: int
    ranks: int
    seed: int
    updates: int
    weights_sha256: list[str | None]
    same_bits: bool | None
    reason: str
    update_seconds: list[float | None]
    timed: bool


class Study(Record):
    """The whole study, by the definitions of its file."""

    title: str
    definitions: Definitions
    arms: dict[str, str]  # their labels
    data: dict[str, DataSummary]
    tuning: list[TunedRate]
    groups: list[Group | Impossible]
    failures: dict[str, Failures]  # by budget
    sources: list[str]  # hashes of dsr's code
    auto: list[AutoSummary]
    proofs: list[Proof]
    wires: Network
    cores: int
    file: str
    runs: int
    run_seconds: float

    @property
    def possible(self) -> list[Group]:
        """The groups that have runs."""
        return [group for group in self.groups if isinstance(group, Group)]

    def to_json(self) -> dict[str, Any]:
        """What study.json holds."""
        return self.model_dump()
