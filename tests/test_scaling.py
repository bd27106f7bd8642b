"""The Plan by hand, what cannot be, and the rates that DeepSpeed's own schedulers play from it."""

import json
import subprocess
import sys
from dataclasses import asdict

import pytest

from dsr.config import validate
from dsr.errors import UserError
from dsr.scaling import deepspeed_config, make_plan, plan_cells


def experiment(**change):
    """Micro-batch 2, 12 slots, a rate of 0.1, 10 epochs, warm-up of 5."""
    dsr = {"budget": change.pop("budget", {"epochs": 10}), "scaling": change.pop("scaling", {})}
    values = {
        "train_micro_batch_size_per_gpu": 2,
        "gradient_accumulation_steps": 12,
        "optimizer": {"type": "SGD", "params": {"lr": 0.1}},
        **change,
    }
    return validate({**values, "dsr": dsr}, "test")


def plan(mode, gpus, samples=1000, available=64, devices=0, **change):
    return make_plan(experiment(**change), mode=mode, gpus=gpus, samples=samples, available=available, devices=devices)


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
        "rule": "none",
        "warmup_updates": 0,
        "samples": 1000,
        "updates_per_epoch": 41,  # 1000 / 24 = 41.67
        "updates": 410,
        "scheduler": None,
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
    cells = {(mode, gpus): cell for mode, gpus, cell in plan_cells(experiment(), [1, 4, 5], 100)}
    assert set(cells) == {("sequential", 1), *((mode, n) for mode in ("strong", "weak") for n in (1, 4, 5))}
    assert "nearest" in cells["strong", 5] and "at most 4" in cells["weak", 5]
    assert cells["strong", 4].devices == 4


def test_plan_json_round_trips():
    found = plan("weak", 4)
    assert type(found)(**json.loads(json.dumps(asdict(found)))) == found


# ---- the scheduler, played by DeepSpeed's own classes


def played(found, count):
    """The rates of the first `count` updates: DeepSpeed steps the scheduler after each optimizer step."""
    import torch
    from deepspeed.runtime import lr_schedules

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=found.learning_rate)
    if found.scheduler is None:
        return [found.learning_rate] * count
    scheduler = getattr(lr_schedules, found.scheduler["type"])(optimizer, **found.scheduler["params"])
    rates = []
    for _ in range(count):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_without_a_scheduler_the_rate_warms_up_from_the_sequential_to_the_rules():
    found = plan("weak", 4)  # 50 updates of warm-up, from 0.1 to 0.4; DeepSpeed plays the first value twice
    rates = played(found, 60)
    expected = [0.1, *(0.1 + 0.3 * step / 50 for step in range(50))]
    assert rates[:51] == pytest.approx(expected)
    assert rates[51:] == pytest.approx([0.4] * 9)
    assert plan("weak", 4, scaling={"warmup_epochs": 0}).scheduler is None
    assert plan("weak", 1).scheduler is plan("strong", 4).scheduler is None


def test_a_warm_up_of_one_update_is_allowed():
    assert played(plan("weak", 4, 96, scaling={"warmup_epochs": 1}), 5)[-1] == pytest.approx(0.4)


WARMUP = {"type": "WarmupLR", "params": {"warmup_num_steps": 40, "warmup_max_lr": 0.2}}


def test_warmup_lr():
    assert plan("strong", 4, scheduler=WARMUP).scheduler == WARMUP
    assert plan("weak", 1, scheduler=WARMUP).scheduler == WARMUP
    rates = played(plan("weak", 4, scheduler=WARMUP), 60)
    assert rates[:2] == pytest.approx([0.2, 0.2])
    assert rates[26] == pytest.approx(0.2 + 0.6 * 25 / 50)
    assert rates[51:] == pytest.approx([0.8] * 9)


def test_without_a_rule_the_users_own_warm_up_is_as_long_in_samples():
    found = plan("weak", 4, scheduler=WARMUP, scaling={"rule": "none"})
    assert found.scheduler["params"] == {"warmup_num_steps": 10, "warmup_max_lr": 0.2}
    equal_updates = plan("weak", 4, scheduler=WARMUP, scaling={"rule": "none"}, budget={"updates": 99})
    assert equal_updates.scheduler == WARMUP


COSINE = {"type": "WarmupCosineLR", "params": {"total_num_steps": 410, "warmup_num_steps": 20, "cos_min_ratio": 0.01}}


@pytest.mark.parametrize(("budget", "total"), [({"epochs": 10}, 102), ({"updates": 410}, 410)])
def test_warmup_cosine_lr(budget, total):
    found = plan("weak", 4, scheduler=COSINE, budget=budget)
    assert found.scheduler["params"]["total_num_steps"] == total  # 410 / 4 = 102.5, half to even
    rates = played(found, total + 2)
    assert rates[:2] == [0, pytest.approx(0.1)]  # WarmupCosineLR plays a rate of 0 first, whatever its minimum
    assert rates[26] == pytest.approx(0.1 + 0.3 * 25 / 50)
    assert max(rates) == pytest.approx(0.4, rel=2e-3)  # its cosine begins one step down
    assert rates[-1] == pytest.approx(0.004)


DECAY = {"type": "WarmupDecayLR", "params": {"total_num_steps": 400, "warmup_num_steps": 20, "warmup_max_lr": 0.1}}


@pytest.mark.parametrize(("budget", "total"), [({"epochs": 10}, 100), ({"updates": 400}, 400)])
def test_warmup_decay_lr_ends_where_the_sequential_run_ends(budget, total):
    # WarmupDecayLR has one minimum for both ends: the end, at 0, is kept, so the warm-up starts from there too
    found = plan("weak", 4, scheduler=DECAY, budget=budget)
    rates = played(found, total + 2)
    assert max(rates) == pytest.approx(0.4)
    assert rates[26] == pytest.approx(0.4 * 25 / 50)
    assert rates[51] == pytest.approx(0.4)
    assert rates[1 + (50 + total) // 2] == pytest.approx(0.2)
    assert rates[-1] == 0


def test_the_peak_that_deepspeed_takes_where_none_is_given():
    """WarmupLR takes the optimizer's rate, WarmupDecayLR 0.001."""
    for name, peak in (("WarmupLR", 0.1), ("WarmupDecayLR", 0.001)):
        user = {"type": name, "params": {"warmup_num_steps": 20}}
        if name == "WarmupDecayLR":
            user["params"]["total_num_steps"] = 400
        assert max(played(plan("sequential", 1, scheduler=user), 100)) == pytest.approx(peak)
        assert max(played(plan("weak", 4, scheduler=user), 100)) == pytest.approx(4 * peak)


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


def test_adam_is_torchs_unless_the_user_says_otherwise():
    for params, expected in (({"lr": 0.1}, True), ({"lr": 0.1, "torch_adam": False}, False)):
        given = experiment(optimizer={"type": "Adam", "params": params})
        part = deepspeed_config(given, make_plan(given, mode="sequential", gpus=1, samples=1000, available=1))
        assert part["optimizer"]["params"]["torch_adam"] is expected
        assert ("fused" in part["optimizer"]["params"]) is expected  # DeepSpeed's own Adam knows no such setting


def test_a_plan_needs_neither_torch_nor_deepspeed_nor_numpy():
    code = "import sys, dsr.scaling; print([m for m in ('torch', 'deepspeed', 'numpy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
