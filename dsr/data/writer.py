"""Writing a store: beside its place, and there only when it is whole."""

import errno
import os
import shutil
from pathlib import Path

from dsr.data.fields import Chunks
from dsr.data.manifest import checksum, write_manifest
from dsr.data.skeleton import finish_skeleton, write_skeleton
from dsr.data.statistics import of_store
from dsr.data.store import Layout, Store
from dsr.errors import UserError
from dsr.files import beside


class Writer:
    """Fills a store beside its place; use as a context manager, and nothing is left unless it ends well.

    `writer.high[i] = (variable, y, x)` and `writer.low[j] = ([member,] variable, y, x)`, float32, NaN where missing,
    in any order and once each. At the end the statistics and the fingerprint are computed and the store is renamed
    into place. Raises UserError if `path` exists.
    """

    def __init__(self, path: Path, layout: Layout):
        self.path, self.layout = Path(path), layout
        if self.path.exists():
            raise UserError(f"{path} exists already: give another output path, or remove it first")
        self.temporary = beside(self.path)
        self.sums: dict[str, str] = {}  # of the chunks that are written
        self.high = Chunks(self.temporary, "high/field", layout.high_shape, self.sums)
        self.low = Chunks(self.temporary, "low/field", layout.low_shape, self.sums)

    def __enter__(self) -> "Writer":
        try:
            self.temporary.parent.mkdir(parents=True, exist_ok=True)
            write_skeleton(self.temporary, self.layout)
        except OSError as error:
            shutil.rmtree(self.temporary, ignore_errors=True)
            if error.errno == errno.ENOSPC:
                raise
            raise UserError(f"{self.path}: cannot be written there ({error.strerror or error})") from error
        except BaseException:
            shutil.rmtree(self.temporary, ignore_errors=True)
            raise
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self._finish()
                self.temporary.rename(self.path)
        finally:
            shutil.rmtree(self.temporary, ignore_errors=True)

    def _finish(self) -> None:
        for chunks in (self.high, self.low):
            if (row := chunks.absent()) is not None:
                raise RuntimeError(f"row {row} of {chunks.name} was never written")
        finish_skeleton(self.temporary)
        self._write_manifest()
        finish_skeleton(self.temporary, statistics=of_store(Store(self.temporary)))
        self._write_manifest()

    def _write_manifest(self) -> None:
        chunks = {self.temporary / "high/field/c", self.temporary / "low/field/c"}
        files = [self.temporary / "zarr.json"]
        for folder, folders, names in os.walk(self.temporary):
            here = Path(folder)
            folders[:] = [name for name in folders if here / name not in chunks]
            files += [here / name for name in names if here != self.temporary]
        small = {str(file.relative_to(self.temporary)): checksum(file.read_bytes()) for file in files}
        write_manifest(self.temporary, self.sums | small, self.layout.provenance)
