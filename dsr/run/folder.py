"""The layout of a run's folder: where everything lies, its status, its metrics and its checkpoints."""

from __future__ import annotations

import fcntl
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsr.errors import UserError
from dsr.files import append_whole, remove, whole_file, write_json
from dsr.run import checkpoints
from dsr.run.checkpoints import Damaged

if TYPE_CHECKING:
    from torch import Tensor

    from dsr.run.checkpoints import Tensors

STATES = ("running", "finished", "failed", "stopped")
LOCKS = (".lock", ".writer")  # held by `dsr launch`, and by its rank 0
# What a run leaves in its folder: `--force` removes these and nothing else.
CONTENT = [
    *("experiment.json", "deepspeed.json", "plan.json", "environment.json", "status.json", "metrics.jsonl"),
    *("events.out.*", "checkpoints", "model", "report", "forecast_*.nc"),
    *("hostfile", "deepspeed_env", "last_words"),
]


@dataclass(frozen=True)
class Run:
    """One run's folder. Making the object touches no file; `dsr.run.lock.hold` opens a folder for writing."""

    folder: Path

    @property
    def experiment(self) -> Path:
        return self.folder / "experiment.json"

    @property
    def deepspeed(self) -> Path:
        return self.folder / "deepspeed.json"

    @property
    def plan(self) -> Path:
        return self.folder / "plan.json"

    @property
    def environment(self) -> Path:
        return self.folder / "environment.json"

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics.jsonl"

    @property
    def model(self) -> Path:
        return self.folder / "model"

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def report(self) -> Path:
        """The folder of the page and its pictures."""
        return self.folder / "report"

    @property
    def page(self) -> Path:
        return self.report / "index.html"

    @property
    def evaluation(self) -> Path:
        """What the last evaluation measured."""
        return self.report / "evaluation.json"

    @property
    def example(self) -> Path:
        """One sample's fields, for the report's maps."""
        return self.report / "example.npz"

    @property
    def forecast_low(self) -> Path:
        """The demo's low-resolution forecast."""
        return self.folder / "forecast_low.nc"

    @property
    def forecast_high(self) -> Path:
        """The demo's prediction."""
        return self.folder / "forecast_high.nc"

    @property
    def last_words(self) -> Path:
        """Where ranks that end badly leave their reason, or their stacks if they hang."""
        return self.folder / "last_words"

    @property
    def hostfile(self) -> Path:
        return self.folder / "hostfile"

    @property
    def variables(self) -> Path:
        """The environment variables that DeepSpeed's launcher carries to other hosts."""
        return self.folder / "deepspeed_env"

    def exists(self) -> bool:
        """Whether a run was started in this folder. Raises UserError where the folder cannot be read."""
        try:
            return self._status.exists()
        except OSError as error:
            raise UserError(f"{self.folder}: cannot be read ({error.strerror})") from None

    def parts(self) -> list[Path]:
        """The files and folders of a run that are present, its locks included."""
        present = self.folder.iterdir() if self.folder.is_dir() else []  # glob would skip links to nothing
        return [path for path in present if any(fnmatch(path.name, pattern) for pattern in (*CONTENT, *LOCKS))]

    # status

    @property
    def _status(self) -> Path:
        return self.folder / "status.json"

    def status(self) -> dict[str, Any]:
        """status.json: state, reason, updates, weights_sha256, started, ended.

        "running" without a live `dsr launch` behind it reads as failed. Raises UserError where there is no run.
        """
        status = self._read_status()
        if status["state"] == "running" and not self._is_held():
            status = self._read_status()  # it may have ended since the first reading
            if status["state"] == "running":
                reason = "dsr launch is gone without a word: it was killed, or the disk is full"
                status.update(state="failed", reason=reason)
        return status

    def _read_status(self) -> dict[str, Any]:
        try:
            return json.loads(self._status.read_text())
        except FileNotFoundError:
            raise UserError(f"{self.folder}: no run here (no status.json)") from None
        except ValueError as error:
            raise UserError(f"{self._status}: not JSON ({error})") from None

    def set_status(self, state: str, reason: str = "", **more: Any) -> None:
        """Write status.json, atomically: "running" starts anew, any other state ends the run.

        `more` may hold `updates` and `weights_sha256`; what is not given stays as it was.
        """
        if state not in STATES:
            raise ValueError(f"{state!r} is not one of {STATES}")
        now = datetime.now(UTC).isoformat(timespec="seconds")
        status = {"state": state, "reason": reason, "updates": 0, "weights_sha256": None, "started": now, "ended": None}
        if state != "running":
            old = json.loads(self._status.read_text())
            status.update({key: old[key] for key in ("updates", "weights_sha256", "started")}, ended=now)
        write_json(self._status, {**status, **more})

    def _is_held(self) -> bool:
        try:
            with (self.folder / ".lock").open() as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except FileNotFoundError:
            return False
        return False

    # metrics

    def log(self, **record: Any) -> None:
        """Append one line to metrics.jsonl, whole or not at all (OSError). NaN is refused (ValueError): not JSON."""
        append_whole(self.metrics, json.dumps(record, allow_nan=False) + "\n")

    def logged(self) -> list[dict[str, Any]]:
        """The records of metrics.jsonl, without a last line that is broken or still being written."""
        if not self.metrics.exists():
            return []
        try:
            lines = self.metrics.read_text().splitlines(keepends=True)
            if lines and not _is_record(lines[-1]):
                lines.pop()
            return [json.loads(line) for line in lines]
        except ValueError as error:
            raise UserError(f"{self.metrics}: not lines of JSON ({error})") from None

    def rewind(self, update: int) -> None:
        """Drop the records of metrics.jsonl after an update: a resumed run plays those updates again."""
        kept = [record for record in self.logged() if record["update"] <= update]
        with whole_file(self.metrics) as temporary:
            temporary.write_text("".join(json.dumps(record) + "\n" for record in kept))

    # checkpoints and the model

    def save_checkpoint(self, name: str, tensors: Mapping[str, Tensors], state: dict[str, Any]) -> Path:
        """Write checkpoints/NAME: one safetensors file for each entry of `tensors`, state.json and their checksums.

        It exists whole or not at all, also after a power cut. Of the checkpoints named by `checkpoint_name`, the last
        two stay.
        """
        self.checkpoints.mkdir(exist_ok=True)
        for left in self.checkpoints.glob(".*"):  # by a process that was killed while it wrote
            remove(left)
        path = self.checkpoints / name
        checkpoints.write(path, tensors, {"state.json": state})
        for old in self.list_checkpoints()[:-2]:  # hidden first, so that none is ever seen half removed
            remove(old.replace(old.with_name(f".{old.name}")))
        return path

    def list_checkpoints(self) -> list[Path]:
        """The checkpoints named by `checkpoint_name`, oldest first."""
        return sorted(self.checkpoints.glob("update-*"))

    def load_checkpoint(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]] | None:
        """Verify and read the last checkpoint: (tensors, state), or None if there is none.

        A damaged one is passed over for the one before, and a line on stderr says so. Raises Damaged if none is
        whole. Only safetensors and JSON are read: nothing is executed.
        """
        damage: Damaged | None = None
        for path in reversed(self.list_checkpoints()):
            try:
                return checkpoints.read_checkpoint(path)
            except Damaged as error:
                damage = error
                print(f"{error}: taking the checkpoint before it", file=sys.stderr)
        if damage is not None:
            raise Damaged(f"no whole checkpoint is left in {self.checkpoints}: {damage}")
        return None

    def save_model(self, parameters: Tensors, arrays: Tensors, description: dict[str, Any]) -> None:
        """Write model/: model.safetensors, features.safetensors, and model.json, which says how to rebuild them."""
        tensors = {"model": parameters, "features": arrays}
        checkpoints.write(self.model, tensors, {"model.json": description})


def _is_record(line: str) -> bool:
    """Whether a line of metrics.jsonl was written to its end."""
    try:
        return isinstance(json.loads(line), dict) and line.endswith("\n")
    except ValueError:
        return False
