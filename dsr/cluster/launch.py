"""Plan -> the deepspeed launcher's command; owns the run's processes, and says truthfully how the run ended."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import functools
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from dsr import components
from dsr.cluster import probe
from dsr.config import read_json
from dsr.errors import UserError
from dsr.files import write_json
from dsr.run import Run, last_words, launches
from dsr.run.checkpoints import check_format
from dsr.run.lock import clear, hold
from dsr.run.provenance import changes, environment, processor
from dsr.scaling import auto, schedule
from dsr.scaling.deepspeed_config import deepspeed_config
from dsr.scaling.plan import FORMAT, make_plan
from dsr.task import Task, resolve

if TYPE_CHECKING:
    from dsr.config import Experiment
    from dsr.scaling.plan import Plan

TRAIN = "dsr.train"
CPU, CUDA = "CPU cores", "CUDA devices"
LAUNCHERS = {  # and the program by which DeepSpeed knows them
    **{"pdsh": "pdsh", "openmpi": "ompi_info", "slurm": "sinfo", "mpich": "mpirun", "impi": "mpirun"},
    "mvapich": "mpiname",
}
THREADS = 1  # a rank; another number gives other bits
GRACE = 25.0  # seconds from the wish to stop until what is left is killed; Slurm kills us too after 30
# Where bits cannot be the same: the largest norm of the weights' difference after 12 updates, relative to theirs.
CLOSE = {"float32": 1e-4, "bf16": 1e-2}
TOLERANCE = f"the weights agree to {CLOSE['float32']:g} of their norm after 12 updates ({CLOSE['bf16']:g} in bf16)"
# what a resumed run may change: no bit depends on it
FREE = ("dsr.checkpoint.", "dsr.log.", "dsr.watchdog.", "dsr.data.origin")
FINISHED, FAILED, STOPPED = 0, 1, 75
PORT_TRIES = 3


@dataclass(frozen=True)
class Devices:
    """The devices at hand: which on which host, and who starts the ranks there."""

    hosts: dict[str, list[int]]
    kind: str  # CPU, CUDA, or "devices" where they are on other hosts
    launcher: str = ""  # "": this host alone, by DeepSpeed's own launcher
    filtered: bool = False  # the numbers were chosen, by --include, --exclude or CUDA_VISIBLE_DEVICES
    given: bool = False  # a hostfile or a Slurm allocation, which is an error if it is smaller than what is asked
    launcher_args: str = ""
    model: str = ""  # the processor's name; "" where it is on other hosts

    @property
    def count(self) -> int:
        return sum(map(len, self.hosts.values()))

    def first(self, count: int) -> Devices:
        """The first `count` of them; on this host's CPU it may be more than there are cores."""
        if self.kind == CPU and not (self.launcher or self.filtered):
            return dataclasses.replace(self, hosts={"localhost": list(range(count))})
        hosts = {}
        for host, numbers in self.hosts.items():
            if numbers[:count]:
                hosts[host] = numbers[:count]
            count -= len(hosts.get(host, []))
        return dataclasses.replace(self, hosts=hosts)

    def __str__(self) -> str:
        hosts = f" on {len(self.hosts)} hosts" if len(self.hosts) > 1 else ""
        return f"{self.count} {self.kind if self.count > 1 else self.kind.rstrip('s')}{hosts}"


# what there is


def find_devices(
    hostfile: Path | None = None, launcher: str = "", include: str = "", exclude: str = "", launcher_args: str = ""
) -> Devices:
    """The devices of a hostfile, of this Slurm allocation (`launcher` slurm), or of this host.

    `include` and `exclude` are DeepSpeed's "HOST:0,2@HOST" filters. On CPU a device is a core that this process may
    use. Raises UserError for a hostfile, filter or launcher that cannot be.
    """
    launcher = launcher.lower()
    if launcher and launcher not in LAUNCHERS:
        raise UserError(f"--launcher {launcher}: must be one of {', '.join(LAUNCHERS)}")
    if launcher not in ("", "pdsh", "slurm") and (include or exclude):
        raise UserError(f"DeepSpeed's {launcher} launcher takes no --include, --exclude; give --hostfile alone")
    numbers, model = _cuda_devices()
    kind = "devices" if launcher else CUDA if numbers else CPU
    if hostfile is not None:
        hosts = read_hostfile(hostfile)
    elif launcher == "slurm":
        hosts = _slurm_hosts(dict(os.environ))
    elif launcher:
        raise UserError(f"--launcher {launcher} needs --hostfile (lines such as: worker-0 slots=4)")
    else:
        hosts = {"localhost": numbers or list(range(len(os.sched_getaffinity(0))))}
    chosen = select(hosts, include, exclude)
    if not launcher and set(chosen) - {"localhost", "127.0.0.1", socket.gethostname()}:
        launcher, kind = "pdsh", "devices"
    visible = hostfile is None and not launcher and numbers != list(range(len(numbers)))
    given = hostfile is not None or launcher == "slurm" or "SLURM_JOB_ID" in os.environ
    model = "" if launcher else model or processor()
    return Devices(chosen, kind, launcher, bool(include or exclude or visible), given, launcher_args, model)


def read_hostfile(path: Path) -> dict[str, list[int]]:
    """Read lines such as "worker-0 slots=4": {host: [0, 1, 2, 3]}. Raises UserError naming the line."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--hostfile {path}: cannot be read ({error})") from None
    hosts: dict[str, list[int]] = {}
    for number, line in enumerate(lines, 1):
        line = line.partition("#")[0].strip()
        match = re.fullmatch(r"(\S+)\s+slots=(\d+)", line)
        if line and not match:
            raise UserError(f"--hostfile {path}, line {number}: {line!r} is not of the form: worker-0 slots=4")
        if match and match[1] in hosts:
            raise UserError(f"--hostfile {path}, line {number}: {match[1]} stands there twice")
        if match:
            hosts[match[1]] = list(range(int(match[2])))
    if not any(hosts.values()):
        raise UserError(f"--hostfile {path} names no host")
    return hosts


def select(hosts: dict[str, list[int]], include: str, exclude: str) -> dict[str, list[int]]:
    """Apply DeepSpeed's filters, "HOST:0,2@HOST" (a host without numbers: all of it). Raises UserError."""
    if include and exclude:
        raise UserError("--include and --exclude exclude each other")
    named: dict[str, list[int]] = {}
    for part in filter(None, (include or exclude).split("@")):
        host, _, numbers = part.partition(":")
        if host not in hosts:
            raise UserError(f"{part!r}: no host {host} here; there are {', '.join(hosts)}")
        if not re.fullmatch(r"(\d+(,\d+)*)?", numbers):
            raise UserError(f"{part!r} is not of the form HOST:0,1")
        named[host] = [int(n) for n in numbers.split(",")] if numbers else hosts[host]
        if missing := set(named[host]) - set(hosts[host]):
            raise UserError(f"{part!r}: {host} has no device {min(missing)}; its devices are {hosts[host]}")
    if include:
        return {host: named[host] for host in hosts if host in named}
    left = {host: [n for n in numbers if n not in named.get(host, [])] for host, numbers in hosts.items()}
    if not any(left.values()):
        raise UserError(f"--exclude {exclude} leaves no device")
    return {host: numbers for host, numbers in left.items() if numbers}


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

    On this host alone fewer devices than GPUs mean a rehearsal, which `strict` refuses. A hostfile or a Slurm
    allocation must hold all of them, unless `use` says how many to take.
    """
    if not use and devices.count < gpus and (strict or devices.given):
        where = "the hostfile or allocation has" if devices.given else "here are"
        advice = "" if strict else f"; --devices {devices.count} rehearses on those"
        raise UserError(f"{gpus} GPUs asked, but {where} {devices}{advice}")
    if use > devices.count and (devices.given or devices.filtered or devices.kind == CUDA):
        raise UserError(f"--devices {use}: there are only {devices}")
    plan = make_plan(experiment, mode=mode, gpus=gpus, samples=samples, available=devices.count, devices=use, auto=auto)
    if strict and plan.rehearsal:
        raise UserError(f"--strict: {plan.devices} devices would rehearse {gpus} GPUs")
    shares = {len(numbers) for numbers in devices.first(plan.devices).hosts.values()}
    if devices.launcher == "slurm" and len(shares) > 1:
        raise UserError(f"Slurm needs as many devices on every host; {plan.devices} fill the hosts unevenly")
    return plan


def rehearsal(plan: Plan, devices: Devices) -> str:
    """One line that says that the run rehearses, and what it costs."""
    return (
        f"{plan.gpus} GPUs asked, {devices} here: rehearsing on {plan.devices}. Each plays {plan.slots_per_device} of "
        f"an update's {plan.slots} slots: the same arithmetic, about {plan.gpus / plan.devices:.3g} times the time of "
        f"{plan.gpus} such devices."
    )


# the command


def command(devices: Devices, run: Run, port: int) -> list[str]:
    """The deepspeed launcher's command line: every device in `devices` becomes a rank.

    It always names a hostfile of ours, since without one DeepSpeed silently reads /job/hostfile.
    """
    line = [sys.executable, "-m", "deepspeed.launcher.runner", "--quiet", "--hostfile", str(run.hostfile)]
    line += ["--master_port", str(port)]
    if devices.filtered:
        line += ["--include", "@".join(f"{host}:{','.join(map(str, n))}" for host, n in devices.hosts.items())]
    if not devices.launcher:
        line += ["--no_ssh_check", "--master_addr", "127.0.0.1"]
    else:
        line += ["--force_multi", "--launcher", devices.launcher]
        if devices.launcher != "pdsh":
            line += ["--no_ssh_check", "--master_addr", next(iter(devices.hosts))]
        if devices.launcher_args:
            line += [f"--launcher_args={devices.launcher_args}"]
    # DeepSpeed drops --module under Slurm, and gives srun the words as they are.
    module = ["--", "-m", TRAIN] if devices.launcher == "slurm" else ["--module", TRAIN]
    return [*line, "--no_local_rank", *module, "--run-dir", str(run.folder.absolute())]


def hostfile(devices: Devices) -> str:
    """What DeepSpeed reads of the devices: "worker-0 slots=4" lines."""
    return "".join(f"{host} slots={max(numbers) + 1}\n" for host, numbers in devices.hosts.items())


def variables(devices: Devices, port: int, experiment: Experiment) -> dict[str, str]:
    """The environment variables that every rank needs, on every host."""
    threads = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    values = dict.fromkeys(threads, str(THREADS))
    values[launches.MARK] = launches.mark(os.getpid())
    values[last_words.LIMIT] = str(60 * experiment.dsr.watchdog.minutes)
    if packages := components.packages(experiment.dsr):
        values[components.ALLOWED] = ",".join(packages)
    values["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"  # no torch.load in a rank executes what a file says
    if devices.kind == CPU or os.environ.get("DS_ACCELERATOR") == "cpu":
        values["DS_ACCELERATOR"] = "cpu"
    if devices.launcher in ("openmpi", "mvapich", "slurm"):  # DeepSpeed gives these ranks no meeting point
        values["MASTER_PORT"] = str(port)
    if devices.launcher in ("openmpi", "mvapich"):
        values["MASTER_ADDR"] = next(iter(devices.hosts))
    return values


def describe(task: Task, plan: Plan, devices: Devices, folder: Path) -> str:
    """The plan, and the command, hostfile and variables that `launch` would use. Starts and writes nothing.

    The command is the exact one; its port is one that is free at this moment.
    """
    run, port, used = Run(folder), _free_port(), devices.first(plan.devices)
    sections = [
        [f"{key:18} {value}" for key, value in dataclasses.asdict(plan).items()],
        [rehearsal(plan, devices)] if plan.rehearsal else [],
        schedule.notes(task.experiment, plan),
        [shlex.join(command(used, run, port))],
        [f"{run.hostfile}:", *hostfile(used).splitlines()],
        ["variables:", *(f"{key}={value}" for key, value in variables(used, port, task.experiment).items())],
    ]
    return "\n\n".join("\n".join(section) for section in sections if section)


# the run


def start(
    config: Path | None,
    overrides: tuple[str, ...],
    store: str | None,
    *,
    mode: str | None,
    gpus: int | None,
    run_dir: Path | None,
    devices: int,
    strict: bool,
    hostfile: Path | None,
    launcher: str,
    launcher_args: str,
    include: str,
    exclude: str,
    resume: bool,
    force: bool,
    dry_run: bool,
) -> int:
    """`dsr launch`: find the devices, plan, and launch or (`dry_run`) tell what would be. Returns the exit code.

    With `resume` and no config the run's own experiment goes on, in its mode and, if none is given, on as many GPUs.
    Mode auto first plays a probe, and goes on with what its numbers say; resumed, with what they said.
    """
    named = config is not None or not resume  # the user named the config, and not only the folder of a run
    if resume and config is None:
        if run_dir is None:
            raise UserError("--resume needs --run-dir: which run is to go on")
        run = Run(run_dir)
        before, config = _read_plan(run), run.experiment
        mode, gpus = mode or before["mode"], gpus or before["gpus"]
    mode = mode or "strong"
    task = resolve(config, overrides, store, named=named)
    found = find_devices(hostfile, launcher, include, exclude, launcher_args)
    if gpus is None:
        gpus = 1 if mode != "auto" else devices or found.count
    folder = run_dir or Path("runs", f"{config.stem if config else 'default'}-{mode}-{gpus}")
    planned = functools.partial(plan_run, task.experiment, found, samples=task.samples, use=devices, strict=strict)
    if mode != "auto":
        plan = planned(mode=mode, gpus=gpus)
    elif resume:
        plan = planned(mode=mode, **_chosen(Run(folder), gpus))
    else:
        plan = planned(mode="probe", gpus=gpus)
    if dry_run:
        if plan.mode == "probe":
            folder = _probe_folder(folder)
            print(probe.announcement(plan, folder) + ". The probe:\n")
        print(describe(task, plan, found, folder))
        return FINISHED
    if plan.mode == "probe":
        chosen = _choose(task, plan, found, folder, planned, most=gpus, force=force)
        if chosen is None:
            return FAILED
        plan = chosen
    if resume and (changed := _changed(Run(folder), task, plan, found.model)):
        told = ", ".join(changed[:6]) + (f" and {len(changed) - 6} more" if len(changed) > 6 else "")
        told = f"{told} {'is' if len(changed) == 1 else 'are'} not as in {folder}"
        if not force:
            raise UserError(f"--resume: {told}: the result would differ; --force goes on all the same")
        _say(f"--force: going on, though {told}. Not exact: where the run itself is the same, {TOLERANCE}")
    return launch(task, plan, found, folder, resume=resume, force=force)


def _choose(
    task: Task, first: Plan, devices: Devices, folder: Path, planned: Callable[..., Plan], *, most: int, force: bool
) -> Plan | None:
    """Play the probe (plan `first`), and use `planned` for what it says for at most `most` GPUs; None if it failed."""
    _check_launcher(devices)
    place = _probe_folder(folder)
    with hold(folder, force=force):  # refused before anything starts; and nobody else takes it meanwhile
        _say(probe.announcement(first, place))
        shutil.rmtree(place, ignore_errors=True)
        try:
            launch(
                dataclasses.replace(task, experiment=probe.experiment_of(task.experiment, first)), first, devices, place
            )
            status = Run(place).status()
            if status["state"] != "finished":
                _say(f"{status['state']}: in auto's probe, so that the run has not begun: {status['reason']}")
                return None
            measured = probe.measured(Run(place), first)
        finally:
            shutil.rmtree(place, ignore_errors=True)
    choice = auto.choose(task.experiment, measured, task.samples, most)
    record = auto.record(choice, measured)
    plan = planned(mode="auto", gpus=choice.gpus, auto=record)
    why = auto.explain(task.experiment, plan, choice, measured, most)
    _say("\n".join(why))
    return dataclasses.replace(plan, auto={**record, "why": why})


def _probe_folder(folder: Path) -> Path:
    return folder.absolute().with_name(f".{folder.absolute().name}.probe")


def _read_plan(run: Run) -> dict[str, Any]:
    """plan.json, if it is of today's format."""
    plan = read_json(run.plan)
    check_format(run.plan, plan.get("format", 1), FORMAT, "start it anew, with --force and without --resume")
    return plan


def _chosen(run: Run, most: int) -> dict[str, Any]:
    """What auto chose for a run that is to go on, as arguments for `plan_run`; on fewer GPUs if `most` are fewer."""
    if not run.plan.is_file():
        raise UserError(f"--resume: {run.folder} holds no run")
    before = _read_plan(run)
    if before["mode"] != "auto":
        raise UserError(f"--resume: mode is not as in {run.folder}, which was launched with --mode {before['mode']}")
    most = min(most, before["gpus"])
    return {"gpus": max(n for n in range(1, most + 1) if before["slots"] % n == 0), "auto": before["auto"]}


def _changed(run: Run, task: Task, plan: Plan, model: str) -> list[str]:
    """What is not as it was and would make a resumed run another one: config keys, plan keys, versions, devices.

    The number of devices may change, and in strong scaling the GPUs: the bits do not. Raises UserError if there is no
    run.
    """
    if not run.plan.is_file():
        raise UserError(f"--resume: {run.folder} holds no run")
    before = read_json(run.experiment)
    after = task.experiment.resolved()
    after["dsr"]["data"]["store"] = before["dsr"]["data"]["store"]
    plans = _read_plan(run), dataclasses.asdict(plan)
    keys = ["mode", "slots", "samples", *(["gpus"] if plan.mode == "weak" else [])]
    now = environment("", model, THREADS, task.fingerprint, components.packages(task.experiment.dsr))
    return [
        *(key for key in _differing(before, after) if not key.startswith(FREE)),
        *(key for key in keys if plans[0][key] != plans[1][key]),
        *changes(read_json(run.environment), now),
    ]


def _differing(before: dict[str, Any], after: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """The keys whose values differ, with dots between."""
    for key in sorted({*before, *after}):
        old, new = before.get(key), after.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _differing(old, new, f"{prefix}{key}.")
        elif old != new:
            yield f"{prefix}{key}"


def launch(
    task: Task,
    plan: Plan,
    devices: Devices,
    folder: Path,
    *,
    resume: bool = False,
    force: bool = False,
    grace: float = GRACE,
) -> int:
    """Train as planned, in `folder`, to the end: 0 finished, 75 stopped after saving, 1 failed.

    The run's processes are ours: SIGINT, SIGTERM and SIGHUP reach every rank at once, what is left `grace` seconds
    later is killed, and so is all that is left when DeepSpeed's launcher has ended. It returns with no process alive,
    and status.json says how it ended. Raises UserError, with nothing started or written, if the folder is refused.
    """
    used = devices.first(plan.devices)
    _check_launcher(used)
    with hold(folder, resume=resume, force=force) as run, stop_signals() as stop:
        if not resume:
            clear(run)
        if plan.rehearsal:
            _say(rehearsal(plan, devices))
        for note in schedule.notes(task.experiment, plan):
            _say(f"note: {note}")
        if not task.experiment.exact:
            _say(f"not exact: {task.experiment.inexact}, so another number of GPUs gives other bits; {TOLERANCE}")
        run.set_status("running")  # first: what follows belongs to a run
        resolved = task.experiment.resolved()
        resolved["dsr"]["data"]["store"] = task.store
        write_json(run.experiment, resolved)
        write_json(run.deepspeed, deepspeed_config(task.experiment, plan))
        write_json(run.plan, dataclasses.asdict(plan))
        packages = components.packages(task.experiment.dsr)
        write_json(run.environment, environment(str(used), used.model, THREADS, task.fingerprint, packages))
        run.hostfile.write_text(hostfile(used))
        for _ in range(PORT_TRIES):
            port = _free_port()
            code = _attempt(run, used, variables(used, port, task.experiment), port, stop, grace)
            state = run.status()["state"]
            if state != "running" or stop or _is_free(port):
                break
            _say(f"port {port} was taken by another program")
        if state == "running" or (state == "failed" and _signal(code)):  # rank 0 knows only that it lost the other
            told, stacks = last_words.read(run.last_words, plan.devices)
            if stacks:
                _say(stacks)
            try:
                run.set_status("failed", told or _reason(code, stop))
            except OSError as error:  # a full disk, say
                _say(f"failed: {told or _reason(code, stop)}; status.json cannot be written ({error.strerror})")
                return FAILED
        if plan.mode == "probe":  # whoever asked for it says how it ended
            return FINISHED if run.status()["state"] == "finished" else FAILED
        return _conclude(run)


def _check_launcher(devices: Devices) -> None:
    if devices.launcher and not shutil.which(LAUNCHERS[devices.launcher]):
        raise UserError(f"--launcher {devices.launcher}: {LAUNCHERS[devices.launcher]} is not installed")


def _attempt(run: Run, devices: Devices, ours: dict[str, str], port: int, stop: list[int], grace: float) -> int:
    """Run DeepSpeed's launcher once, with `ours` for variables, until no process of it is left; its exit code."""
    carried = {**_users_variables(), **ours}
    run.variables.write_text("".join(f"{key}={value}\n" for key, value in carried.items()))
    environment = {key: value for key, value in os.environ.items() if key not in ("RANK", "LOCAL_RANK", "WORLD_SIZE")}
    environment |= ours | {"DS_ENV_FILE": str(run.variables.absolute())}
    if devices.launcher == "pdsh":  # a dead link ends its ssh, and so the run, in half a minute instead of never
        alive = "-oServerAliveInterval=10 -oServerAliveCountMax=3"
        environment["PDSH_SSH_ARGS_APPEND"] = f"{alive} {environment.get('PDSH_SSH_ARGS_APPEND', '')}".strip()
    mark = ours[launches.MARK]
    shutil.rmtree(run.last_words, ignore_errors=True)
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: a run's orphans become our children
    line = command(devices, run, port)
    runner = subprocess.Popen(line, env=environment, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        _wait(runner, run, ours, stop, grace, here=not devices.launcher)
    finally:
        _kill(runner, mark)
        _drop_empty(run.last_words)
    return runner.returncode


def _wait(
    runner: subprocess.Popen[bytes], run: Run, ours: dict[str, str], stop: list[int], grace: float, *, here: bool
) -> None:
    """Wait until the launcher has ended, with its ranks, or their time is over.

    Ranks that outlive a launcher which was killed may save; where it ended with 0 they have lost their own launcher.
    On this host alone (`here`) a run has ended when rank 0 says so for all, and the processes may go.
    """
    mark, asked, deadline = ours[launches.MARK], False, float("inf")
    startup = time.monotonic() + last_words.STARTUP
    while runner.poll() is None and time.monotonic() < deadline and stop.count(signal.SIGINT) < 2:
        if stop and not asked:
            asked = True
            if not _ask_to_stop(mark):
                break  # too early: there is nothing to save
            deadline = time.monotonic() + grace
            _say(f"{signal.Signals(stop[0]).name}: stopping when this update is done and saved (Ctrl-C again: at once)")
        state = run.status()["state"]
        if here and state in ("finished", "stopped"):
            return
        if here and state == "running" and time.monotonic() > startup and not run.last_words.exists():
            run.set_status("failed", f"no rank has come up in {last_words.STARTUP:g} s")
            return
        if deadline == float("inf") and state != "running":
            deadline = time.monotonic() + grace  # the ranks have said how it ended; the launcher has only to close
        elif deadline == float("inf") and last_words.is_there(run.last_words):
            deadline = time.monotonic() + last_words.delay(float(ours[last_words.LIMIT])) + 2
        time.sleep(0.1)
    if runner.poll() and _ask_to_stop(mark):
        psutil.wait_procs(_processes(mark, ranks=True), timeout=max(0, min(grace, deadline - time.monotonic())))


def _ask_to_stop(mark: str) -> bool:
    """Send SIGTERM to every rank here at once, or else to who can reach them; False where there is none.

    Not to DeepSpeed's launcher: it tells the ranks one after the other, and with pdsh its answer to SIGTERM is a
    `pkill -f` that ends every DeepSpeed launcher on every host.
    """
    ranks = _processes(mark, ranks=True) or [p for p in _processes(mark) if p.name() in ("srun", "mpirun")]
    for process in ranks:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    return bool(ranks)


def _kill(runner: subprocess.Popen[bytes], mark: str) -> None:
    """Kill every process of this launch on this host, and leave no zombie."""
    while left := _processes(mark):
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs([process for process in left if process.pid != runner.pid], timeout=5)
        runner.wait()
    runner.wait()
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-runner.pid, os.WNOHANG)[0]:  # orphans of its process group, which are our children now
            pass


def _processes(mark: str, *, ranks: bool = False) -> list[psutil.Process]:
    """The live processes here that carry this launch's mark, wherever they hang in the tree; or its ranks alone."""
    found = launches.processes(mark)
    return [process for process in found if _is_rank(process)] if ranks else found


def _is_rank(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.cmdline()[1:4] == ["-u", "-m", TRAIN]
    return False


def _drop_empty(words: Path) -> None:
    """Remove the files of ranks that had nothing to say."""
    with contextlib.suppress(OSError):
        for file in words.iterdir():
            if not file.stat().st_size:
                file.unlink()
        words.rmdir()


def _reason(code: int, stop: list[int]) -> str:
    """Why a run failed whose ranks could not say it, for people."""
    if stop:
        return f"{signal.Signals(stop[0]).name} came, and there was no time to save"
    if code < 0:
        return f"DeepSpeed's launcher was ended by {signal.Signals(-code).name}"
    if code == 0:
        return "DeepSpeed's launcher ended, but not every rank said that it finished"
    number = _signal(code)
    if number == signal.SIGKILL:
        return "a rank was ended by SIGKILL; perhaps the memory ran out"
    return f"a rank was ended by {number.name}" if number else f"a rank ended with exit code {code}"


def _signal(code: int) -> signal.Signals | None:
    """The signal that ended a rank: 256 - n from DeepSpeed, 128 + n from a shell, mpirun or srun."""
    number = 256 - code if code > 192 else code - 128
    return signal.Signals(number) if number in signal.valid_signals() else None


def _conclude(run: Run) -> int:
    """Say in one last line how the run ended, and return the exit code."""
    status = run.status()
    if status["state"] == "finished":
        _say(f"finished: {status['updates']} updates, in {run.folder}")
        return FINISHED
    if status["state"] == "stopped":
        _say(f"stopped: {status['reason']}; the same command with --resume goes on")
        return STOPPED
    saved = run.list_checkpoints()
    rest = f"{saved[-1].name} is saved, and --resume goes on from it" if saved else "no checkpoint was saved"
    _say(f"failed: {status['reason']}; {rest}")
    return FAILED


@contextlib.contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Collect the signals that ask to stop; what was ignored (nohup) stays so."""
    received: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        if before[number] is not signal.SIG_IGN:
            signal.signal(number, lambda number, frame: received.append(number))
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(line: str) -> None:
    with contextlib.suppress(OSError):  # the terminal may be gone
        print(line, file=sys.stderr, flush=True)


def _users_variables() -> dict[str, str]:
    """What the user's own .deepspeed_env files, which ours replaces, have DeepSpeed carry to other hosts."""
    name = os.environ.get("DS_ENV_FILE", ".deepspeed_env")
    files = [path / name for path in (Path.home(), Path()) if (path / name).is_file()]
    lines = [line.partition("=") for file in files for line in file.read_text().splitlines()]
    return {key.strip(): value.strip() for key, equals, value in lines if equals}


def _cuda_devices() -> tuple[list[int], str]:
    """The numbers of the CUDA devices that CUDA_VISIBLE_DEVICES lets us use, and the first one's model.

    torch is asked only if there are any.
    """
    drivers = (Path("/dev/nvidiactl"), Path("/dev/kfd"), Path("/dev/dxg"))
    if os.environ.get("DS_ACCELERATOR") == "cpu" or not any(driver.exists() for driver in drivers):
        return [], ""
    code = "import torch as t; n = t.cuda.device_count(); print(n, t.cuda.get_device_name(0) if n else '')"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    count, model = int(told.split()[0]), told.strip().partition(" ")[2]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not visible or not count:  # -1 hides all of them
        return list(range(count)), model
    if not re.fullmatch(r"\d+(,\d+)*", visible):
        raise UserError(f"CUDA_VISIBLE_DEVICES={visible}: DeepSpeed needs the devices' numbers, such as 0,1")
    return [int(number) for number in visible.split(",")][:count], model


def _slurm_hosts(variables: dict[str, str]) -> dict[str, list[int]]:
    """The hosts of this Slurm allocation, with one device a task."""
    if "SLURM_JOB_NODELIST" not in variables:
        raise UserError("--launcher slurm needs an allocation (sbatch, salloc) or --hostfile")
    if not shutil.which("scontrol"):
        raise UserError("--launcher slurm: scontrol is not installed")
    show = ["scontrol", "show", "hostnames", variables["SLURM_JOB_NODELIST"]]
    names = subprocess.run(show, capture_output=True, text=True, check=True).stdout.split()
    tasks = re.findall(r"(\d+)(?:\(x(\d+)\))?", variables.get("SLURM_TASKS_PER_NODE", "1"))  # 4(x2),1
    counts = [int(count) for count, times in tasks for _ in range(int(times or 1))]
    return {name: list(range(count)) for name, count in zip(names, counts, strict=True)}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
