"""What an opener gives: one variable of one file, with its frames, their intervals, and how each is read."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np


class Frame(NamedTuple):
    """When a field is of, in seconds of the data's own calendar since 1970-01-01."""

    init: int
    lead: int


class Span(NamedTuple):
    """A frame, and the lead at which the interval that its values cover starts.

    `start` equals `end` for values at an instant; it is None where the file does not say. `lead` is given where the
    file stamps its values at another moment than the interval's end, such as daily means at noon.
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
    """One variable of one file, at one level and of one statistic. Picklable: a reader opens its file when it reads.

    `read(keys[span])` gives ([member,] y, x), NaN where missing, in the units of `attributes` and in the order of
    `members`; it has no member axis where `members` is None.
    """

    name: str  # as the file names it; of GRIB its cfVarName, such as "t2m"
    file: str  # for messages
    attributes: dict[str, str]  # units, standard_name, long_name: as the file has them; "" where it does not know
    statistic: str  # "point", "sum", "mean", "maximum", "minimum", or "" where the file does not say
    grid: Any  # dsr.data.grid.Grid
    calendar: str
    keys: dict[Span, Any]  # where each frame lies, for `reader`
    reader: Callable[[Any], np.ndarray]
    members: tuple[int | str, ...] | None = None  # None: not of an ensemble
    level: tuple[str, float] | None = None  # its kind (GRIB's typeOfLevel, or a coordinate's name) and value
    labels: dict[str, str | float] = field(default_factory=dict)  # what else tells it apart, such as expver
    precision: float = 0.0  # of the packing: the largest error of a value, in the file's units; 0 where not packed
    valid: tuple[float, float] = (-math.inf, math.inf)  # outside of it the file itself takes values as missing
    notes: tuple[str, ...] = ()  # what a human must judge, such as "grid-relative winds"
    timeless: bool = False  # one field, which does not change with the time that its file has for others
    kept: tuple[int, ...] | None = None  # which of the reader's members it is cut to; None: all

    @property
    def short_name(self) -> str:
        return self.attributes.get("GRIB_cfVarName") or self.name

    def read(self, span: Span) -> np.ndarray:
        """([member,] y, x) float32. Raises OSError where reading fails, naming the file."""
        values = np.asarray(self.reader(self.keys[span]), np.float32)
        return values if self.kept is None or values.ndim == 2 else values[list(self.kept)]
