"""Who may write in a run's folder: one `dsr launch` at a time, and one rank 0."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from dsr.errors import UserError
from dsr.files import clean, remove, take_lock
from dsr.run import launches
from dsr.run.folder import LOCKS, Run

PATIENCE = 60.0  # seconds for the ranks of an earlier launch to end
GLANCE = 0.5  # seconds for readers of the status, who lock a folder for a moment, to let go


@contextlib.contextmanager
def hold(folder: Path, *, resume: bool = False, force: bool = False) -> Iterator[Run]:
    """Make or open a run's folder and lock it until the end of the block; what an earlier run left there stays.

    A folder that holds a run is refused unless `resume` (go on) or `force` (it will be replaced: see `clear`); one that
    holds anything else always is. Raises UserError, also if another `dsr launch` has the folder. Processes that are
    still alive of a launch that was killed are ended first: on this host by their mark, elsewhere they end themselves.
    """
    run = Run(folder)
    check_links(folder)
    exists = run.exists()
    if resume and not exists:
        raise UserError(f"--resume: {folder} holds no run")
    if exists and not (resume or force):
        raise UserError(
            f"{folder} already holds a run; --resume goes on, --force replaces it, --run-dir goes elsewhere"
        )
    try:
        names = [path.name for path in folder.iterdir()] if folder.exists() and not exists else []
        if any(name not in LOCKS and not name.startswith(".status.json.") for name in names):  # killed at first write
            raise UserError(f"{folder} is not empty and holds no run; --run-dir must name a new folder")
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("a+")
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror})") from None
    with lock:
        if not take_lock(lock.fileno(), GLANCE):
            raise UserError(f"{folder} is in use by another dsr launch; --run-dir goes elsewhere")
        lock.seek(0)
        launches.end(lock.read())  # a launch that lives has another folder, of which this is a copy
        try:
            os.close(claim(run))
        except TimeoutError as error:
            raise UserError(f"{error}, on another host: end it there first") from None
        lock.truncate(0)
        lock.write(launches.mark(os.getpid()))
        lock.flush()
        clean(folder)
        run.variables.unlink(missing_ok=True)  # a launch that was killed may have left a user's tokens in it
        yield run


def clear(run: Run) -> None:
    """Remove what an earlier run left in its folder, and nothing else; call only while holding it."""
    for path in run.parts():
        if path.name not in LOCKS:
            remove(path)


def claim(run: Run, patience: float = PATIENCE) -> int:
    """Be the only rank 0 that writes to a run, until this process ends or closes the descriptor that is returned.

    A rank of a launch that was killed may take a moment to notice it. Raises TimeoutError if it stays.
    """
    descriptor = os.open(run.folder / ".writer", os.O_WRONLY | os.O_CREAT, 0o644)
    if not take_lock(descriptor, patience):
        os.close(descriptor)
        raise TimeoutError(f"a rank of an earlier launch still writes in {run.folder}")
    return descriptor


def check_links(folder: Path) -> None:
    """Raise UserError where a link takes the place of a part of the run: we would write where it points."""
    for path in Run(folder).parts():
        if path.is_symlink():
            raise UserError(f"{path} is a link: a run's folder must hold its own files; remove it")
