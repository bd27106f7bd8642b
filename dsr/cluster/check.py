"""`dsr plan --check`: short runs show whether an experiment trains to the same bits on any number of ranks.

They run on CPU cores. A network that keeps something from one slot for the next, in its buffers or elsewhere, as batch
normalisation does, ends with other bits on two ranks, which play other slots, or after a resume.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from dsr.errors import UserError
from dsr.files import remove
from dsr.run import Run, launches
from dsr.run.checkpoints import checkpoint_name
from dsr.scaling.plan import make_plan
from dsr.task import Task, resolve

UPDATES, SAVED = 8, 4  # the last checkpoint before the kill is that of update SAVED
CHANGES = (
    *(f"dsr.budget.updates={UPDATES}", f"dsr.validation.every={UPDATES}", f"dsr.checkpoint.every={SAVED}"),
    "dsr.scaling.growth=null",
)


def check(config: Path | None, overrides: tuple[str, ...], store: str | None) -> bool:
    """Train on one rank, and on two that are killed and resumed; print whether they end alike, and return it.

    Weights and buffers must be alike, bit by bit. Raises UserError where the experiment cannot run on two ranks, and
    RuntimeError where a run fails.
    """
    overrides = (*overrides, *CHANGES)
    task = resolve(config, overrides, store)
    if not task.experiment.exact:
        raise UserError(f"--check: {task.experiment.inexact}, so runs of 1 and 2 ranks differ in any case")
    make_plan(task.experiment, mode="strong", gpus=2, samples=task.samples, available=2)
    given = [*([str(config)] if config else []), *(f"--set={change}" for change in overrides), f"--data={task.store}"]
    with tempfile.TemporaryDirectory() as folder:
        one, two = Run(Path(folder, "one")), Run(Path(folder, "two"))
        _train(one, given, ranks=1)
        _train_and_kill(two, given)
        _train(two, [*given, "--resume"], ranks=2)
        (weights, buffers), (weights_of_two, buffers_of_two) = _bits(one), _bits(two)
    runs = f"{UPDATES} updates on 2 ranks, killed after update {SAVED} and resumed, end with"
    if (weights, buffers) == (weights_of_two, buffers_of_two):
        print(f"exact: {runs} the same weights and buffers as on 1 rank ({weights[:12]})")
        return True
    what = "weights" if buffers == buffers_of_two else "buffers"
    print(f"not exact: {runs} other {what} than on 1 rank{_advice(task)}")
    return False


def _train(run: Run, given: list[str], *, ranks: int) -> None:
    process = _launch(run, given, ranks)
    said = process.communicate()[0]
    if process.returncode:
        raise RuntimeError(f"--check: {said.strip().splitlines()[-1]}")


def _train_and_kill(run: Run, given: list[str]) -> None:
    """Kill a run's processes once a checkpoint is there; any that it saved after update SAVED is removed."""
    process = _launch(run, given, 2)
    mark = launches.mark(process.pid)
    while process.poll() is None and not run.list_checkpoints():
        time.sleep(0.01)
    process.kill()
    process.wait()
    launches.end(mark)
    process.communicate()
    for checkpoint in run.list_checkpoints():
        if checkpoint.name > checkpoint_name(SAVED):
            remove(checkpoint)


def _launch(run: Run, given: list[str], ranks: int) -> subprocess.Popen[str]:
    line = [sys.executable, "-m", "dsr", "launch", *given, "--mode=strong", f"--gpus={ranks}", f"--devices={ranks}"]
    return subprocess.Popen(
        [*line, f"--run-dir={run.folder}"],
        env={**os.environ, "DS_ACCELERATOR": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _bits(run: Run) -> tuple[str, Any]:
    """Of a finished run, the hash of all its state, and those of each rank's buffers without repetition."""
    status = run.status()
    return status["weights_sha256"], status["buffers_sha256"]


def _advice(task: Task) -> str:
    """What in the network to look at."""
    from dsr.data.features import Features
    from dsr.data.store import Store

    network = task.experiment.dsr.model.build(Features.of(Store(task.store), task.experiment.dsr.data))
    names = [name for name, _ in network.named_buffers()]
    return f": training must not change a buffer, and there are {', '.join(names[:4])}" if names else ""
