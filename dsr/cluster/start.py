"""`dsr launch`: from what the user gave to a plan, and from the plan to a run that has ended."""

from __future__ import annotations

import dataclasses
import functools
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsr.cluster import probe, processes
from dsr.cluster.devices import CUDA, find_devices
from dsr.cluster.ended import FAILED, FINISHED, conclude, reason, say, signal_of
from dsr.cluster.processes import GRACE, THREADS
from dsr.cluster.resume import TOLERANCE, check_resume, chosen_by_auto, read_plan
from dsr.components import packages
from dsr.errors import UserError
from dsr.files import write_json
from dsr.run import Run, last_words
from dsr.run.lock import clear, hold
from dsr.run.provenance import environment
from dsr.scaling import schedule
from dsr.scaling.auto import choose, reasons, record
from dsr.scaling.deepspeed_config import deepspeed_config
from dsr.scaling.plan import make_plan
from dsr.task import Task, resolve

if TYPE_CHECKING:
    from collections.abc import Callable

    from dsr.cluster.devices import Devices
    from dsr.config import Experiment
    from dsr.scaling.plan import Plan

PORT_TRIES = 3


def start(
    config: Path | None = None,
    *,
    overrides: Sequence[str] = (),
    store: str | None = None,
    mode: str | None = None,
    gpus: int | None = None,
    run_dir: Path | None = None,
    devices: int = 0,
    strict: bool = False,
    hostfile: Path | None = None,
    launcher: str = "",
    launcher_args: str = "",
    include: str = "",
    exclude: str = "",
    resume: bool = False,
    force: bool = False,
    dry_run: bool = False,
) -> int:
    """Find the devices, plan, and train in a run's folder, or (`dry_run`) print what would be done.

    `overrides` are "KEY=VALUE" texts, `devices` is the number to use (0: as many as fit), and `run_dir` is by default
    runs/CONFIG-MODE-GPUS. The other arguments are the options of `dsr launch`. With `resume` and no config the run's
    own experiment goes on, in its mode and, if none is given, on as many GPUs. Mode auto first plays a probe, and goes
    on with the choice that follows from it; resumed, with the choice of then.

    Returns the exit code: 0 finished, 75 stopped after saving, 1 failed. Raises UserError, with nothing started or
    written, if what was given is wrong.
    """
    named = config is not None or not resume  # the user named the config, and not only the folder of a run
    if resume and config is None:
        if run_dir is None:
            raise UserError("--resume needs --run-dir: which run is to go on")
        before, config = read_plan(Run(run_dir)), Run(run_dir).experiment
        mode, gpus = mode or before["mode"], gpus or before["gpus"]
    mode = mode or "strong"
    task = resolve(config, tuple(overrides), store, named=named)
    available = find_devices(hostfile, launcher, include, exclude, launcher_args)
    if gpus is None:
        gpus = 1 if mode != "auto" else devices or available.count
    run = Run(run_dir or Path("runs", f"{config.stem if config else 'default'}-{mode}-{gpus}"))
    planned = functools.partial(plan_run, task.experiment, available, samples=task.samples, use=devices, strict=strict)
    if mode != "auto":
        plan = planned(mode=mode, gpus=gpus)
    elif resume:
        plan = planned(mode=mode, **chosen_by_auto(run, gpus))
    else:
        plan = planned(mode="probe", gpus=gpus)
    if dry_run:
        if plan.mode == "probe":
            run = _probe_run(run)
            print(probe.announcement(plan, run.folder) + ". The probe:\n")
        print(describe(task, plan, available, run))
        return FINISHED
    if resume and (note := check_resume(run, task, plan, available.model, force=force)):
        say(note)
    _check_launcher(available)
    with hold(run.folder, resume=resume, force=force), processes.stop_signals() as stop:
        if plan.mode == "probe":
            choice = _choose(task, plan, available, run, planned, stop, most=gpus)
            if choice is None:
                return FAILED
            plan = choice
        if not resume:
            clear(run)
        return conclude(run, train(run, task, plan, available, stop))


def plan_run(
    experiment: Experiment,
    devices: Devices,
    *,
    mode: str,
    gpus: int,
    samples: int,
    use: int = 0,
    strict: bool = False,
    auto: dict[str, Any] | None = None,
) -> Plan:
    """The plan for `gpus` GPUs on these devices (or on `use` of them). Raises UserError for what cannot be.

    On this host alone fewer devices than GPUs mean a rehearsal, which `strict` refuses. A hostfile or an allocation
    must have all of them, unless `use` says how many to take.
    """
    if not use and devices.count < gpus and (strict or devices.given):
        where = "the hostfile or allocation has" if devices.given else "this host has"
        advice = "" if strict else f"; --devices {devices.count} rehearses on those"
        raise UserError(f"{gpus} GPUs asked, but {where} {devices}{advice}")
    if use > devices.count and (devices.given or devices.filtered or devices.kind == CUDA):
        raise UserError(f"--devices {use}: there are only {devices}")
    plan = make_plan(experiment, mode=mode, gpus=gpus, samples=samples, available=devices.count, devices=use, auto=auto)
    if strict and plan.rehearsal:
        raise UserError(f"--strict: {plan.devices} devices would rehearse {gpus} GPUs")
    devices.launcher.check(devices.first(plan.devices).hosts)
    return plan


def rehearsal(plan: Plan, devices: Devices) -> str:
    """One line that says that the run rehearses, and what it costs."""
    return (
        f"{plan.gpus} GPUs asked, {devices} here: rehearsing on {plan.devices}. Each plays {plan.slots_per_device} of "
        f"an update's {plan.slots} slots: the same arithmetic, about {plan.gpus / plan.devices:.3g} times the time of "
        f"{plan.gpus} such devices."
    )


def describe(task: Task, plan: Plan, devices: Devices, run: Run) -> str:
    """The plan, and the command, hostfile and variables that `train` would use. Starts and writes nothing.

    The command is the exact one; its port is one that is free at this moment.
    """
    port, used = processes.free_port(), devices.first(plan.devices)
    variables = processes.variables(used, port, task.experiment)
    sections = [
        [f"{key:18} {value}" for key, value in dataclasses.asdict(plan).items()],
        [rehearsal(plan, devices)] if plan.rehearsal else [],
        schedule.notes(task.experiment, plan),
        [shlex.join(processes.command(used, run, port))],
        [f"{run.hostfile}:", *used.hostfile().splitlines()],
        ["variables:", *(f"{key}={value}" for key, value in variables.items())],
    ]
    return "\n\n".join("\n".join(section) for section in sections if section)


def train(run: Run, task: Task, plan: Plan, devices: Devices, stop: list[int], *, grace: float = GRACE) -> str:
    """Train as planned, in a folder that the caller holds, until the run has ended as status.json then says.

    The run's processes are ours: the signals that `stop_signals` adds to `stop` reach every rank at once, what is left
    `grace` seconds later is killed, and so is all that is left when the launcher has ended. No process is alive at the
    end. Returns why the run failed, where status.json cannot be written; "" otherwise.
    """
    used = devices.first(plan.devices)
    if plan.rehearsal:
        say(rehearsal(plan, devices))
    for note in schedule.notes(task.experiment, plan):
        say(f"note: {note}")
    if not task.experiment.exact:
        say(f"not exact: {task.experiment.inexact}, so another number of GPUs gives other bits; {TOLERANCE}")
    _describe_in_folder(run, task, plan, used)
    for _ in range(PORT_TRIES):
        port = processes.free_port()
        code = processes.play(run, used, processes.variables(used, port, task.experiment), port, stop, grace)
        state = run.status()["state"]
        if state != "running" or stop or processes.is_free(port):
            break
        say(f"port {port} was taken by another program")
    if state == "running" or (state == "failed" and signal_of(code)):  # rank 0 knows only that it lost another rank
        words, stacks = last_words.read(run.last_words, plan.devices)
        if stacks:
            say(stacks)
        why = words or reason(code, stop, used.launcher)
        try:
            run.set_status("failed", why)
        except OSError as error:  # a full disk, say
            return f"{why}; status.json cannot be written ({error.strerror})"
    return ""


def _describe_in_folder(run: Run, task: Task, plan: Plan, used: Devices) -> None:
    """Write all that the ranks and later readers need to know of the run."""
    run.set_status("running")  # first: what follows belongs to a run
    resolved = task.experiment.resolved()
    resolved["dsr"]["data"]["store"] = task.store
    write_json(run.experiment, resolved)
    write_json(run.deepspeed, deepspeed_config(task.experiment, plan))
    write_json(run.plan, dataclasses.asdict(plan))
    outside = packages(task.experiment.dsr)
    write_json(run.environment, environment(str(used), used.model, THREADS, task.fingerprint, outside))
    run.hostfile.write_text(used.hostfile())


def _choose(
    task: Task,
    first: Plan,
    devices: Devices,
    run: Run,
    planned: Callable[..., Plan],
    stop: list[int],
    *,
    most: int,
) -> Plan | None:
    """Play the probe (plan `first`), and use `planned` for what it says for at most `most` GPUs; None if it failed."""
    place = _probe_run(run)
    say(probe.announcement(first, place.folder))
    shutil.rmtree(place.folder, ignore_errors=True)
    probed = dataclasses.replace(task, experiment=probe.experiment_of(task.experiment, first))
    try:
        with hold(place.folder):
            unwritten, status = train(place, probed, first, devices, stop), place.status()
        if status["state"] != "finished":
            state = "failed" if unwritten else status["state"]
            say(f"{state}: in auto's probe, so that the run has not begun: {unwritten or status['reason']}")
            return None
        measured = probe.measured(place, first)
    finally:
        shutil.rmtree(place.folder, ignore_errors=True)
    sizes = choose(task.experiment, measured, task.samples, most)
    kept = record(sizes, measured)
    plan = planned(mode="auto", gpus=sizes.gpus, auto=kept)
    why = reasons(task.experiment, plan, sizes, measured, most)
    say("\n".join(why))
    return dataclasses.replace(plan, auto={**kept, "why": why})


def _probe_run(run: Run) -> Run:
    folder = run.folder.absolute()
    return Run(folder.with_name(f".{folder.name}.probe"))


def _check_launcher(devices: Devices) -> None:
    program = devices.launcher.program
    if program and not shutil.which(program):
        raise UserError(f"--launcher {devices.launcher.name}: {program} is not installed")
