"""Several archives as one: the first gives the grid, the others are interpolated onto it; frames are those in all."""

from collections import Counter
from typing import Any

import numpy as np

from dsr.data.archive import Archive, Framed
from dsr.data.interpolate import Interpolation
from dsr.data.limits import Window
from dsr.data.series import Frame
from dsr.data.store import Variable
from dsr.errors import UserError


class Joined(Framed):
    """Used like an Archive. Raises UserError if they share no time, a name occurs twice, or areas do not overlap."""

    def __init__(self, archives: list[Archive]):
        first = archives[0]
        self.archives, self.grid, self.calendar, self.members = archives, first.grid, first.calendar, first.members
        self.name = " and ".join(archive.name for archive in archives)
        self.files = [file for archive in archives for file in archive.files]
        self.notes = [note for archive in archives for note in archive.notes]
        self.onto: list[Interpolation | None] = []
        self.counts: Counter[tuple[str, str]] = Counter()
        for archive in archives:
            archive.counts = self.counts
            if archive.calendar != self.calendar or archive.members != self.members:
                raise UserError(f"{archive.name} and {first.name} differ in calendar or members and cannot be joined")
            self.onto.append(None if archive.grid.same(self.grid) else self._interpolation_of(archive))
        names = Counter(variable.name for variable in self.variables)
        if repeated := [name for name, count in names.items() if count > 1]:
            raise UserError(f"{self.name}: {', '.join(repeated)} is in more than one of the archives; rename it")
        shared = set.intersection(*(set(archive.frames) for archive in archives))
        self.frames = [frame for frame in first.frames if frame in shared]
        if not self.frames:
            raise UserError(f"{self.name}: have no time in common")
        self.rows = [{frame: i for i, frame in enumerate(archive.frames)} for archive in archives]
        self.dropped: dict[str, list[Frame]] = {}
        for archive in archives:
            unshared = [frame for frame in archive.frames if frame not in shared]
            self.dropped |= archive.dropped | ({f"only {archive.name} has it": unshared} if unshared else {})

    def _interpolation_of(self, archive: Archive) -> Interpolation:
        index = self.grid.index_on(archive.grid)
        inside = archive.grid.covers(index)
        self.notes.append(
            f"{archive.name} ({archive.grid.describe()}) is interpolated bilinearly onto the grid of "
            f"{self.archives[0].name} ({self.grid.describe()})"
            + (
                ""
                if inside.all()
                else f"; {int((~inside).sum())} points lie outside of it and take the values at its edge"
            )
        )
        if not inside.any():
            raise UserError(
                f"{archive.name} covers {archive.grid.extent()}, which does not overlap {self.grid.extent()}"
            )
        return Interpolation(index, archive.grid.shape, "bilinear")

    @property
    def variables(self) -> list[Variable]:
        return [variable for archive in self.archives for variable in archive.variables]

    def interval(self, name: str, frame: Frame) -> tuple[int, int] | None:
        return self._archive_of(name).interval(name, frame)

    def judge(self, window: Window) -> None:
        """From now on, reject impossible values only in these rows and columns of the first archive."""
        self.archives[0].judge(window)

    def convert(self, name: str, units: str) -> None:
        self._archive_of(name).convert(name, units)

    def file(self, index: int) -> str:
        """The name of the file of the first archive that holds a frame."""
        return self.archives[0].file(self.rows[0][self.frames[index]])

    def read(self, index: int) -> np.ndarray:
        """([member,] variable, y, x) float32 of one frame on the first archive's grid."""
        frame = self.frames[index]
        parts: list[Any] = []
        for archive, onto, rows in zip(self.archives, self.onto, self.rows, strict=True):
            fields = archive.read(rows[frame])
            parts.append(fields if onto is None else onto(fields))
        return np.concatenate(parts, axis=-3)

    def _archive_of(self, name: str) -> Archive:
        return next(a for a in self.archives if any(variable.name == name for variable in a.variables))
