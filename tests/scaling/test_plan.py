"""The Plan by hand, what cannot be, and the rates that DeepSpeed's own schedulers play from it."""

import json
import subprocess
import sys
from dataclasses import asdict

import pytest

from dsr.errors import UserError
from dsr.scaling.deepspeed_config import deepspeed_config
from dsr.scaling.plan import make_plan
from dsr.scaling.table import cells
from tests.plans import ADAM, COSINE, DECAY, WARMUP, experiment, plan, played


def test_sequential_by_hand():
    found = plan("sequential", 1)
    assert asdict(found) == {
        "mode": "sequential",
        "gpus": 1,
        "devices": 1,
        "rehearsal": False,
        "micro_batch": 2,
        "accumulation": 12,
        "slots": 12,
        "effective_batch": 24,
        "base_learning_rate": 0.1,
        "learning_rate": 0.1,
        "optimizer_rate": 0.1,
        "rule": "none",
        "optimizer": {},
        "warmup_updates": 0,
        "samples": 1000,
        "updates_per_epoch": 41,  # 1000 / 24 = 41.67
        "updates": 410,
        "sequential_updates": 410,
        "scheduler": None,
        "phases": [{"update": 0, "epoch": 0, "slots": 12, "effective_batch": 24, "updates_per_epoch": 41}],
        "auto": None,
        "format": 2,
    }


@pytest.mark.parametrize(("gpus", "accumulation"), [(1, 12), (2, 6), (3, 4), (4, 3), (6, 2), (12, 1)])
def test_strong_keeps_everything_but_the_accumulation(gpus, accumulation):
    found, one = plan("strong", gpus), plan("strong", 1)
    assert found.accumulation == found.slots_per_device == accumulation
    same = ("slots", "effective_batch", "learning_rate", "warmup_updates", "updates", "scheduler", "rule")
    assert [getattr(found, name) for name in same] == [getattr(one, name) for name in same]


@pytest.mark.parametrize("gpus", range(1, 33))
def test_weak_at_every_count_up_to_32(gpus):
    found = plan("weak", gpus, samples=2000)
    batch = 24 * gpus
    assert (found.slots, found.effective_batch, found.accumulation) == (12 * gpus, batch, 12)
    assert found.updates_per_epoch == 2000 // batch
    assert found.updates == 10 * (2000 // batch)
    assert found.learning_rate == pytest.approx(0.1 * gpus)
    assert found.warmup_updates == (5 * (2000 // batch) if gpus > 1 else 0)
    assert found.rule == ("linear" if gpus > 1 else "none")


@pytest.mark.parametrize(("rule", "rate", "warmup"), [("linear", 0.9, 20), ("sqrt", 0.3, 20), ("none", 0.1, 0)])
def test_the_rules_at_nine_gpus(rule, rate, warmup):
    found = plan("weak", 9, scaling={"rule": rule})
    assert found.learning_rate == pytest.approx(rate)
    assert (found.updates_per_epoch, found.warmup_updates) == (4, warmup)  # 1000 / 216 = 4.6


def test_adam_sde_at_four_gpus():
    found = plan("weak", 4, scaling={"rule": "adam-sde"}, optimizer=ADAM)
    assert found.learning_rate == 0.2  # 0.1 sqrt(4)
    assert found.optimizer == {"betas": [0.6, 0.96], "eps": 5e-7}  # 1 - 4 (1 - 0.9), 1 - 4 (1 - 0.99), 1e-6 / sqrt(4)
    assert (found.rule, found.warmup_updates) == ("adam-sde", 50)  # 5 (1000 // 96)


def test_adam_sde_reads_deepspeeds_defaults():
    found = plan("weak", 9, scaling={"rule": "adam-sde"}, optimizer={"type": "AdamW", "params": {"lr": 0.1}})
    assert found.learning_rate == pytest.approx(0.3)
    assert found.optimizer["betas"] == [0.1, 0.991]  # 1 - 9 x 0.1, 1 - 9 x 0.001
    assert found.optimizer["eps"] == pytest.approx(1e-8 / 3)


def test_adascale_keeps_the_sequential_rate_and_schedule_for_its_gain():
    found = plan("weak", 4, scaling={"rule": "adascale"}, scheduler=COSINE)
    assert (found.learning_rate, found.warmup_updates, found.optimizer) == (0.1, 0, {})
    assert found.scheduler == COSINE  # in sequential updates: it is read at the progress
    assert (found.updates, found.sequential_updates) == (100, 410)  # 10 (1000 // 96), 10 (1000 // 24)


@pytest.mark.parametrize("rule", ["none", "linear", "sqrt", "adascale", "adam-sde"])
def test_every_rule_at_equal_epochs_and_at_equal_updates(rule):
    optimizer = {"optimizer": ADAM} if rule == "adam-sde" else {}
    epochs = plan("weak", 8, scaling={"rule": rule}, **optimizer)
    assert (epochs.updates, epochs.sequential_updates, epochs.rule) == (50, 410, rule)  # 10 (1000 // 192)
    updates = plan("weak", 8, scaling={"rule": rule}, budget={"updates": 410}, **optimizer)
    assert (updates.updates, updates.sequential_updates) == (410, 410)
    assert updates.learning_rate == epochs.learning_rate and updates.optimizer == epochs.optimizer
    warm = {"none": 0, "adascale": 0}.get(rule, 25)  # 5 (1000 // 192)
    assert updates.warmup_updates == epochs.warmup_updates == warm
    strong = plan("strong", 4, scaling={"rule": rule}, **optimizer)
    assert (strong.rule, strong.learning_rate, strong.optimizer) == ("none", 0.1, {})


@pytest.mark.parametrize(
    ("rule", "gpus", "change", "message"),
    [
        ("adam-sde", 10, {"optimizer": ADAM}, "makes beta1 1 - 10 x (1 - 0.9) = 0 at 10 GPUs, and it must stay above"),
        ("adam-sde", 10, {"optimizer": ADAM}, "the rule reaches to 9 GPUs here"),
        ("adam-sde", 4, {"optimizer": {"type": "Adam", "params": {"lr": 1.0, "betas": [0.99, 0.7]}}},
         "makes beta2 1 - 4 x (1 - 0.7) = -0.2 at 4 GPUs, and it must stay above 0; the rule reaches to 3 GPUs here"),
        ("adam-sde", 2, {}, "adam-sde is for Adam and AdamW, not for SGD"),
        ("adascale", 2, {"optimizer": ADAM}, "adascale is for SGD, not for Adam"),
        ("adascale", 2, {"scaling": {"exact": False}}, "cannot here: dsr.scaling.exact is off"),
        ("adascale", 2, {"zero_optimization": {"stage": 3}}, "cannot here: ZeRO stage 3 shards the weights"),
        ("adascale", 2, {"own": "LARS"}, "adascale is for SGD, not for LARS"),
        ("adam-sde", 2, {"own": "LAMB", "optimizer": ADAM}, "adam-sde is for Adam and AdamW, not for LAMB"),
    ],
)  # fmt: skip
def test_a_rule_that_does_not_apply_is_refused_with_its_reason(rule, gpus, change, message):
    scaling = {"rule": rule, **change.pop("scaling", {})}
    with pytest.raises(UserError) as caught:
        plan("weak", gpus, scaling=scaling, **change)
    assert message in str(caught.value)


GROWTH = {"growth": {"epochs": [4, 8], "factor": 2}, "rule": "none"}


def test_growth_by_hand():
    found = plan("sequential", 1, scaling=GROWTH)
    # 1000 // 24 = 41 updates an epoch for 4 epochs, 1000 // 48 = 20 for 4, 1000 // 96 = 10 for the last 2
    assert found.phases == [
        {"update": 0, "epoch": 0, "slots": 12, "effective_batch": 24, "updates_per_epoch": 41},
        {"update": 164, "epoch": 4, "slots": 24, "effective_batch": 48, "updates_per_epoch": 20},
        {"update": 244, "epoch": 8, "slots": 48, "effective_batch": 96, "updates_per_epoch": 10},
    ]
    assert (found.updates, found.slots, found.effective_batch, found.learning_rate) == (264, 12, 24, 0.1)
    assert [found.phase(update).slots for update in (0, 163, 164, 243, 244, 263)] == [12, 12, 24, 24, 48, 48]
    assert [found.samples_seen(n) for n in (0, 164, 165, 264)] == [0, 164 * 24, 164 * 24 + 48, 3936 + 3840 + 1920]
    assert [found.epochs(n) for n in (41, 164, 184, 264)] == [1, 4, 5, 10]


def test_growth_in_weak_scaling_and_at_equal_updates():
    found = plan("weak", 2, scaling=GROWTH)
    assert [(p["update"], p["slots"]) for p in found.phases] == [(0, 24), (80, 48), (120, 96)]
    assert (found.updates, found.sequential_updates) == (130, 264)  # 4 x 20 + 4 x 10 + 2 x 5
    equal = plan("weak", 2, scaling=GROWTH, budget={"updates": 264})
    assert (equal.updates, equal.phases) == (264, found.phases)
    strong = plan("strong", 4, scaling=GROWTH)
    assert strong.phases == plan("sequential", 1, scaling=GROWTH).phases


@pytest.mark.parametrize(
    ("mode", "gpus", "change", "message"),
    [
        ("sequential", 1, {"budget": {"epochs": 8}}, "epoch 8 ends with update 244, and the run has no more than 244"),
        ("sequential", 1, {"budget": {"updates": 200}}, "epoch 8 ends with update 244, and the run has no more than"),
        (
            "weak",
            11,
            {},
            "makes an effective batch of 1056 samples after epoch 8, larger than the training set of 1000",
        ),
    ],
)
def test_growth_that_cannot_be_is_refused(mode, gpus, change, message):
    with pytest.raises(UserError) as caught:
        plan(mode, gpus, scaling=GROWTH, **change)
    assert message in str(caught.value)


def test_an_update_budget_is_the_same_in_every_mode():
    for mode, gpus in (("sequential", 1), ("strong", 4), ("weak", 4)):
        assert plan(mode, gpus, budget={"updates": 77}).updates == 77


def test_the_warm_up_is_no_longer_than_the_run_and_may_be_a_part_of_an_epoch():
    assert plan("weak", 4, budget={"updates": 7}).warmup_updates == 7
    assert plan("weak", 4, scaling={"warmup_epochs": 0.5}).warmup_updates == 5  # 1000 // 96 = 10 an epoch
    assert plan("weak", 4, scaling={"warmup_epochs": 0}).warmup_updates == 0


@pytest.mark.parametrize(
    ("mode", "gpus", "available", "devices"),
    [("strong", 12, 2, 2), ("strong", 12, 5, 4), ("strong", 6, 1, 1), ("weak", 32, 2, 2), ("weak", 5, 7, 5)],
)
def test_fewer_devices_rehearse_on_the_largest_number_that_divides(mode, gpus, available, devices):
    found = plan(mode, gpus, available=available)
    assert (found.devices, found.rehearsal) == (devices, devices < gpus)
    assert found.slots_per_device * devices == found.slots
    full = plan(mode, gpus)
    ignored = {"devices", "rehearsal"}
    assert {k: v for k, v in asdict(found).items() if k not in ignored} == {
        k: v for k, v in asdict(full).items() if k not in ignored
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("strong", 13), "at most 12 GPUs fit, not 13"),
        (("strong", 5), "5 GPUs do not divide the 12 slots; the nearest that do are 4 and 6"),
        (("strong", 0), "--gpus 0: must be at least 1"),
        (("sequential", 2), "--mode sequential is one GPU; for 2 GPUs choose strong or weak"),
        (("sequential", 1, 23), "an effective batch of 24 samples is larger than the training set of 23; lower"),
        (("weak", 5, 100), "batch of 120 samples is larger than the training set of 100; weak scaling fits at most 4"),
        (("strong", 12, 1000, 64, 5), "--devices 5 does not divide the 12 slots; 1, 2, 3, 4, 6, 12 do"),
        (("strong", 2, 1000, 64, 4), "--devices 4 is more than --gpus 2"),
        (("strong", 2, 1000, 64, -1), "--devices -1: must be at least 1"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_its_reason(arguments, message):
    with pytest.raises(UserError) as caught:
        plan(*arguments)
    assert message in str(caught.value)


def test_exactly_as_many_samples_as_the_batch_are_enough():
    assert plan("sequential", 1, 24).updates_per_epoch == 1
    assert plan("weak", 4, 96).updates_per_epoch == 1


def test_cells_hold_plans_and_reasons():
    found = {(cell["mode"], cell["gpus"]): cell for cell in cells(experiment(), 100, [1, 4, 5])}
    assert set(found) == {("sequential", 1), *((mode, n) for mode in ("strong", "weak") for n in (1, 4, 5))}
    assert "nearest" in found["strong", 5]["reason"] and "at most 4" in found["weak", 5]["reason"]
    assert found["strong", 4]["devices"] == 4


def test_plan_json_round_trips():
    found = plan("weak", 4)
    assert type(found)(**json.loads(json.dumps(asdict(found)))) == found


# ---- the scheduler, played by DeepSpeed's own classes


@pytest.mark.slow
def test_without_a_scheduler_the_rate_warms_up_from_the_sequential_to_the_rules():
    found = plan("weak", 4)  # 50 updates of warm-up, from 0.1 to 0.4
    rates = played(found, 60)
    assert rates[:50] == pytest.approx([0.1 + 0.3 * step / 50 for step in range(50)])
    assert rates[50:] == pytest.approx([0.4] * 10)
    assert plan("weak", 4, scaling={"warmup_epochs": 0}).scheduler is None
    assert plan("weak", 1).scheduler is plan("strong", 4).scheduler is None


def test_a_warm_up_of_one_update_is_allowed():
    assert played(plan("weak", 4, 96, scaling={"warmup_epochs": 1}), 5)[-1] == pytest.approx(0.4)


def test_warmup_lr():
    assert plan("strong", 4, scheduler=WARMUP).scheduler == WARMUP
    assert plan("weak", 1, scheduler=WARMUP).scheduler == WARMUP
    rates = played(plan("weak", 4, scheduler=WARMUP), 60)
    assert rates[0] == pytest.approx(0.2)
    assert rates[25] == pytest.approx(0.2 + 0.6 * 25 / 50)
    assert rates[50:] == pytest.approx([0.8] * 10)


def test_without_a_rule_the_users_own_warm_up_is_as_long_in_samples():
    found = plan("weak", 4, scheduler=WARMUP, scaling={"rule": "none"})
    assert found.scheduler["params"] == {"warmup_num_steps": 10, "warmup_max_lr": 0.2}
    equal_updates = plan("weak", 4, scheduler=WARMUP, scaling={"rule": "none"}, budget={"updates": 99})
    assert equal_updates.scheduler == WARMUP


@pytest.mark.parametrize(("budget", "total"), [({"epochs": 10}, 100), ({"updates": 410}, 410)])
def test_warmup_cosine_lr(budget, total):
    found = plan("weak", 4, scheduler=COSINE, budget=budget)
    assert found.scheduler["params"]["total_num_steps"] == total  # as many as the run has: 10 in an epoch, of 10.25
    assert found.updates == total
    rates = played(found, total + 1)
    assert rates[0] == pytest.approx(0.1)
    assert rates[25] == pytest.approx(0.1 + 0.3 * 25 / 50)
    assert played(plan("strong", 4, scheduler=COSINE), 2, COSINE)[0] == 0  # as DeepSpeed plays the user's own
    assert max(rates) == pytest.approx(0.4, rel=2e-3)  # its cosine begins one step down
    assert rates[-1] == pytest.approx(0.004)


@pytest.mark.parametrize(("budget", "total"), [({"epochs": 10}, 98), ({"updates": 400}, 400)])
def test_warmup_decay_lr_ends_where_the_sequential_run_ends(budget, total):
    # WarmupDecayLR has one minimum for both ends: the end, at 0, is kept, so the warm-up starts from there too
    found = plan("weak", 4, scheduler=DECAY, budget=budget)
    rates = played(found, total + 1)
    assert max(rates) == pytest.approx(0.4)
    assert rates[25] == pytest.approx(0.4 * 25 / 50)
    assert rates[50] == pytest.approx(0.4)
    assert rates[(50 + total) // 2] == pytest.approx(0.2)
    assert rates[-1] == 0


def test_the_peak_that_deepspeed_takes_where_none_is_given():
    """WarmupLR takes the optimizer's rate, WarmupDecayLR 0.001."""
    for name, peak in (("WarmupLR", 0.1), ("WarmupDecayLR", 0.001)):
        user = {"type": name, "params": {"warmup_num_steps": 20}}
        if name == "WarmupDecayLR":
            user["params"]["total_num_steps"] = 400
        assert max(played(plan("sequential", 1, scheduler=user), 100)) == pytest.approx(peak)
        assert max(played(plan("weak", 4, scheduler=user), 100)) == pytest.approx(4 * peak)


@pytest.mark.parametrize("scheduler", [None, WARMUP, COSINE, DECAY])
def test_adascale_reads_the_sequential_schedule_at_its_progress(scheduler):
    """At a gain of 1 it is the sequential run; at 3 it is three times its rate at every third update."""
    from types import SimpleNamespace

    import torch
    from deepspeed.runtime import lr_schedules

    from dsr.train.engine import set_rate

    change = {"scheduler": scheduler} if scheduler else {}
    found = plan("weak", 4, scaling={"rule": "adascale"}, **change)
    sequential = played(plan("sequential", 1, **change), 450)
    for gain in (1, 3):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=found.optimizer_rate)
        kind = getattr(lr_schedules, scheduler["type"]) if scheduler else None
        schedule = kind(optimizer, **found.scheduler["params"]) if kind else None
        engine = SimpleNamespace(optimizer=optimizer, lr_scheduler=schedule)
        rates = []
        for update in range(450 // gain):
            set_rate(engine, found, float(update * gain), float(gain))
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            if schedule:
                schedule.step()
        assert rates == pytest.approx([gain * rate for rate in sequential[::gain]], rel=1e-12)


# ---- what the engine gets


def test_deepspeeds_part_for_real_ranks_and_for_a_rehearsal():
    given = experiment(gradient_clipping=0.5)
    real = deepspeed_config(given, make_plan(given, mode="weak", gpus=4, samples=1000, available=4))
    assert (real["gradient_accumulation_steps"], real["train_batch_size"]) == (12, 96)
    assert real["optimizer"]["params"]["lr"] == pytest.approx(0.4)
    assert real["gradient_clipping"] == 0 and "0.5" in real["dsr"]["changed"]["gradient_clipping"]
    fused = "optimizer.params.fused"
    assert set(real["dsr"]["changed"]) == {"optimizer.params.lr", fused, "scheduler", "gradient_clipping", "timers"}
    rehearsed = deepspeed_config(given, make_plan(given, mode="weak", gpus=4, samples=1000, available=2))
    assert (rehearsed["gradient_accumulation_steps"], rehearsed["train_batch_size"]) == (24, 96)
    assert given.deepspeed["optimizer"]["params"]["lr"] == 0.1  # the user's part is left alone


def test_stock_clipping_stays_with_deepspeed():
    given = experiment(gradient_clipping=0.5, scaling={"exact": False})
    part = deepspeed_config(given, make_plan(given, mode="strong", gpus=4, samples=1000, available=4))
    assert part["gradient_clipping"] == 0.5 and "gradient_clipping" not in part["dsr"]["changed"]


def test_what_a_rule_or_an_own_optimizer_changes_is_written_and_said():
    given = experiment(optimizer=ADAM, scaling={"rule": "adam-sde", "warmup_epochs": 0})
    part = deepspeed_config(given, make_plan(given, mode="weak", gpus=4, samples=1000, available=4))
    expected = {"lr": 0.2, "betas": [0.6, 0.96], "eps": 5e-7, "torch_adam": True, "fused": True}
    assert part["optimizer"] == {"type": "Adam", "params": expected}
    named = {"optimizer.params.lr", "optimizer.params.betas", "optimizer.params.eps"}
    assert named <= set(part["dsr"]["changed"])
    given = experiment(optimizer=ADAM, own="LAMB")
    part = deepspeed_config(given, make_plan(given, mode="strong", gpus=4, samples=1000, available=4))
    assert part["optimizer"] == ADAM
    assert part["dsr"]["changed"]["optimizer.type"].startswith("LAMB of dsr")


def test_adam_is_torchs_unless_the_user_says_otherwise():
    for params, expected in (({"lr": 0.1}, True), ({"lr": 0.1, "torch_adam": False}, False)):
        given = experiment(optimizer={"type": "Adam", "params": params})
        part = deepspeed_config(given, make_plan(given, mode="sequential", gpus=1, samples=1000, available=1))
        assert part["optimizer"]["params"]["torch_adam"] is expected
        assert ("fused" in part["optimizer"]["params"]) is expected  # DeepSpeed's own Adam knows no such setting


ROOMS = ["plan", "table", "deepspeed_config", "auto", "rules", "schedule", "speed", "tree", "noise"]


def test_a_plan_needs_neither_torch_nor_deepspeed_nor_numpy():
    imports = ", ".join(f"dsr.scaling.{name}" for name in ROOMS)
    code = f"import sys, {imports}; print([m for m in ('torch', 'deepspeed', 'numpy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_the_command_plan_loads_neither_torch_nor_deepspeed(tiny_store):
    code = "import sys; from dsr import cli; cli.main(sys.argv[1:], standalone_mode=False); "
    code += "print([m for m in ('torch', 'deepspeed') if m in sys.modules])"
    line = [sys.executable, "-c", code, "plan", "--data", str(tiny_store), "--gpus", "1,2"]
    answer = subprocess.run(line, capture_output=True, text=True)
    assert answer.stdout.splitlines()[-1] == "[]", answer.stderr


# auto


def auto(gpus, slots=24, noise=48.0, **change):
    record = {"slots": slots, "noise_scale": noise}
    return make_plan(experiment(**change), mode="auto", gpus=gpus, samples=1000, available=64, auto=record)


def test_auto_by_hand():
    # 48 samples an update in place of 24, at a noise scale of 48: worth (1 + 48/24) / (1 + 48/48) = 1.5 updates
    found = auto(8)
    assert (found.slots, found.effective_batch, found.accumulation, found.updates_per_epoch) == (24, 48, 3, 20)
    assert (found.rule, found.warmup_updates) == ("noise-scale", 0)
    assert found.learning_rate == pytest.approx(0.15)  # SGD: by the worth
    assert (found.updates, found.sequential_updates) == (273, 410)  # 410 / 1.5
    assert auto(8, budget={"updates": 300}).updates == 200
    adam = auto(8, optimizer={"type": "Adam", "params": {"lr": 0.1}})
    assert adam.learning_rate == pytest.approx(0.1 * 1.5**0.5)


def test_auto_shrinks_the_schedule_with_the_updates():
    scheduler = {"type": "WarmupCosineLR", "params": {"total_num_steps": 410, "warmup_num_steps": 30}}
    found = auto(1, scheduler=scheduler)
    assert found.scheduler == {"type": "WarmupCosineLR", "params": {"total_num_steps": 273, "warmup_num_steps": 20}}
    said = deepspeed_config(experiment(scheduler=scheduler), found)["dsr"]["changed"]
    assert said["optimizer.params.lr"] == "noise-scale rule from 0.1 for 48 samples an update"


@pytest.mark.parametrize("noise", [None, 3.0])
def test_auto_with_the_configs_own_batch_is_strong_scaling(noise):
    ours, strong = asdict(auto(4, slots=12, noise=noise)), asdict(plan("strong", 4))
    assert ours == {**strong, "mode": "auto", "auto": {"slots": 12, "noise_scale": noise}}


@pytest.mark.parametrize(
    ("gpus", "available", "devices", "ranks"),
    [(32, 64, 0, 12), (32, 5, 0, 4), (3, 64, 0, 3), (32, 2, 8, 6), (32, 1, 0, 1)],
)
def test_a_probe_plays_the_sequential_batch_on_real_devices_only(gpus, available, devices, ranks):
    found = plan("probe", gpus, available=available, devices=devices)
    assert (found.gpus, found.devices, found.rehearsal) == (ranks, ranks, False)
    assert (found.effective_batch, found.learning_rate, found.updates) == (24, 0.1, 41)  # a tenth of 410


def test_auto_takes_no_growing_batch():
    with pytest.raises(UserError, match=r"leave out dsr\.scaling\.growth"):
        plan("probe", 1, scaling={"growth": {"epochs": [5]}})
