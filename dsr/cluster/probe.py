"""The probe of `--mode auto`: the run's own first updates, which measure what the choice depends on.

The probe uses the config's own batch, in strong scaling on the available devices; `Plan.updates` is its length.
"""

from __future__ import annotations

import math
from statistics import median
from typing import TYPE_CHECKING

from dsr.config import validate
from dsr.scaling.auto import Measured
from dsr.scaling.speed import Wires

if TYPE_CHECKING:
    from pathlib import Path

    from dsr.config import Experiment
    from dsr.run import Run
    from dsr.scaling.plan import Plan


def experiment_of(experiment: Experiment, plan: Plan) -> Experiment:
    """The probe's experiment: it logs every update, and validates and saves at its end only."""
    values = experiment.resolved()
    once = {"every": plan.updates}
    changed = {"log": {"every": 1}, "validation": once, "checkpoint": once}
    return validate({**values, "dsr": {**values["dsr"], **changed}}, "the probe")


def measured(run: Run, plan: Plan) -> Measured:
    """What a finished probe has measured."""
    from safetensors import safe_open

    logged = run.logged()
    lines = [record for record in logged if "loss" in record]
    wires = [record["wires"] for record in logged if "wires" in record]
    with safe_open(run.model / "model.safetensors", "numpy") as file:
        shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
    seconds = [plan.effective_batch / line["samples_per_second"] for line in lines]
    return Measured(
        updates=plan.updates,
        of=plan.sequential_updates,
        noise_scale=lines[-1]["noise_scale"],
        noise_interval=lines[-1]["noise_scale_interval"],
        ranks=plan.devices,
        update_seconds=median(seconds[1:] or seconds),  # the first update includes warming up
        parameters=sum(math.prod(shape) for shape in shapes),
        wires=Wires(**wires[0]) if wires else Wires(),
        wires_timed=bool(wires),
    )


def announcement(plan: Plan, folder: Path) -> str:
    """One line that says what the probe runs on, where, and what it measures."""
    ranks = f"{plan.devices} real ranks" if plan.devices > 1 else "one device"
    timed = ", the time of a slot and of messages between two ranks" if plan.devices > 1 else " and the time of a slot"
    return (
        f"auto: first a probe on {ranks}, the run's first {plan.updates} updates with the config's batch of "
        f"{plan.effective_batch}, in {folder} (removed afterwards). It measures the noise scale{timed}, from which the "
        "batch and the number of GPUs follow"
    )
