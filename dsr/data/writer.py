"""Writing a store: beside its place, and there only when it is whole; what was killed goes on where it was."""

import errno
import json
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from dsr.data.fields import Chunks
from dsr.data.manifest import checksum, write_manifest
from dsr.data.skeleton import finish_skeleton, write_counts, write_skeleton
from dsr.data.statistics import of_store
from dsr.data.store import Layout, Store
from dsr.errors import UserError
from dsr.files import take_lock, take_place

PATIENCE = 5.0  # seconds for the processes of a preparation that was killed to end


class Writer:
    """Fills a store beside its place; use as a context manager, and nothing is left unless it ends well.

    `writer.high[i] = (variable, y, x)` and `writer.low[j] = ([member,] variable, y, x)`, float32, NaN where missing,
    in any order and once each; or `workers.write_rows`, in parallel. At the end the statistics and the fingerprint are
    computed and the store is renamed into place.

    With a `plan`, a text that tells one preparation from any other, the hidden folder in which the store grows stays
    where this process is killed or interrupted, and the next writer with this plan goes on there.

    Raises UserError if `path` exists or another process is writing it.
    """

    def __init__(self, path: Path, layout: Layout, plan: str = ""):
        self.path, self.layout, self.plan = Path(path), layout, plan
        self._check_place()
        self.partial = self.path.with_name(f".{self.path.name}.partial")
        self.folder = self.partial / "store"
        self.sums: dict[str, str] = {}  # of the chunks that are written
        self.high = Chunks(self.folder, "high/field", layout.high_shape, self.sums)
        self.low = Chunks(self.folder, "low/field", layout.low_shape, self.sums)

    def __enter__(self) -> "Writer":
        try:
            self.descriptor = _claim(self.partial, self.path)
            try:
                self.done = self._read_journal()
                if not self.done:
                    self._begin()
            except BaseException:
                self._remove()
                raise
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise
            raise UserError(f"{self.path}: cannot be written there ({error.strerror or error})") from error
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self._finish()
                take_place(self.folder, self.path)
        except KeyboardInterrupt:
            kind = KeyboardInterrupt
            raise
        finally:
            if self.plan and kind is KeyboardInterrupt:
                os.close(self.descriptor)
            else:
                self._remove()

    def note(self, job: int, sums: dict[str, str], counts: dict[Any, int]) -> None:
        """Remember the files that a job wrote, and what it counted, also for a later process."""
        self.sums.update(sums)
        self.done[job] = Counter(counts)
        with (self.partial / "journal").open("a") as journal:
            journal.write(json.dumps([job, sums, list(counts.items())]) + "\n")

    def _check_place(self) -> None:
        if self.path.exists():
            raise UserError(f"{self.path} exists already: give another output path, or remove it first")

    def _begin(self) -> None:
        """Begin anew, whatever an earlier process left."""
        for left in self.partial.iterdir():
            if left.name not in LOCKS:
                shutil.rmtree(left) if left.is_dir() else left.unlink()
        write_skeleton(self.folder, self.layout)
        (self.partial / "plan").write_text(self.plan)

    def _read_journal(self) -> dict[int, Counter]:
        """The jobs that a killed process with this plan finished, and what they counted."""
        plan, journal = (self.partial / name for name in ("plan", "journal"))
        if not (self.plan and plan.exists() and plan.read_text() == self.plan and journal.exists()):
            return {}
        done: dict[int, Counter] = {}
        for line in journal.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                job, sums, counts = json.loads(line)
                if all(_holds(self.folder / name, told) for name, told in sums.items()):
                    self.sums.update(sums)
                    done[job] = Counter({tuple(key) if isinstance(key, list) else key: n for key, n in counts})
        return done

    def _finish(self) -> None:
        for chunks in (self.high, self.low):
            if (row := chunks.absent()) is not None:
                raise RuntimeError(f"row {row} of {chunks.name} was never written")
        finish_skeleton(self.folder)
        self._write_manifest()
        statistics, counts = self._statistics(Store(self.folder))
        write_counts(self.folder, counts)
        finish_skeleton(self.folder, statistics=statistics)
        self._write_manifest()

    def _statistics(self, store: Store) -> tuple[dict[str, Any], np.ndarray]:
        return of_store(store)

    def _write_manifest(self) -> None:
        chunks = {self.folder / "high/field/c", self.folder / "low/field/c"}
        files = [self.folder / "zarr.json"]
        for folder, folders, names in os.walk(self.folder):
            here = Path(folder)
            folders[:] = [name for name in folders if here / name not in chunks]
            files += [here / name for name in names if here != self.folder]
        small = {str(file.relative_to(self.folder)): checksum(file.read_bytes()) for file in files}
        write_manifest(self.folder, self.sums | small, self.layout.provenance)

    def _remove(self) -> None:
        shutil.rmtree(self.partial, ignore_errors=True)
        os.close(self.descriptor)


LOCKS = ("lock", "workers")  # of the process that writes, and of those that it started


def _claim(partial: Path, path: Path) -> int:
    """Be the only one that writes in a partial folder, until the descriptor that this returns is closed."""
    while True:
        partial.mkdir(parents=True, exist_ok=True)
        own, workers = (os.open(partial / name, os.O_RDWR | os.O_CREAT, 0o644) for name in LOCKS)
        try:
            if not (take_lock(own, 0) and take_lock(workers, PATIENCE)):
                raise UserError(f"{path}: another process is writing it: wait for it, or give another output path")
        except BaseException:
            os.close(own)
            raise
        finally:
            os.close(workers)
        if (partial / "lock").exists() and os.path.samestat(os.fstat(own), (partial / "lock").stat()):
            return own
        os.close(own)  # the one who had it has removed it


def _holds(file: Path, told: str) -> bool:
    return file.exists() and checksum(file.read_bytes()) == told
