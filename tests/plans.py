"""Small experiments and their plans, for tests of everything that a plan decides."""

from dsr.config import validate
from dsr.scaling.plan import make_plan

ADAM = {"type": "Adam", "params": {"lr": 0.1, "betas": [0.9, 0.99], "eps": 1e-6}}
WARMUP = {"type": "WarmupLR", "params": {"warmup_num_steps": 40, "warmup_max_lr": 0.2}}
COSINE = {"type": "WarmupCosineLR", "params": {"total_num_steps": 410, "warmup_num_steps": 20, "cos_min_ratio": 0.01}}
DECAY = {"type": "WarmupDecayLR", "params": {"total_num_steps": 400, "warmup_num_steps": 20, "warmup_max_lr": 0.1}}


def experiment(**change):
    """Micro-batch 2, 12 slots, a rate of 0.1, 10 epochs, warm-up of 5."""
    dsr = {"budget": change.pop("budget", {"epochs": 10}), "scaling": change.pop("scaling", {})}
    if "own" in change:
        dsr["optimizer"] = {"type": change.pop("own")}
    values = {
        "train_micro_batch_size_per_gpu": 2,
        "gradient_accumulation_steps": 12,
        "optimizer": {"type": "SGD", "params": {"lr": 0.1}},
        **change,
    }
    return validate({**values, "dsr": dsr}, "test")


def plan(mode, gpus, samples=1000, available=64, devices=0, **change):
    return make_plan(experiment(**change), mode=mode, gpus=gpus, samples=samples, available=available, devices=devices)


def played(plan, count, user=None):
    """The rates of the first `count` updates, by DeepSpeed's own scheduler, which steps after each optimizer step."""
    import torch
    from deepspeed.runtime import lr_schedules

    from dsr.train.engine import begin_schedule

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=plan.optimizer_rate)
    if plan.scheduler is None:
        return [plan.optimizer_rate] * count
    scheduler = getattr(lr_schedules, plan.scheduler["type"])(optimizer, **plan.scheduler["params"])
    if plan.scheduler != user:
        begin_schedule(scheduler)
    rates = []
    for _ in range(count):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates
