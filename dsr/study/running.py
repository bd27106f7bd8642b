"""Plays a study's runs as `dsr launch` processes, several at once; what is finished is never played again."""

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
from dsr.study.outcome import collect

DONE = ("finished", "diverged")
REFUSED = 2  # `dsr launch`: what was given is wrong
SECONDS = 0.1  # between two looks at the processes


class Stopped(Exception):
    """The study was asked to stop. Its runs have been, too, and the same command goes on."""


@dataclass(frozen=True)
class Folder:
    """A study's folder: cells/NAME is a run's; results/NAME.json says whose it is and what became of it."""

    root: Path

    def run(self, name: str) -> Run:
        return Run(self.root / "cells" / name)

    def experiment(self, name: str) -> Path:
        return self.root / "experiments" / f"{name}.json"

    def log(self, name: str) -> Path:
        return self.root / "logs" / f"{name}.log"

    def record(self, name: str) -> dict[str, Any]:
        """What is known of a run, of whichever key; "state" is running until its result was collected."""
        path = self.root / "results" / f"{name}.json"
        return json.loads(path.read_text()) if path.exists() else {"key": None, "state": "new"}

    def write_record(self, name: str, record: dict[str, Any]) -> None:
        (self.root / "results").mkdir(parents=True, exist_ok=True)
        write_json(self.root / "results" / f"{name}.json", record)


def play(
    cells: dict[str, Cell],
    folder: Folder,
    *,
    at_once: int,
    diverged_below: float,
    cost: Callable[[Cell], float],
    changed: Callable[[str, dict[str, Any] | None, list[Cell]], None],
) -> dict[str, dict[str, Any]]:
    """Play every run of `cells` ({key: its first cell}), the dearest first, and return their records by key.

    `changed(name, record, left)` is told of every start (record None) and end, and of the cells that are left. A run
    that fails does not stop the others. Raises Stopped on SIGINT, SIGTERM and SIGHUP, when the runs have stopped.
    """
    records: dict[str, dict[str, Any]] = {}
    pending = []
    for key, cell in sorted(cells.items(), key=lambda item: -cost(item[1])):
        record = _collected(cell, folder, diverged_below)
        if record["key"] == key and record["state"] in DONE:
            records[key] = record
        else:
            pending.append(cell)
    running: dict[str, tuple[Cell, subprocess.Popen[bytes]]] = {}
    with stop_signals() as stop:
        try:
            while (pending or running) and not stop:
                free = (cell for cell in pending if not _is_held(folder.run(cell.name)))
                if len(running) < at_once and (begun := next(free, None)):
                    pending.remove(begun)
                    running[begun.key] = begun, _start(begun, folder)
                    changed(begun.name, None, [*pending, *(c for c, _ in running.values())])
                    continue
                time.sleep(SECONDS)
                for key, (cell, process) in list(running.items()):
                    if process.poll() is None:
                        continue
                    if process.returncode == REFUSED and "--resume" in str(process.args):  # its code has changed, say
                        running[key] = cell, _start(cell, folder, afresh=True)
                        continue
                    del running[key]
                    records[key] = _collected(cell, folder, diverged_below)
                    changed(cell.name, records[key], [*pending, *(c for c, _ in running.values())])
        finally:
            for _, process in running.values():
                process.terminate()
            for _, process in running.values():
                process.wait()
    if stop:
        raise Stopped(signal.Signals(stop[0]).name)
    return records


def _start(cell: Cell, folder: Folder, *, afresh: bool = False) -> subprocess.Popen[bytes]:
    """Begin a run, or (unless `afresh`) go on with it where it was begun before."""
    assert cell.plan is not None
    run, how = folder.run(cell.name), []
    if run.exists():
        how = ["--resume"] if not afresh and _is_of(cell, run) and run.list_checkpoints() else ["--force"]
    folder.write_record(cell.name, {"key": cell.key, "state": "running"})
    for path in (folder.experiment(cell.name), folder.log(cell.name)):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_json(folder.experiment(cell.name), _experiment(cell))
    line = [sys.executable, "-m", "dsr", "launch", str(folder.experiment(cell.name)), "--mode", cell.mode, *how]
    line += ["--gpus", str(cell.gpus), "--devices", str(cell.plan.devices), "--run-dir", str(run.folder)]
    with folder.log(cell.name).open("ab") as log:
        return subprocess.Popen(
            line, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, preexec_fn=_end_with_us
        )


def _collected(cell: Cell, folder: Folder, diverged_below: float) -> dict[str, Any]:
    """The run's record; its result is collected where it has ended with one, and nobody has done so yet."""
    record, run = folder.record(cell.name), folder.run(cell.name)
    if record["key"] != cell.key or record["state"] != "running" or _is_held(run):
        return record
    if _is_of(cell, run):
        try:
            result = collect(run, diverged_below)
        except Exception as error:  # a damaged run must not end the study: it is played again
            result = {"state": "failed", "reason": f"its result cannot be read: {error}"}
    else:
        lines = folder.log(cell.name).read_text(errors="replace").splitlines() if folder.log(cell.name).exists() else []
        result = {"state": "failed", "reason": lines[-1] if lines else "dsr launch was killed before it began"}
    if result["state"] in DONE:
        record = {**record, **result}
        folder.write_record(cell.name, record)
        return record
    return {**record, **result}  # not kept: the next start of the study tries it again


def _experiment(cell: Cell) -> dict[str, Any]:
    """The cell's whole experiment, as its run's folder keeps it."""
    resolved = cell.task.experiment.resolved()
    resolved["dsr"]["data"]["store"] = cell.task.store
    return resolved


def _is_of(cell: Cell, run: Run) -> bool:
    """Whether the run that is there is the cell's, and not of an older file or store."""
    try:
        experiment, environment = (json.loads(path.read_text()) for path in (run.experiment, run.environment))
    except FileNotFoundError:
        return False
    return experiment == _experiment(cell) and environment["fingerprint"] == cell.task.fingerprint


def _is_held(run: Run) -> bool:
    """Whether a `dsr launch` is at work there, perhaps one that outlives the study which started it by seconds."""
    return run.exists() and run.status()["state"] == "running"


def _end_with_us() -> None:
    """In the child: have the kernel send SIGTERM when the study is killed, so that no run goes on unseen."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)  # PR_SET_PDEATHSIG
