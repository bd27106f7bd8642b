"""Writing so that a file or folder exists whole or not at all: beside its place first, then a rename."""

import contextlib
import csv
import ctypes
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def cache_folder() -> Path:
    """The user's cache folder: DSR_CACHE, or dsr in XDG_CACHE_HOME or ~/.cache."""
    given = os.environ.get("DSR_CACHE")
    return Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dsr"


def beside(path: Path) -> Path:
    """A name in the same folder (so that a rename is atomic) that no other process takes."""
    return path.with_name(f".{path.name}.{os.getpid()}.partial")


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path; what is written there is flushed and takes the place of `path` at the end.

    On any exception the temporary file is removed and `path` is as it was.
    """
    temporary = beside(path)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a fresh temporary folder that becomes `path` at the end; an older folder of that name is replaced.

    At every moment `path` is the old folder or the new one (where the filesystem can exchange two folders: all but some
    network filesystems).
    """
    temporary = beside(path)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        take_place(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def take_place(folder: Path, path: Path) -> None:
    """Rename a folder to `path`; an older one of that name then lies where the folder was, or is gone."""
    if not path.exists():
        folder.replace(path)
    elif not _exchange(folder, path):
        old = path.with_name(f".{path.name}.{os.getpid()}.old")
        path.replace(old)
        folder.replace(path)
        shutil.rmtree(old, ignore_errors=True)


def take_lock(descriptor: int, patience: float, shared: bool = False) -> bool:
    """Lock an open file, exclusively or `shared`; False if others still hold it after `patience` seconds."""
    kind, deadline = fcntl.LOCK_SH if shared else fcntl.LOCK_EX, time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        else:
            return True


def clean(folder: Path) -> None:
    """Remove what killed processes left half written; call only where no other process writes."""
    for left in [*folder.glob(".*.partial"), *folder.glob(".*.old")]:
        remove(left)


def remove(path: Path) -> None:
    """Remove a file, a whole folder, or a link and not what it points to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically. NaN is refused (ValueError): it is not JSON."""
    text = json.dumps(value, indent=2, allow_nan=False)
    with whole_file(path) as temporary:
        temporary.write_text(text + "\n")


def append_whole(path: Path, text: str) -> None:
    """Append text to a file, whole or not at all (OSError, as on a full disk); for files with one writer."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        size, rest = os.fstat(descriptor).st_size, text.encode()
        try:
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        except OSError:
            os.ftruncate(descriptor, size)
            raise
    finally:
        os.close(descriptor)


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read; an older one of that name is replaced."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)


def write_csv(path: Path, lines: list[dict[str, Any]]) -> None:
    """Write a table, atomically; its columns are the keys of all lines in the order of their first appearance."""
    columns = list(dict.fromkeys(key for line in lines for key in line))
    with whole_file(path) as temporary, temporary.open("w", newline="") as out:
        writer = csv.DictWriter(out, columns)
        writer.writeheader()
        writer.writerows(lines)


def _exchange(one: Path, other: Path) -> bool:
    """Let two folders exchange their names in one step; False where the filesystem cannot."""
    here, flag = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return ctypes.CDLL(None).renameat2(here, os.fsencode(one), here, os.fsencode(other), flag) == 0
