"""The rates of a plan are those that DeepSpeed's own schedulers play, and what differs from the run is noted."""

import io

import pytest
from rich.console import Console

from dsr.cluster.devices import CPU, Devices
from dsr.cluster.start import describe, plan_run
from dsr.run import Run
from dsr.scaling import schedule
from dsr.scaling.rules import RULES
from dsr.scaling.table import cells, table
from dsr.task import Task
from tests.plans import COSINE, DECAY, WARMUP, experiment, plan, played

SCHEDULERS = {
    "none": None,
    "warm-up": WARMUP,
    "linear warm-up from a minimum": {
        "type": "WarmupLR",
        "params": {"warmup_min_lr": 0.01, "warmup_num_steps": 30, "warmup_type": "linear"},
    },
    "warm-up of the default 1000": {"type": "WarmupLR", "params": {}},
    "decay": DECAY,
    "decay without a peak": {"type": "WarmupDecayLR", "params": {"total_num_steps": 410, "warmup_num_steps": 20}},
    "decay that ends early": {
        "type": "WarmupDecayLR",
        "params": {"total_num_steps": 200, "warmup_num_steps": 1, "warmup_min_lr": 0.01, "warmup_type": "linear"},
    },
    "cosine": COSINE,
    "cosine, linear": {
        "type": "WarmupCosineLR",
        "params": {"total_num_steps": 300, "warmup_num_steps": 30, "warmup_type": "linear", "warmup_min_ratio": 0.2},
    },
    "a schedule that is gone on with": {
        "type": "WarmupCosineLR",
        "params": {"total_num_steps": 900, "warmup_num_steps": 600, "last_batch_iteration": 499},
    },
}


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize(("mode", "gpus"), [("sequential", 1), ("strong", 4), ("weak", 4), ("weak", 9)])
def test_every_update_plays_what_deepspeeds_scheduler_gives(name, mode, gpus):
    user = SCHEDULERS[name]
    found = plan(mode, gpus, **({"scheduler": user} if user else {}))
    expected = played(found, found.updates, user)
    begun = schedule.is_begun(found.scheduler, user, RULES.make(found.rule))
    ours = [schedule.rate_at(found.scheduler, found.optimizer_rate, u, begun=begun) for u in range(found.updates)]
    assert ours == pytest.approx(expected, rel=1e-12, abs=1e-18)
    assert found.learning_rate == pytest.approx(max(expected), rel=1e-12)
    if mode != "weak":
        assert found.base_learning_rate == found.learning_rate and found.optimizer_rate == 0.1


def test_the_peak_that_nobody_gave():
    """WarmupDecayLR climbs to 0.001 by default, whatever the optimizer's rate."""
    user = SCHEDULERS["decay without a peak"]
    found = plan("strong", 2, scheduler=user)
    assert (found.learning_rate, found.optimizer_rate) == (0.001, 0.1)
    assert schedule.notes(experiment(scheduler=user), found) == [
        "WarmupDecayLR plays up to 0.001, not the optimizer's 0.1"
    ]
    weak = plan("weak", 4, scheduler=user)
    assert weak.learning_rate == pytest.approx(0.004) and weak.base_learning_rate == 0.001


@pytest.mark.parametrize(
    ("name", "mode", "notes"),
    [
        ("cosine", "strong", []),
        ("cosine", "weak", []),
        ("none", "weak", []),
        ("warm-up of the default 1000", "sequential",
         ["the warm-up takes 1000 steps, the run has 410 updates: it ends at 0.0871"]),
        ("decay that ends early", "strong",
         ["the schedule has 200 steps, the run 410 updates: the rest plays a rate of 0.01",
          "WarmupDecayLR plays up to 0.01, not the optimizer's 0.1"]),
        ("cosine, linear", "sequential",
         ["the schedule has 300 steps, the run 410 updates: the rest plays a rate of 1e-05"]),
        ("cosine, linear", "weak", ["the schedule has 73 steps, the run 100 updates: the rest plays a rate of 4e-05"]),
    ],
)  # fmt: skip
def test_a_schedule_that_does_not_fit_the_run_is_noted(name, mode, notes):
    user = SCHEDULERS[name]
    change = {"scheduler": user} if user else {}
    found = plan(mode, 1 if mode == "sequential" else 4, **change)
    assert schedule.notes(experiment(**change), found) == notes


def test_a_schedule_longer_than_the_run_stops_where_it_is():
    found = plan("strong", 1, scheduler=COSINE, budget={"updates": 205})
    (note,) = schedule.notes(experiment(scheduler=COSINE), found)
    last = played(found, 205, COSINE)[-1]
    assert note == f"the schedule has 410 steps, the run 205 updates: it stops at a rate of {last:.3g}"


def test_plan_and_launch_say_so(tmp_path):
    user = SCHEDULERS["decay without a peak"]
    task = Task(experiment(scheduler=user, budget={"updates": 300}), "store", 1000, "")
    console = Console(width=200, record=True, file=io.StringIO())
    found = cells(task.experiment, task.samples, [1, 4])
    console.print(table(found))
    said = console.export_text()
    length = "the schedule has 410 steps, the run 300 updates: it stops at a rate of 0.000287"
    assert f"strong at 1, 4: {length}" in said  # 0.001 (410 - 298) / (410 - 20) at step 298, in update 299
    assert "sequential at 1: WarmupDecayLR plays up to 0.001, not the optimizer's 0.1" in said
    assert {cell["learning_rate"] for cell in found if cell["mode"] == "strong"} == {0.001}
    devices = Devices({"localhost": [0, 1]}, CPU)
    strong = plan_run(task.experiment, devices, mode="strong", gpus=2, samples=1000)
    assert length in describe(task, strong, devices, Run(tmp_path))
