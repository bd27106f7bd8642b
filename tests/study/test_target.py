"""Time to the target, and auto against the best of the grid, on results worked out by hand."""

from types import SimpleNamespace

import pytest

from dsr.scaling.speed import Wires, update_seconds
from dsr.study import target
from dsr.study.ablation import Ablation
from dsr.study.results import Result, TestError
from dsr.study.study import Group

PARAMETERS = 1000


class Runs(SimpleNamespace):
    """What `Results` gives, with plans and results as they are written here."""

    def of(self, cell):
        return cell.result

    def plan(self, cell):
        return cell.chosen

    def sequential(self, data):
        return [cell for cell in self.cells if cell.arm == "sequential"]


def run(arm, curve, *, batch=4, gpus=1, seconds=0.4, auto=None):
    """A run of micro-batches of 1 that took `seconds` an update on one device."""
    plan = SimpleNamespace(
        **{"effective_batch": batch, "slots": batch, "gpus": gpus, "devices": 1, "micro_batch": 1, "auto": auto},
        **{"learning_rate": 0.1, "samples_seen": lambda updates: updates * batch},
    )
    own = SimpleNamespace(effective_batch=4, micro_batch=1)
    test = TestError(rmse={}, bicubic={}, units={}, parameters=PARAMETERS, skill=0)
    result = Result(state="finished", curve=curve, update_seconds=seconds, test=test, plan={"mode": arm})
    return SimpleNamespace(data="a", arm=arm, gpus=gpus, seed=1, mode=arm, plan=own, chosen=plan, result=result)


def test_the_time_of_an_update_is_separated_from_that_of_its_slots():
    """0.2 s an update, 0.1 s a slot of 1, 0.3 s a slot of 4."""

    def timed(micro, slots, seconds):
        plan = SimpleNamespace(micro_batch=micro, slots=slots, devices=1)
        result = Result(state="finished", update_seconds=seconds)
        return SimpleNamespace(data="a", arm="x", mode="weak", plan=plan, chosen=plan, result=result)

    cells = [timed(1, 4, 0.6), timed(4, 1, 0.5), timed(4, 8, 2.6), timed(4, 8, 2.6)]
    small, large = (target.times(Runs(cells=cells), cell) for cell in cells[:2])
    assert (small.update, small.slot) == (pytest.approx(0.2), pytest.approx(0.1))
    assert (large.update, large.slot) == (pytest.approx(0.2), pytest.approx(0.3))
    alone = target.times(Runs(cells=cells[:2]), cells[0])  # one number of slots each cannot separate them
    assert (alone.update, alone.slot) == (0, pytest.approx(0.15))


def test_what_was_not_reached_counts_as_infinite():
    assert target.median_reached([1, None, 3]) == 3
    assert target.median_reached([1, None, None]) is None
    assert target.median_reached([1, 2, None, None]) is None
    assert target.median_reached([]) is None


@pytest.fixture
def runs():
    ablation = Ablation(
        title="By hand",
        base="base.json",
        data={"a": {"label": "A", "store": "a.zarr"}},
        arms={"auto": {"label": "auto", "mode": "auto"}},
        gpus=[2],
        seeds=[1, 2],
        wires={"latency_us": 0, "gbit_per_s": 1e9},
    )
    measured = {"noise_scale": 8.0, "noise_interval": [4.0, 9.0], "updates": 25}
    chosen = {"measured": measured, "why": ["because"]}
    cells = [
        run("sequential", [(10, 0.5), (20, 1.0)]),
        run("sequential", [(10, 0.94), (20, 0.8)]),  # best 1 and 0.94: the target is 0.95 x 0.97 = 0.9215
        run("auto", [(10, 0.9), (20, 0.95)], gpus=2, auto=chosen),
        run("auto", [(10, 0.95), (20, 0.99)], batch=8, gpus=2, seconds=0.8, auto=chosen),
    ]
    return Runs(ablation=ablation, cells=cells)


def test_the_target_is_a_share_of_the_sequential_runs_best(runs):
    assert target.skill_of_target(runs, "a") == pytest.approx(0.9215)


def test_a_run_reaches_it_with_its_first_validation_above(runs):
    one, two, auto, _ = (target.reached(runs, cell) for cell in runs.cells)
    assert (one.updates, one.samples) == (20, 80) and (two.updates, two.samples) == (10, 40)
    assert target.times(runs, runs.cells[0]).slot == pytest.approx(0.1)
    update = update_seconds(4, 2, 0.1, PARAMETERS, Wires(0, 1e9))
    assert auto.seconds == pytest.approx(20 * update) and update == pytest.approx(0.2, rel=1e-3)


def test_auto_is_compared_with_the_complete_cell_that_is_best_in_each(runs):
    def group(arm, samples, seconds, reached=2, mode="weak"):
        values = {name: None for name in Group.model_fields}
        values |= {
            "data": "a",
            "arm": arm,
            "mode": mode,
            "budget": "epochs",
            "gpus": 2,
            "effective_batch": 8,
            "runs": 2,
        }
        values |= {"reached_target": reached, "samples_to_target": samples, "predicted_seconds_to_target": seconds}
        return Group.model_construct(**values)

    groups = [
        group("few samples", 40, 9.0),
        group("fast", 400, 2.0),
        group("lucky", 1, 0.1, reached=1),
        group("auto", 2, 0.2, mode="auto"),
    ]
    answer = target.against_the_best(runs, runs.cells[2:], groups)
    # 20 updates of 4 samples and 10 of 8; 20 x 0.2 s and 10 x 0.4 s
    assert (answer.samples.auto, answer.samples.best, answer.samples.ratio) == (80, 40, 2)
    assert answer.samples.best_cell.arm == "few samples"
    assert answer.seconds.best_cell.arm == "fast"
    assert answer.seconds.ratio == pytest.approx(2, rel=1e-3)
    assert answer.samples.ratios_by_seed == [2, 2]
    assert [run.probe_samples for run in answer.runs] == [100, 100]
    runs.cells[2].result = runs.cells[2].result.model_copy(update={"curve": [(20, 0.9)]})
    answer = target.against_the_best(runs, runs.cells[2:], groups)
    assert answer.samples.ratio is None and answer.samples.best == 40
