"""A run's processes: the launcher is started, waited for and asked to stop, and nothing of it is left at the end."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from dsr import components
from dsr.cluster import launchers
from dsr.cluster.devices import CPU
from dsr.cluster.ended import say
from dsr.files import write_private
from dsr.run import last_words, launches

if TYPE_CHECKING:
    from dsr.cluster.devices import Devices
    from dsr.config import Experiment
    from dsr.run import Run

TRAIN = "dsr.train"  # the module that every rank runs
THREADS = 1  # per rank; another number gives other bits
GRACE = 25.0  # seconds from a request to stop until what is left is killed; Slurm kills us too after 30


def command(devices: Devices, run: Run, port: int) -> list[str]:
    """The launcher's command line: every device in `devices` becomes a rank."""
    arguments = ["--run-dir", str(run.folder.absolute())]
    start = launchers.Start(devices.hosts, devices.filtered, run.hostfile, port, TRAIN, arguments)
    return devices.launcher.command(start)


def variables(devices: Devices, port: int, experiment: Experiment) -> dict[str, str]:
    """The environment variables that every rank needs, on every host."""
    threads = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    values = dict.fromkeys(threads, str(THREADS))
    values[launches.MARK] = launches.mark(os.getpid())
    values[launchers.VARIABLE] = devices.launcher.name
    values[last_words.LIMIT] = str(60 * experiment.dsr.watchdog.minutes)
    if packages := sorted({*components.packages(experiment.dsr), devices.launcher.package} - {""}):
        values[components.ALLOWED] = ",".join(packages)
    values["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"  # no torch.load in a rank executes what a file says
    if devices.kind == CPU or os.environ.get("DS_ACCELERATOR") == "cpu":
        values["DS_ACCELERATOR"] = "cpu"
    return values | devices.launcher.variables(devices.hosts, port)


def play(run: Run, devices: Devices, values: dict[str, str], port: int, stop: list[int], grace: float) -> int:
    """Run the launcher once, with `values` as its ranks' variables, until no process of it is left; its exit code.

    `stop` grows by each signal that asks to stop; what is left `grace` seconds after the first is killed.
    """
    carried = {**_users_variables(), **values}
    write_private(run.variables, "".join(f"{key}={value}\n" for key, value in carried.items()))
    environment = {key: value for key, value in os.environ.items() if key not in ("RANK", "LOCAL_RANK", "WORLD_SIZE")}
    environment |= values | {"DS_ENV_FILE": str(run.variables.absolute())}
    environment |= devices.launcher.environment(environment)
    shutil.rmtree(run.last_words, ignore_errors=True)
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: a run's orphans become our children
    line = command(devices, run, port)
    launcher = subprocess.Popen(line, env=environment, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        _wait(launcher, run, devices, values, stop, grace)
    finally:
        _kill(launcher, values[launches.MARK])
        run.variables.unlink(missing_ok=True)  # it may hold the user's tokens
        _drop_empty(run.last_words)
    return launcher.returncode


def _wait(
    launcher: subprocess.Popen[bytes], run: Run, devices: Devices, values: dict[str, str], stop: list[int], grace: float
) -> None:
    """Wait until the launcher has ended, with its ranks, or their time is over.

    Ranks that outlive a launcher which was killed may save; where it ended with 0 they have lost their own launcher.
    On this host alone a run has ended when rank 0 says so for all, and the processes may go.
    """
    mark, asked, deadline, here = values[launches.MARK], False, float("inf"), devices.launcher.here
    startup = time.monotonic() + last_words.STARTUP
    while launcher.poll() is None and time.monotonic() < deadline and stop.count(signal.SIGINT) < 2:
        if stop and not asked:
            asked = True
            if not _ask_to_stop(mark, devices.launcher.relay):
                break  # too early: there is nothing to save
            deadline = time.monotonic() + grace
            say(f"{signal.Signals(stop[0]).name}: stopping when this update is done and saved (Ctrl-C again: at once)")
        state = run.status()["state"]
        if here and state in ("finished", "stopped"):
            return
        if here and state == "running" and time.monotonic() > startup and not run.last_words.exists():
            run.set_status("failed", f"no rank has started in {last_words.STARTUP:g} s")
            return
        if deadline == float("inf") and state != "running":
            deadline = time.monotonic() + grace  # the ranks have said how it ended; the launcher has only to close
        elif deadline == float("inf") and last_words.is_there(run.last_words):
            deadline = time.monotonic() + last_words.delay(float(values[last_words.LIMIT])) + 2
        time.sleep(0.1)
    if launcher.poll() and _ask_to_stop(mark, devices.launcher.relay):
        psutil.wait_procs(processes(mark, ranks=True), timeout=max(0, min(grace, deadline - time.monotonic())))


def _ask_to_stop(mark: str, relay: str) -> bool:
    """Send SIGTERM to every rank here at once, or else to the `relay` that reaches them; False where there is neither.

    Not to DeepSpeed's launcher: it signals the ranks one after the other, and with pdsh its answer to SIGTERM is a
    `pkill -f` that ends every DeepSpeed launcher on every host.
    """
    asked = processes(mark, ranks=True) or [process for process in processes(mark) if process.name() == relay]
    for process in asked:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    return bool(asked)


def _kill(launcher: subprocess.Popen[bytes], mark: str) -> None:
    """Kill every process of this launch on this host, and leave no zombie."""
    while left := processes(mark):
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs([process for process in left if process.pid != launcher.pid], timeout=5)
        launcher.wait()
    launcher.wait()
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-launcher.pid, os.WNOHANG)[0]:  # orphans of its process group, which are our children now
            pass


def processes(mark: str, *, ranks: bool = False) -> list[psutil.Process]:
    """The live processes here that carry this launch's mark, wherever they hang in the tree; or its ranks alone."""
    marked = launches.processes(mark)
    return [process for process in marked if _is_rank(process)] if ranks else marked


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


def _users_variables() -> dict[str, str]:
    """What the user's own .deepspeed_env files, which ours replaces, have DeepSpeed carry to other hosts."""
    name = os.environ.get("DS_ENV_FILE", ".deepspeed_env")
    files = [path / name for path in (Path.home(), Path()) if (path / name).is_file()]
    lines = [line.partition("=") for file in files for line in file.read_text().splitlines()]
    return {key.strip(): value.strip() for key, equals, value in lines if equals}


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


def free_port() -> int:
    """A port that no program on this host uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
