"""A run's folder: its lock, status, metrics, checksummed checkpoints and model. The only one who knows its layout."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from dsr.errors import UserError
from dsr.files import clean, remove, take_lock, whole_file, whole_folder, write_json
from dsr.run import launches

if TYPE_CHECKING:
    from torch import Tensor

Tensors = Mapping[str, "Tensor"]

LOCKS = (".lock", ".writer")  # of `dsr launch`, and of its rank 0
FORMAT = 2  # of checkpoints and models; those of format 1 had no number
ARITHMETIC = ("dsr", "deepspeed", "torch", "numpy")  # the packages whose versions may change a run's bits
STATES = ("running", "finished", "failed", "stopped")
# What a run leaves in its folder: `--force` removes these and nothing else.
CONTENT = [
    *("experiment.json", "deepspeed.json", "plan.json", "environment.json", "status.json", "metrics.jsonl"),
    *("events.out.*", "checkpoints", "model", "report", "forecast_*.nc"),
    *("hostfile", "deepspeed_env", "last_words"),
]
PATIENCE = 60.0  # seconds for the ranks of an earlier launch to end
GLANCE = 0.5  # seconds for those to let go who only look whether a folder is locked


class Damaged(Exception):
    """A checkpoint or model is not what was written: which file, and how it differs."""


@dataclass(frozen=True)
class Run:
    """One run's folder. Making the object touches no file; `hold` opens a folder for writing."""

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
    def report(self) -> Path:
        return self.folder / "report"

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

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

    # status

    def status(self) -> dict[str, Any]:
        """status.json: state, reason, updates, weights_sha256, started, ended.

        "running" without a live `dsr launch` behind it reads as failed. Raises UserError where there is no run.
        """
        status = self._read_status()
        if status["state"] == "running" and not self._is_held():
            status = self._read_status()  # it may have ended between the two looks
            if status["state"] == "running":
                status.update(state="failed", reason="dsr launch is gone without a word: killed, or the disk is full")
        return status

    def _read_status(self) -> dict[str, Any]:
        try:
            return json.loads((self.folder / "status.json").read_text())
        except FileNotFoundError:
            raise UserError(f"{self.folder}: no run here (no status.json)") from None
        except ValueError as error:
            raise UserError(f"{self.folder / 'status.json'}: not JSON ({error})") from None

    def set_status(self, state: str, reason: str = "", **more: Any) -> None:
        """Write status.json, atomically: "running" starts anew, any other state ends the run.

        `more` may hold `updates` and `weights_sha256`; what is not given stays as it was.
        """
        if state not in STATES:
            raise ValueError(f"{state!r} is not one of {STATES}")
        now = datetime.now(UTC).isoformat(timespec="seconds")
        status = {"state": state, "reason": reason, "updates": 0, "weights_sha256": None, "started": now, "ended": None}
        if state != "running":
            old = json.loads((self.folder / "status.json").read_text())
            status.update({key: old[key] for key in ("updates", "weights_sha256", "started")}, ended=now)
        write_json(self.folder / "status.json", {**status, **more})

    def _is_held(self) -> bool:
        try:
            with (self.folder / ".lock").open() as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except FileNotFoundError:
            return False
        return False

    def claim(self, patience: float = PATIENCE) -> int:
        """Be the only rank 0 that writes here, until this process ends or closes the descriptor that it returns.

        A rank of a launch that was killed may take a moment to notice it. Raises TimeoutError if it stays.
        """
        descriptor = os.open(self.folder / ".writer", os.O_WRONLY | os.O_CREAT, 0o644)
        if not take_lock(descriptor, patience):
            os.close(descriptor)
            raise TimeoutError(f"a rank of an earlier launch still writes in {self.folder}")
        return descriptor

    # metrics

    def log(self, **record: Any) -> None:
        """Append one line to metrics.jsonl, whole, in one write. NaN is refused (ValueError): it is not JSON."""
        line = json.dumps(record, allow_nan=False) + "\n"
        descriptor = os.open(self.metrics, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)

    def logged(self) -> list[dict[str, Any]]:
        """The records of metrics.jsonl; a last line that is still being written is left out."""
        if not self.metrics.exists():
            return []
        try:
            lines = self.metrics.read_text().splitlines(keepends=True)
            return [json.loads(line) for line in lines if line.endswith("\n")]
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
        _write(path, tensors, {"state.json": state})
        for old in self.list_checkpoints()[:-2]:  # out of sight first, so that none is ever seen half removed
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
                return read_checkpoint(path)
            except Damaged as error:
                damage = error
                print(f"{error}: taking the checkpoint before it", file=sys.stderr)
        if damage is not None:
            raise Damaged(f"no whole checkpoint is left in {self.checkpoints}: {damage}")
        return None

    def save_model(self, parameters: Tensors, arrays: Tensors, description: dict[str, Any]) -> None:
        """Write model/: model.safetensors, features.safetensors, and model.json, which tells how to rebuild them."""
        _write(self.model, {"model": parameters, "features": arrays}, {"model.json": description})


def check_format(path: Path, found: Any, known: int, remedy: str) -> None:
    """Raise UserError where a file is of another format than this dsr's; `remedy`: for older ones."""
    if found != known:
        remedy = "update dsr" if isinstance(found, int) and found > known else remedy
        raise UserError(f"{path}: of format {found}, and this dsr reads format {known}: {remedy}")


def checkpoint_name(update: int) -> str:
    return f"update-{update:08d}"


@contextlib.contextmanager
def hold(folder: Path, *, resume: bool = False, force: bool = False) -> Iterator[Run]:
    """Make or open a run's folder and lock it until the end of the block.

    A folder that holds a run is refused unless `resume` (go on) or `force` (what the run left there is removed); one
    that holds anything else always is. Raises UserError, also if another `dsr launch` has the folder. What is still
    alive of a launch that was killed is ended first: on this host by its mark, elsewhere it ends by itself.
    """
    run = Run(folder)
    check_links(folder)
    try:
        is_run = (folder / "status.json").exists()
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror})") from None
    if resume and not is_run:
        raise UserError(f"--resume: {folder} holds no run")
    if is_run and not (resume or force):
        raise UserError(
            f"{folder} already holds a run; --resume goes on, --force replaces it, --run-dir goes elsewhere"
        )
    try:
        left = [path.name for path in folder.iterdir()] if folder.exists() and not is_run else []
        if any(
            name not in LOCKS and not name.startswith(".status.json.") for name in left
        ):  # killed at its first write
            raise UserError(f"{folder} is not empty and holds no run; --run-dir must name a new folder")
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("a+")
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror})") from None
    with lock:
        if not take_lock(lock.fileno(), GLANCE):
            raise UserError(f"{folder} is in use by another dsr launch; --run-dir goes elsewhere")
        lock.seek(0)
        _end(lock.read())
        try:
            os.close(run.claim())
        except TimeoutError as error:
            raise UserError(f"{error}, on another host: end it there first") from None
        lock.truncate(0)
        lock.write(launches.mark(os.getpid()))
        lock.flush()
        clean(folder)
        if not resume:
            _clear(folder)
        yield run


def check_links(folder: Path) -> None:
    """Raise UserError where a link stands in a run's folder for a part of the run: we would write where it points."""
    for path in _parts(folder):
        if path.is_symlink():
            raise UserError(f"{path} is a link: a run's folder must hold its own files; remove it")


def _parts(folder: Path) -> list[Path]:
    """What is there of a run, its locks included."""
    here = folder.iterdir() if folder.is_dir() else []  # glob passes over links to nothing
    return [path for path in here if any(fnmatch(path.name, pattern) for pattern in (*CONTENT, *LOCKS))]


def _end(mark: str) -> None:
    """End every process on this host of the launch with this mark, if it is dead itself: else the folder is a copy."""
    while mark and not launches.lives(mark) and (left := launches.processes(mark)):
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=5)


def weights_sha256(parameters: Tensors) -> str:
    """The SHA-256 over the parameters' bytes, in the order of their names (hexadecimal)."""
    import torch

    digest = hashlib.sha256()
    for name in sorted(parameters):
        flat = parameters[name].detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def environment(devices: str, model: str, threads: int, fingerprint: str) -> dict[str, Any]:
    """What environment.json tells: versions, devices and their model, threads a rank, the store's fingerprint, ...

    "sources" is the SHA-256 over dsr's own Python files, names and bytes, in the order of their paths.
    """
    from dsr.data.remote import cleaned

    packages = (*ARITHMETIC, "xarray", "zarr", "safetensors")
    return {
        "python": platform.python_version(),
        "packages": {name: version(name) for name in packages},
        "sources": sources(),
        "host": platform.node(),
        "system": platform.platform(),
        "devices": devices,
        "device": model,
        "threads": threads,
        "fingerprint": fingerprint,
        "commit": _commit(),
        "command": cleaned(sys.argv),
    }


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What differs between two `environment`s and would change a run's bits, in people's words."""
    found = []
    if before.get("fingerprint") != after["fingerprint"]:
        found.append("the store's content")
    for name in ARITHMETIC:
        old, new = before.get("packages", {}).get(name), after["packages"][name]
        if old != new:
            found.append(f"{name} ({old}, now {new})")
    if before.get("sources") != after["sources"]:
        found.append("dsr's own code")
    for key, what in (("device", "the kind of device"), ("threads", "the number of threads")):
        if before.get(key) != after[key]:
            found.append(f"{what} ({before.get(key)}, now {after[key]})")
    return found


def read_checkpoint(path: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Verify and read one folder that `save_checkpoint` wrote: (tensors, state). Raises Damaged."""
    tensors, texts = _read(path)
    return tensors, texts["state.json"]


def read_model(path: Path) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Any]]:
    """Verify and read one folder that `save_model` wrote: (parameters, arrays, description). Raises Damaged."""
    tensors, texts = _read(path)
    return tensors["model"], tensors["features"], texts["model.json"]


def _write(path: Path, tensors: Mapping[str, Tensors], texts: dict[str, dict[str, Any]]) -> None:
    """Write a folder of safetensors and JSON files, whole or not at all, with SHA256SUMS as `sha256sum -c` reads it."""
    from safetensors.torch import save_file

    with whole_folder(path) as folder:
        for name, group in tensors.items():
            group = {key: tensor.detach().cpu().contiguous() for key, tensor in group.items()}
            save_file(group, folder / f"{name}.safetensors")
        for name, value in texts.items():
            write_json(folder / name, {"format": FORMAT, **value})
        sums = [f"{_sha256(file)}  {file.name}\n" for file in sorted(folder.iterdir())]
        (folder / "SHA256SUMS").write_text("".join(sums))
        for written in [*folder.iterdir(), folder]:
            _sync(written)
    _sync(path.parent)


def _read(path: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    tensors, texts = {}, {}
    file = path
    try:
        files = sorted(path.iterdir())
        for file in [path, *files]:
            if file.is_symlink() or not (file.is_file() or file == path):
                raise Damaged(f"{file} is not a plain file, and is not read")
            if file != path and file.suffix not in (".safetensors", ".json") and file.name != "SHA256SUMS":
                raise Damaged(f"{file} is neither safetensors nor JSON, and nothing else is read")
        file = path / "SHA256SUMS"
        lines = file.read_text().splitlines()
        sums = {name: expected for expected, name in (line.split("  ", 1) for line in lines)}
        for file in files:
            if file.name == "SHA256SUMS":
                continue
            if _sha256(file) != sums.pop(file.name, None):
                raise Damaged(f"{file} is damaged (its checksum differs)")
            if file.suffix == ".safetensors":
                tensors[file.stem] = load_file(file)
            else:
                texts[file.name] = json.loads(file.read_text())
    except (OSError, ValueError, SafetensorError) as error:
        raise Damaged(f"{file} is damaged ({error})") from None
    if sums:
        raise Damaged(f"{path} is damaged ({', '.join(sums)} missing)")
    for name, text in texts.items():
        check_format(path / name, text.pop("format", 1), FORMAT, "train it again")
    return tensors, texts


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Have the disk hold a file's bytes, or a folder's names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _clear(folder: Path) -> None:
    for path in _parts(folder):
        if path.name not in LOCKS:
            remove(path)


def version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def sources() -> str:
    """The SHA-256 over dsr's own Python files, names and bytes, in the order of their paths."""
    package, digest = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def processor() -> str:
    """The model of this host's CPU, and its widest vectors where Linux tells: other vectors, other sums."""
    fields = {"model name": platform.processor(), "flags": ""}
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().partition("\n\n")[0].splitlines()
        fields |= {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    widest = next((flag for flag in ("avx512f", "avx2") if flag in fields["flags"].split()), "")
    return " ".join(filter(None, (fields["model name"], widest)))


def _commit() -> str | None:
    """The commit of the checkout that dsr runs from, with "-dirty" where it was changed; none where it is installed."""
    checkout = Path(__file__).parents[2]
    if not (checkout / ".git").exists() or shutil.which("git") is None:
        return None
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip() or None
