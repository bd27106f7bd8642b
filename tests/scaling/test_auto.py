"""`--mode auto`: the choice by hand from given numbers, its edges, and one launch from the probe to the end."""

import json
import re
from dataclasses import asdict, replace

import pytest

from dsr.cluster import start as starting
from dsr.config import validate
from dsr.errors import UserError
from dsr.run import Run
from dsr.run.lock import hold
from dsr.scaling import auto
from dsr.scaling.auto import Measured, choose
from dsr.scaling.deepspeed_config import deepspeed_config
from dsr.scaling.plan import Plan, make_plan, probe_updates
from dsr.scaling.rules.noise_scale import updates_worth
from dsr.scaling.speed import Wires
from tests.ranks import run_ranks, train_main

FREE = Wires(latency_us=0, gbit_per_s=1e12)
SLOW = Wires(latency_us=10_000, gbit_per_s=1e12)  # 10 ms a message


def experiment(slots=4, micro=1, **dsr):
    values = {"train_micro_batch_size_per_gpu": micro, "gradient_accumulation_steps": slots}
    optimizer = {"type": "Adam", "params": {"lr": 0.002}}
    return validate({**values, "optimizer": optimizer, "dsr": {"budget": {"updates": 100}, **dsr}}, "test")


def measured(noise, wires=FREE, slots=4, interval=None):
    """A slot takes 10 ms on one rank, and the network has 1000 parameters."""
    times = {"ranks": 1, "update_seconds": 0.01 * slots, "parameters": 1000}
    return Measured(25, 100, noise, interval, wires=wires, wires_timed=False, **times)


def recorded(record):
    """The measurement that plan.json holds."""
    values = record["measured"]
    return Measured(**{**values, "wires": Wires(**values["wires"])})


def chosen(noise, most, wires=FREE, samples=1000, slots=4, micro=1):
    found = choose(experiment(slots, micro), measured(noise, wires, slots), samples, most)
    return found.slots, found.gpus


def test_updates_are_worth_what_the_noise_scale_says():
    # S = S_min (1 + 16 / B): 5 at B = 4, 3 at B = 8, 2 at B = 16
    assert updates_worth(16, 4, 8) == pytest.approx(5 / 3)
    assert updates_worth(16, 4, 16) == pytest.approx(5 / 2)
    assert updates_worth(0, 4, 16) == 1  # without noise a larger batch tells nothing new
    assert updates_worth(1e9, 4, 16) == pytest.approx(4)  # with nothing but noise it counts in full
    assert updates_worth(None, 4, 4) == 1


@pytest.mark.parametrize(
    ("noise", "most", "slots", "gpus"),
    [
        (17, 1, 4, 1),  # one GPU: the smallest batch
        (17, 4, 4, 4),  # four share the config's own four slots
        (17, 8, 8, 8),  # 5.25 / 3.125 = 1.68 times as fast as four: 68 % of their share
        (17, 16, 16, 16),  # 3.125 / 2.0625 = 1.515 times as fast as eight: 52 %
        (17, 64, 16, 16),  # 32 samples are more than 17
        (15, 64, 8, 8),  # 16 samples are more than 15
        (7, 64, 4, 4),
    ],
)
def test_without_exchange_batch_and_gpus_double_up_to_the_noise_scale(noise, most, slots, gpus):
    assert chosen(noise, most) == (slots, gpus)


def test_an_exchange_that_costs_as_much_as_a_slot_makes_more_gpus_useless():
    # 1 GPU: 40 ms; 2: 20 + 10 = 30 ms, 4/3 times as fast, 33 % of their share; 4: 10 + 20 ms, 11 %
    found = choose(experiment(), measured(5, SLOW), 1000, 4)
    assert (found.slots, found.gpus) == (4, 1)
    assert found.rejected == (2, pytest.approx(1 / 3))


def test_a_larger_batch_makes_up_for_the_exchange():
    # 2 GPUs, S slots: (5 S + 10 ms) / worth, worth = 251 / (1 + 1000 / S)
    # 4: 30 ms, 8: 25.1, 16: 22.8, 32: 21.8 (the shortest), 64: 21.9; within 5 % of 21.8: 16
    assert chosen(1000, 2, SLOW) == (16, 2)  # 40 / 22.8 = 1.76 times as fast


@pytest.mark.parametrize(
    ("noise", "samples", "slots", "gpus"),
    [(1000, 9, 8, 8), (1000, 7, 4, 4), (None, 1000, 4, 4), (0.0, 1000, 4, 4)],
    ids=["the training set", "smaller than twice the batch", "not measured", "no noise"],
)
def test_the_batch_has_its_bounds(noise, samples, slots, gpus):
    assert chosen(noise, 64, samples=samples) == (slots, gpus)


def test_a_noise_scale_below_the_micro_batch_leaves_the_configs_own():
    assert chosen(1.5, 64, slots=4, micro=2) == (4, 4)


def test_slots_with_few_divisors():
    assert chosen(5, 6, slots=7) == (7, 1)
    assert chosen(5, 8, slots=7) == (7, 7)
    assert chosen(28, 14, slots=7) == (14, 14)
    assert chosen(28, 13, slots=7) == (7, 7)


def test_where_noise_hides_the_gradient_its_lower_bound_holds():
    hidden = measured(None, interval=[17, None])
    assert hidden.supported == 17
    found = choose(experiment(), hidden, 1000, 64)
    assert (found.slots, found.gpus) == (16, 16)


def test_a_slots_time_is_without_the_exchange():
    found = replace(measured(5, Wires(5000, 1e12)), ranks=2, update_seconds=0.025)
    assert found.slot_seconds(4) == pytest.approx((0.025 - 0.005) * 2 / 4)  # one message of 5 ms; 2 slots a rank
    found = replace(found, wires=Wires(20_000, 1e12))
    assert found.slot_seconds(4) == pytest.approx(0.0125 * 2 / 4)  # no more than half an update is exchange


def test_a_probe_is_a_tenth_within_bounds():
    assert [probe_updates(n) for n in (10, 25, 100, 1000, 1320, 10**6)] == [10, 25, 25, 100, 132, 200]


def plan_of(noise, most, samples=1000, **options):
    given, numbers = experiment(**options), measured(noise)
    choice = choose(given, numbers, samples, most)
    record = json.loads(json.dumps(auto.record(choice, numbers)))
    plan = make_plan(given, mode="auto", gpus=choice.gpus, samples=samples, available=64, auto=record)
    return plan, auto.reasons(given, plan, choice, numbers, most), record


def test_the_same_numbers_give_the_same_choice_again():
    plan, _, record = plan_of(17, 16)
    again = choose(experiment(), recorded(record), 1000, 16)
    assert (again.slots, again.gpus) == (plan.slots, plan.gpus) == (16, 16)
    assert auto.record(again, recorded(record)) == record


def test_three_lines_say_why():
    # 100 / (5.25 / 2.0625) = 39.3 updates, the rate by the root of it: 0.002 x sqrt(2.545); 39 x 10 ms, and 100 x 40 ms
    _, lines, _ = plan_of(17, 16)
    assert len(lines) == 3 and all(line.startswith("auto: ") for line in lines)
    assert (
        "a batch of 16, 16 slots of 1: 4 x the config's 4; noise scale 17 at update 25, after 25% of the run"
        in lines[0]
    )
    assert "16 of 16 GPUs: all that may be used" in lines[1] and "A slot takes 10 ms" in lines[1]
    assert "39 updates, learning rate 0.003191 (noise-scale rule from 0.002): predicted 0.39 s" in lines[2]
    assert lines[2].endswith("100 updates, 4 s")


@pytest.mark.parametrize(
    ("noise", "most", "samples", "why"),
    [
        (None, 4, 1000, "no noise scale"),
        (3, 4, 1000, "never shrinks"),
        (7, 4, 1000, "more than the noise supports"),
        (70, 4, 7, "more than the training set"),
        (70, 4, 1000, "would not pay here"),
    ],
)
def test_why_the_configs_own_batch_stays(noise, most, samples, why):
    _, lines, _ = plan_of(noise, most, samples)
    assert why in lines[0] and "as written" in lines[2]


# from the probe to the end


def start(config, store, folder, **change):
    options = {"store": str(store), "mode": "auto", "gpus": 4, "devices": 2, "run_dir": folder}
    return starting.start(config, **options | change)


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "tiny.json"
    tiny = experiment(budget={"updates": 30}, model={"name": "deepdownscale", "width": 4, "blocks": 1})
    path.write_text(json.dumps(tiny.resolved()))
    return path


def test_a_forced_run_keeps_the_old_one_and_its_lock_until_the_probe_has_succeeded(
    config, tiny_store, tmp_path, monkeypatch
):
    run, seen = Run(tmp_path / "run"), []
    with hold(run.folder):
        run.set_status("running")
        run.set_status("finished", updates=7)
        run.log(update=7)

    def train(place, *_):
        seen.append((place.folder.name, run.logged(), run.exists()))
        with pytest.raises(UserError, match="in use"), hold(run.folder, force=True):
            pass
        place.set_status("running")
        place.set_status(*ends.pop(0))
        return ""

    monkeypatch.setattr(starting, "train", train)
    ends = [("failed", "no reason")]
    assert start(config, tiny_store, run.folder, force=True) == 1
    assert seen == [(".run.probe", [{"update": 7}], True)]
    assert run.status()["updates"] == 7 and run.logged() == [{"update": 7}]

    ends = [("finished",), ("finished",)]
    monkeypatch.setattr(starting.probe, "measured", lambda run, plan: measured(17))
    assert start(config, tiny_store, run.folder, force=True) == 0
    assert seen[1:] == [(".run.probe", [{"update": 7}], True), ("run", [], False)]


@pytest.mark.slow
def test_a_launch_probes_chooses_and_goes_on_as_strong_scaling(config, tiny_store, tmp_path, capfd, monkeypatch):
    run = Run(tmp_path / "run")
    assert start(config, tiny_store, run.folder) == 0
    said = capfd.readouterr().err
    assert run.status()["state"] == "finished"
    values = json.loads(run.plan.read_text())
    plan = Plan(**values)
    numbers = recorded(plan.auto)
    assert numbers.updates == 25 and numbers.ranks == 2 and numbers.wires_timed and numbers.wires.latency_us > 0
    assert numbers.noise_scale is not None or numbers.noise_interval is not None
    again = choose(experiment(), numbers, plan.samples, 4)
    assert (plan.mode, plan.slots, plan.gpus) == ("auto", again.slots, again.gpus)
    assert "\n".join(plan.auto["why"]) in said and len(plan.auto["why"]) == 3
    assert "the run's first 25 updates with the config's batch of 4" in said
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []  # the probe's folder is gone
    assert "probe" not in json.dumps(json.loads(run.experiment.read_text()))

    # the same plan on one rank ends with the same bits
    one = play(tmp_path / "one", json.loads(run.experiment.read_text()), {**values, "devices": 1})
    assert one.status()["weights_sha256"] == run.status()["weights_sha256"]

    # resumed, with or without the config, it is the same plan, and nothing is measured again
    plans = []
    monkeypatch.setattr(starting, "train", lambda run, task, plan, *more: plans.append(plan) or "")
    start(config, tiny_store, run.folder, resume=True)
    start(None, tiny_store, run.folder, resume=True, mode=None, gpus=None)
    assert [json.loads(json.dumps(asdict(plan))) for plan in plans] == [values, values]
    with pytest.raises(UserError, match="already holds a run"):
        start(config, tiny_store, run.folder)
    with pytest.raises(UserError, match="mode"):
        start(config, tiny_store, run.folder, resume=True, mode="strong")


def play(folder, given, plan):
    """A plan on as many real ranks as it has devices, as `dsr launch` starts it."""
    run = Run(folder)
    folder.mkdir()
    run.experiment.write_text(json.dumps(given))
    run.plan.write_text(json.dumps(plan))
    run.deepspeed.write_text(json.dumps(deepspeed_config(validate(given, "test"), Plan(**plan))))
    run.set_status("running")
    log = folder.parent / f"{folder.name}.log"
    codes = run_ranks(plan["devices"], train_main, folder, log=log)
    assert codes == [0] * plan["devices"], log.read_text()
    return run


@pytest.mark.slow
def test_a_batch_that_grew_trains_as_planned_on_any_ranks(tmp_path, tiny_store):
    model, log = {"name": "deepdownscale", "width": 4, "blocks": 1}, {"every": 1}
    given = experiment(budget={"updates": 12}, model=model, log=log, data={"store": str(tiny_store)})
    record = {"slots": 8, "noise_scale": 9.0}
    plans = [make_plan(given, mode="auto", gpus=4, samples=40, available=n, auto=record) for n in (1, 2)]
    runs = [play(tmp_path / f"{p.devices}", given.resolved(), asdict(p)) for p in plans]
    assert len({run.status()["weights_sha256"] for run in runs}) == 1
    # an update of 8 is worth (1 + 9/4) / (1 + 9/8) = 1.53 of 4: 12 / 1.53 = 7.8 updates
    lines = [line for line in runs[1].logged() if "loss" in line]
    assert [line["update"] for line in lines] == list(range(1, 9))
    assert {line["effective_batch"] for line in lines} == {8}
    assert [line["learning_rate"] for line in lines] == [pytest.approx(0.002 * (3.25 / 2.125) ** 0.5)] * 8


@pytest.mark.slow
def test_a_probe_that_fails_leaves_no_run(config, tiny_store, tmp_path, capfd):
    wild = json.loads(config.read_text())
    wild["optimizer"]["params"]["lr"] = 1e30
    config.write_text(json.dumps(wild))
    assert start(config, tiny_store, tmp_path / "run", devices=1) == 1
    last = capfd.readouterr().err.splitlines()[-1]
    assert re.match(r"failed: in auto's probe, so that the run has not begun: .* not finite", last)
    assert not (tmp_path / "run" / "status.json").exists() and not (tmp_path / ".run.probe").exists()


def test_a_dry_run_says_that_it_would_probe_and_how(config, tiny_store, tmp_path, capsys):
    assert start(config, tiny_store, tmp_path / "run", dry_run=True) == 0
    said = capsys.readouterr().out
    assert "first a probe on 2 real ranks, the run's first 25 updates" in said and ".run.probe" in said
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.json"]


def test_more_than_the_devices_at_hand_is_refused_under_strict(config, tiny_store, tmp_path):
    with pytest.raises(UserError, match="1000 GPUs asked, but this host has"):
        start(config, tiny_store, tmp_path / "run", gpus=1000, devices=0, strict=True)


def test_a_run_of_another_mode_is_not_resumed_as_auto(config, tiny_store, tmp_path):
    run = Run(tmp_path)
    plan = make_plan(experiment(), mode="strong", gpus=1, samples=40, available=1)
    run.plan.write_text(json.dumps(asdict(plan)))
    with pytest.raises(UserError, match="launched with --mode strong"):
        start(config, tiny_store, tmp_path, resume=True)
    with pytest.raises(UserError, match="holds no run"):
        start(config, tiny_store, tmp_path / "nowhere", resume=True)
