"""Commands of `dsr` as processes: to their end, or while a test disturbs the launcher and its ranks."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from dsr.run import Run, launches

ROOT = Path(__file__).parents[1]
PATIENCE = 600  # seconds that a test waits for an event, on the busiest machine; longer is a hang


def dsr(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command of `dsr` to its end, with these variables added to the environment."""
    command = [sys.executable, "-m", "dsr", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})


class Launched:
    """`dsr launch CONFIG --run-dir FOLDER ...` in a session of its own; use as a context manager: nothing outlives it.

    `code` takes the place of `-m dsr` for a launch that a test has changed, `before` runs in the child before it
    starts, and `path` is where Python looks first (see `instead_of_training`).
    """

    def __init__(
        self,
        folder: Path,
        *arguments: Any,
        code: str = "",
        before: Callable[[], None] = lambda: None,
        path: Path | str = "",
    ):
        self.run = Run(folder)
        self.begun = time.time()
        self.errors = tempfile.TemporaryFile("a+")  # noqa: SIM115  (closed at the end)
        start = ["-c", code] if code else ["-m", "dsr"]
        line = [sys.executable, *start, "launch", *map(str, arguments), "--run-dir", str(folder)]

        def prepare() -> None:
            signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell has it ignored
            before()

        environment = {**os.environ, "PYTHONPATH": f"{path}:{ROOT}"}
        self.process = subprocess.Popen(
            line, cwd=ROOT, env=environment, stderr=self.errors, start_new_session=True, preexec_fn=prepare
        )
        self.mark = launches.mark(self.process.pid)

    def __enter__(self) -> "Launched":
        return self

    def __exit__(self, *problem: Any) -> None:
        for process in launches.processes(self.mark):
            process.kill()
        self.process.kill()
        self.process.wait()
        self.errors.close()

    def members(self) -> dict[str, list[int]]:
        """The pids of this launch's living processes: "ranks" (in their order), "inner launcher", "runner"."""
        found: dict[str, list[tuple[int, int]]] = {"ranks": [], "inner launcher": [], "runner": []}
        for process in launches.processes(self.mark):
            try:
                line, rank = process.cmdline(), int(process.environ().get("RANK", "0"))
            except psutil.Error:
                continue
            if line[1:3] == ["-u", "-m"] and "deepspeed" not in line[3]:
                found["ranks"].append((rank, process.pid))
            elif "deepspeed.launcher.launch" in line:
                found["inner launcher"].append((rank, process.pid))
            elif "deepspeed.launcher.runner" in line:
                found["runner"].append((rank, process.pid))
        return {what: [pid for _, pid in sorted(pids)] for what, pids in found.items()}

    def pid(self, what: str) -> int:
        """The pid of "dsr launch", "runner", "inner launcher" or the last "rank"."""
        if what == "dsr launch":
            return self.process.pid
        return self.members()["ranks" if what == "rank" else what][-1]

    def wait_for_updates(self, more: int) -> None:
        """Wait until it has logged some updates, and so saved a checkpoint where that is done in each."""

        def logged() -> bool:
            assert self.process.poll() is None, self.said()
            return sum(line["time"] > self.begun for line in self.run.logged() if "time" in line) >= more

        wait_until(logged)

    def end(self) -> int:
        """Wait for the end: the exit code. No process of it may be left then."""
        code = self.process.wait(PATIENCE)
        assert launches.processes(self.mark) == [], self.said()
        return code

    def said(self) -> str:
        self.errors.seek(0)
        return self.errors.read()


def instead_of_training(folder: Path, name: str, code: str) -> dict[str, Any]:
    """Options of a launch whose ranks run this code, as the module `name` in `folder`."""
    (folder / f"{name}.py").write_text(code)
    return {
        "code": f"from dsr import cli; from dsr.cluster import processes; processes.TRAIN = {name!r}; cli.main()",
        "path": folder,
    }


def unused_shared_memory(files: set[Path]) -> set[Path]:
    """Those files in /dev/shm that no living process has opened or mapped, or is named in: left by dead ones."""
    used = set()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            used.update(line.split(maxsplit=5)[-1] for line in (process / "maps").read_text().splitlines())
            used.update(str(descriptor.readlink()) for descriptor in (process / "fd").iterdir())
    left = {path for path in files if path.exists() and str(path) not in used}
    return {path for path in left if not any(psutil.pid_exists(int(n)) for n in re.findall(r"\d{3,}", path.name))}


def wait_until(true: Callable[[], Any]) -> None:
    """Wait for an event."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)
