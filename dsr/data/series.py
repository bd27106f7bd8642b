"""What an opener returns: one variable of one file, with its frames, their intervals, and how to read each."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np


class Frame(NamedTuple):
    """The initial time and lead time of a field, in seconds; initial times since 1970-01-01 of the data's calendar."""

    init: int
    lead: int


class Span(NamedTuple):
    """A frame, with the lead times at which the interval of its values starts and ends.

    `start` equals `end` for values at an instant; it is None if the file does not say. `lead` is given if the file
    stamps its values at a time other than the end of the interval, such as daily means at noon.
    """

    init: int
    start: int | None
    end: int
    lead: int | None = None

    @property
    def frame(self) -> Frame:
        return Frame(self.init, self.end if self.lead is None else self.lead)


@dataclass(frozen=True, eq=False)
class Series:
    """One variable of one file, at one level and of one statistic. Picklable: the reader opens the file when it reads.

    `read(keys[span])` gives ([member,] y, x), NaN where missing, in the units of `attributes` and in the order of
    `members`; it has no member axis where `members` is None.
    """

    name: str  # as in the file; for GRIB the cfVarName, such as "t2m"
    file: str  # for messages
    attributes: dict[str, str]  # units, standard_name, long_name: as in the file; "" if unknown
    statistic: str  # "point", "sum", "mean", "maximum", "minimum", or "" if the file does not say
    grid: Any  # dsr.data.grid.Grid
    calendar: str
    keys: dict[Span, Any]  # the location of each frame, for `reader`
    reader: Callable[[Any], np.ndarray]
    members: tuple[int | str, ...] | None = None  # None: not an ensemble
    level: tuple[str, float] | None = None  # its kind (GRIB's typeOfLevel, or a coordinate's name) and value
    labels: dict[str, str | float] = field(default_factory=dict)  # other distinguishing labels, such as expver
    precision: float = 0.0  # largest error of a value due to packing, in the file's units; 0 if not packed
    valid: tuple[float, float] = (-math.inf, math.inf)  # values outside are missing by the file's metadata
    notes: tuple[str, ...] = ()  # what the user should check, such as "grid-relative winds"
    timeless: bool = False  # a single field without a time, even if others in the file have one
    kept: tuple[int, ...] | None = None  # indices of the reader's members that are kept; None: all

    @property
    def short_name(self) -> str:
        return self.attributes.get("GRIB_cfVarName") or self.name

    def read(self, span: Span) -> np.ndarray:
        """([member,] y, x) float32. Raises OSError, naming the file, if reading fails."""
        values = np.asarray(self.reader(self.keys[span]), np.float32)
        return values if self.kept is None or values.ndim == 2 else values[list(self.kept)]
