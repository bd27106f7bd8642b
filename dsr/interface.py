"""Runs from Python: plan, launch as a process of its own, and read what a run left in its folder."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsr.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from dsr.verify.evaluation import Evaluation

COUNTS = (1, 2, 4, 8, 16, 32)


def plan(
    config: Path | str | None = None,
    gpus: Sequence[int] = COUNTS,
    *,
    store: Path | str | None = None,
    overrides: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """The derived numbers of every mode at each number of GPUs; by default of the default experiment, built-in data.

    `overrides` are texts such as "dsr.model.width=64". Each dictionary has the keys of plan.json and "notes", or
    "mode", "gpus" and the "reason" why there is no such plan. Raises UserError where config or store are wrong.

    >>> import dsr
    >>> cells = dsr.plan(store="small.zarr", gpus=[1, 2], overrides=["gradient_accumulation_steps=4"])
    >>> [(cell["mode"], cell["gpus"], cell["effective_batch"]) for cell in cells]
    [('sequential', 1, 4), ('strong', 1, 4), ('strong', 2, 4), ('weak', 1, 4), ('weak', 2, 8)]
    """
    from dsr.scaling.table import cells
    from dsr.task import resolve

    task = resolve(Path(config) if config else None, tuple(overrides), str(store) if store else None)
    return cells(task.experiment, task.samples, gpus)


def launch(
    config: Path | str | None = None,
    *,
    run_dir: Path | str,
    gpus: int | None = None,
    mode: str | None = None,
    store: Path | str | None = None,
    overrides: Sequence[str] = (),
    devices: int = 0,
    strict: bool = False,
    hostfile: Path | str | None = None,
    launcher: str = "",
    allow_code: Sequence[str] = (),
    resume: bool = False,
    force: bool = False,
) -> Run:
    """Train in `run_dir` and return the run when it has finished. The arguments are the options of `dsr launch`.

    Training is a process of its own, never inside the caller's; what it writes comes out of `sys.stdout`. Ctrl-C lets
    it finish its update and save, and KeyboardInterrupt follows; a second one ends it at once. Raises UserError where
    what was given is wrong, and nothing was started; RuntimeError, with the reason, where it failed or was stopped.

    >>> import dsr
    >>> short = ["gradient_accumulation_steps=4", "dsr.budget.updates=2", "dsr.model.width=4"]
    >>> run = dsr.launch(run_dir="runs/small", store="small.zarr", overrides=short)  # doctest: +ELLIPSIS
    note: ...
    finished: 2 updates, in runs/small
    >>> run
    dsr.Run('runs/small')
    """
    options: dict[str, Any] = {
        **{"run-dir": run_dir, "gpus": gpus, "mode": mode, "data": store, "devices": devices or None},
        **{"hostfile": hostfile, "launcher": launcher or None},
    }
    line = [sys.executable, "-m", "dsr", "launch", *([str(config)] if config else [])]
    line += [f"--{name}={value}" for name, value in options.items() if value is not None]
    line += [f"--set={override}" for override in overrides]
    line += [f"--allow-code={package}" for package in allow_code]
    line += [f"--{name}" for name, on in (("strict", strict), ("resume", resume), ("force", force)) if on]
    code, last = _follow(line)
    if code == 2:
        raise UserError(last.removeprefix("error: "))
    if code:
        raise RuntimeError(last)
    return Run(run_dir)


def _follow(line: list[str]) -> tuple[int, str]:
    """Run a command and pass on what it writes: its exit code, and its last words, from "error:" on or the last line.

    KeyboardInterrupt is passed on as SIGINT, and raised again when the command has ended.
    """
    process = subprocess.Popen(
        line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    assert process.stdout is not None
    last, interrupt = b"", None
    try:
        while process.poll() is None or not process.stdout.closed:
            try:
                for text in process.stdout:
                    last = last + text if last.startswith(b"error: ") else text
                    sys.stdout.write(text.decode(errors="replace"))
                    sys.stdout.flush()
                process.wait()
                process.stdout.close()
            except KeyboardInterrupt as error:
                interrupt = error
                process.send_signal(signal.SIGINT)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
    if interrupt is not None:
        raise interrupt
    return process.returncode, last.decode(errors="replace").strip()


class Run:
    """What a run left in its folder.

    Its evaluation needs a trained network there; the folder may be that of a run which is still going on.

    >>> import dsr
    >>> dsr.Run("runs/small").status()["state"]
    'finished'
    """

    def __init__(self, path: Path | str):
        self.path = Path(path)

    def __repr__(self) -> str:
        return f"dsr.Run({str(self.path)!r})"

    def status(self) -> dict[str, Any]:
        """status.json: state, reason, updates, weights_sha256, started, ended. Raises UserError where there is none.

        >>> import dsr
        >>> status = dsr.Run("runs/small").status()
        >>> status["state"], status["updates"]
        ('finished', 2)
        """
        from dsr.run import Run as Folder

        return Folder(self.path).status()

    def metrics(self) -> pd.DataFrame:
        """metrics.jsonl: a row for each record, with NaN where a record lacks a column. `update` is the index.

        Validation's are columns such as `validation.rmse.t2m`, in the variable's units.

        >>> import dsr
        >>> dsr.Run("runs/small").metrics()["validation.rmse.t2m"].dropna().round(1).to_dict()
        {2: 1.5}
        """
        import pandas as pd

        from dsr.run import Run as Folder

        records = pd.json_normalize(Folder(self.path).logged())
        return records.set_index("update") if len(records) else records

    def evaluate(self, store: Path | str | None = None, split: str = "test") -> Evaluation:
        """Score the network and every baseline on a split of `store`, by default the run's own; RMSE in its units.

        Raises UserError if there is no trained network, or the store does not fit it.

        >>> import dsr
        >>> evaluation = dsr.Run("runs/small").evaluate()
        >>> temperature = evaluation.variables["t2m"]
        >>> {method: round(temperature.rmse[method], 1) for method in ("network", "bicubic", "ridge")}
        {'network': 1.6, 'bicubic': 1.6, 'ridge': 1.3}
        """
        from dsr.verify.evaluate import evaluate

        return evaluate(self.path, store, split)

    def report(self) -> Path:
        """Write the report of the last evaluation, or of one that is made now: the path of the HTML page.

        >>> import dsr
        >>> print(dsr.Run("runs/small").report())
        runs/small/report/index.html
        """
        from dsr.config import read_json
        from dsr.report import evaluation as report
        from dsr.run import Run as Folder
        from dsr.verify.evaluation import Evaluation

        file = Folder(self.path).evaluation
        result = Evaluation.from_json(read_json(file)) if file.exists() else self.evaluate()
        return report.write(self.path, result)
