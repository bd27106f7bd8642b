"""A study's runs as `dsr launch` processes, several at once; a run that is done is never started again."""

from __future__ import annotations

import ctypes
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsr.cluster.processes import stop_signals
from dsr.files import write_json
from dsr.run import Run
from dsr.study.cells import Cell
from dsr.study.results import Result, collect

REFUSED = 2  # exit code of `dsr launch`: what was given is wrong
POLL_SECONDS = 0.1


class Stopped(Exception):
    """The study was asked to stop. Its runs have stopped, too, and the same command continues them."""


@dataclass(frozen=True)
class Folder:
    """A study's folder: cells/NAME is a run's folder, and results/NAME.json its result with the cell's key."""

    root: Path

    def run(self, name: str) -> Run:
        return Run(self.root / "cells" / name)

    def experiment(self, name: str) -> Path:
        return self.root / "experiments" / f"{name}.json"

    def log(self, name: str) -> Path:
        return self.root / "logs" / f"{name}.log"

    def result(self, name: str) -> Result:
        """What is known of a run, whatever its key; "running" until its result has been collected."""
        path = self.root / "results" / f"{name}.json"
        return Result.model_validate(json.loads(path.read_text())) if path.exists() else Result(state="new")

    def write_result(self, name: str, result: Result) -> None:
        (self.root / "results").mkdir(parents=True, exist_ok=True)
        write_json(self.root / "results" / f"{name}.json", result.model_dump(exclude_unset=True))


def run_all(
    cells: dict[str, Cell],
    folder: Folder,
    *,
    at_once: int,
    diverged_below: float,
    cost: Callable[[Cell], float],
    changed: Callable[[str, Result | None, list[Cell]], None],
) -> dict[str, Result]:
    """Run every one of `cells` ({key: its first cell}), the longest first, and return their results by key.

    `changed(name, result, left)` is called at every start (result None) and end, with the cells that are left. A run
    that fails does not stop the others. Raises Stopped on SIGINT, SIGTERM and SIGHUP, when the runs have stopped.
    """
    results: dict[str, Result] = {}
    pending = []
    for key, cell in sorted(cells.items(), key=lambda item: -cost(item[1])):
        result = _collected(cell, folder, diverged_below)
        if result.key == key and result.done:
            results[key] = result
        else:
            pending.append(cell)
    running: dict[str, tuple[Cell, subprocess.Popen[bytes]]] = {}
    with stop_signals() as stop:
        try:
            while (pending or running) and not stop:
                free = (cell for cell in pending if not _is_held(folder.run(cell.name)))
                if len(running) < at_once and (following := next(free, None)):
                    pending.remove(following)
                    running[following.key] = following, _start(following, folder)
                    changed(following.name, None, [*pending, *(c for c, _ in running.values())])
                    continue
                time.sleep(POLL_SECONDS)
                for key, (cell, process) in list(running.items()):
                    if process.poll() is None:
                        continue
                    if process.returncode == REFUSED and "--resume" in str(process.args):  # its code has changed, say
                        running[key] = cell, _start(cell, folder, afresh=True)
                        continue
                    del running[key]
                    results[key] = _collected(cell, folder, diverged_below)
                    changed(cell.name, results[key], [*pending, *(c for c, _ in running.values())])
        finally:
            for _, process in running.values():
                process.terminate()
            for _, process in running.values():
                process.wait()
    if stop:
        raise Stopped(signal.Signals(stop[0]).name)
    return results


def _start(cell: Cell, folder: Folder, *, afresh: bool = False) -> subprocess.Popen[bytes]:
    """Start a run, or (unless `afresh`) continue it where it was started before."""
    assert cell.plan is not None
    run, how = folder.run(cell.name), []
    if run.exists():
        how = ["--resume"] if not afresh and _is_of(cell, run) and run.list_checkpoints() else ["--force"]
    folder.write_result(cell.name, Result(key=cell.key, state="running"))
    for path in (folder.experiment(cell.name), folder.log(cell.name)):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_json(folder.experiment(cell.name), _experiment(cell))
    line = [sys.executable, "-m", "dsr", "launch", str(folder.experiment(cell.name)), "--mode", cell.mode, *how]
    line += ["--gpus", str(cell.gpus), "--devices", str(cell.plan.devices), "--run-dir", str(run.folder)]
    with folder.log(cell.name).open("ab") as log:
        return subprocess.Popen(
            line, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, preexec_fn=_end_with_us
        )


def _collected(cell: Cell, folder: Folder, diverged_below: float) -> Result:
    """The run's result, collected and written if the run has ended since."""
    before, run = folder.result(cell.name), folder.run(cell.name)
    if before.key != cell.key or before.state != "running" or _is_held(run):
        return before
    if _is_of(cell, run):
        try:
            result = collect(run, diverged_below)
        except Exception as error:  # a damaged run must not end the study: it is run again
            result = Result(state="failed", reason=f"its result cannot be read: {error}")
    else:
        lines = folder.log(cell.name).read_text(errors="replace").splitlines() if folder.log(cell.name).exists() else []
        result = Result(state="failed", reason=lines[-1] if lines else "dsr launch was killed before it started")
    result = result.model_copy(update={"key": cell.key})
    if result.done:  # otherwise the next start of the study tries it again
        folder.write_result(cell.name, result)
    return result


def _experiment(cell: Cell) -> dict[str, Any]:
    """The cell's whole experiment, as its run's folder holds it."""
    resolved = cell.task.experiment.resolved()
    resolved["dsr"]["data"]["store"] = cell.task.store
    return resolved


def _is_of(cell: Cell, run: Run) -> bool:
    """Whether the run in the folder is the cell's, and not that of an older file or store."""
    try:
        experiment, environment = (json.loads(path.read_text()) for path in (run.experiment, run.environment))
    except FileNotFoundError:
        return False
    return experiment == _experiment(cell) and environment["fingerprint"] == cell.task.fingerprint


def _is_held(run: Run) -> bool:
    """Whether a `dsr launch` is at work there, perhaps one that has outlived by seconds the study that started it."""
    return run.exists() and run.status()["state"] == "running"


def _end_with_us() -> None:
    """In the child: have the kernel send SIGTERM when the study is killed, so that no run continues unseen."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)  # PR_SET_PDEATHSIG
