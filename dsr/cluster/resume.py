"""What of a run may change when it is resumed, and what has changed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from dsr.cluster.processes import THREADS
from dsr.components import packages
from dsr.config import read_json
from dsr.errors import UserError
from dsr.run.checkpoints import check_format
from dsr.run.provenance import changes, environment
from dsr.scaling.plan import FORMAT

if TYPE_CHECKING:
    from dsr.run import Run
    from dsr.scaling.plan import Plan
    from dsr.task import Task

FREE = (  # no bit depends on these keys
    *("dsr.checkpoint.", "dsr.log.", "dsr.watchdog."),
    *("dsr.data.origin", "dsr.data.cache"),
)
# Where bits cannot be the same: the largest norm of the weights' difference after 12 updates, relative to theirs.
WEIGHT_TOLERANCE = {"float32": 1e-4, "bf16": 1e-2}
TOLERANCE = (
    f"the weights agree to {WEIGHT_TOLERANCE['float32']:g} of their norm after 12 updates "
    f"({WEIGHT_TOLERANCE['bf16']:g} in bf16)"
)


def read_plan(run: Run) -> dict[str, Any]:
    """plan.json. Raises UserError where it is missing or of another format."""
    if not run.plan.is_file():
        raise UserError(f"--resume: {run.folder} holds no run")
    plan = read_json(run.plan)
    check_format(run.plan, plan.get("format", 1), FORMAT, "start it anew, with --force and without --resume")
    return plan


def chosen_by_auto(run: Run, most: int) -> dict[str, Any]:
    """What auto chose for a run that is resumed, as arguments for the plan; on fewer GPUs if `most` are fewer."""
    before = read_plan(run)
    if before["mode"] != "auto":
        raise UserError(f"--resume: mode is not as in {run.folder}, which was launched with --mode {before['mode']}")
    most = min(most, before["gpus"])
    return {"gpus": max(n for n in range(1, most + 1) if before["slots"] % n == 0), "auto": before["auto"]}


def check_resume(run: Run, task: Task, plan: Plan, model: str, *, force: bool) -> str:
    """Refuse (UserError) a resume that would change the result, or (`force`) return what to say; "" if it would not."""
    changed = _changed(run, task, plan, model)
    if not changed:
        return ""
    listed = ", ".join(changed[:6]) + (f" and {len(changed) - 6} more" if len(changed) > 6 else "")
    listed = f"{listed} {'is' if len(changed) == 1 else 'are'} not as in {run.folder}"
    if not force:
        raise UserError(f"--resume: {listed}: the result would differ; --force goes on all the same")
    return f"--force: going on, though {listed}. Not exact: where the run itself is the same, {TOLERANCE}"


def _changed(run: Run, task: Task, plan: Plan, model: str) -> list[str]:
    """What differs and would make a resumed run another one: config keys, plan keys, versions, devices.

    The number of devices may change, and in strong scaling the GPUs: the bits do not.
    """
    now = environment("", model, THREADS, task.fingerprint, packages(task.experiment.dsr))
    plans = read_plan(run), dataclasses.asdict(plan)
    before, after = read_json(run.experiment), task.experiment.resolved()
    after["dsr"]["data"]["store"] = before["dsr"]["data"]["store"]
    keys = ["mode", "slots", "samples", *(["gpus"] if plan.mode == "weak" else [])]
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
