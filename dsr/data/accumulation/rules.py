"""Where a file does not say over which interval it sums: rules for known archives, verified on the data."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from dsr.data.series import Span
from dsr.errors import UserError

DAY = 86400
WINDOW = 26  # frames that are read together: a day of hours, and where the next one begins
PACKED = 1e-3  # of the largest total: by so much it may fall in a file that was packed once
WINDOWS = 6  # of them, spread over the archive
TELL = 'say in a recipe over what it sums: "accumulated": "run", "00 UTC" or false (the step before), or "hours"'

Accumulated = bool | Literal["run", "00 UTC"] | None


def with_starts(
    spans: list[Span],
    read: Callable[[Span], np.ndarray],
    *,
    accumulated: Accumulated = None,
    hours: float | None = None,
    steps: bool = False,
    tolerance: float = 0.0,
) -> dict[Span, Span]:
    """{span: the same with its start}, of sums whose file does not say it.

    `accumulated` is what a recipe says (None: nothing); `read(span)` gives a field of the file; falls of a total within
    `tolerance` are packing. `steps`: CF's cell_methods say that each value is the sum of its step. What is not said is
    found in the data: a total never falls within its run (or day) and starts anew in the next; sums of single steps
    fall at any hour. Raises UserError where the data contradict the recipe, or fit none of the rules.
    """
    ordered = sorted(spans, key=lambda span: (span.init, span.end))
    if hours and not accumulated:
        return {span: span._replace(start=span.end - round(hours * 3600)) for span in ordered}
    forecasts = any(span.frame.lead for span in ordered)
    rule = accumulated
    if accumulated is None or accumulated is True:
        rule = "run" if forecasts else "00 UTC"
        seen = _look(ordered, read, rule, tolerance)
        wrong = seen.no_total(rule)
        if wrong and accumulated:
            raise UserError(f"is no total since the start of {'the run' if forecasts else 'the day'}: {wrong}; {TELL}")
        if wrong:
            if not steps and _step(ordered) != 3600:
                raise UserError(f"sums, and its file does not say over what interval ({wrong}); {TELL}")
            if seen.lowest < -max(tolerance, PACKED * seen.largest):  # then totals may fall at any step as amounts do
                raise UserError(f"sums values below 0, so that no rule over what interval can be verified; {TELL}")
            if not 0 < 0.9 * seen.rained <= seen.fell:
                raise UserError(f"sums, and its values fall at some steps only ({wrong}), as buckets do; {TELL}")
            rule = False
    if rule == "run":
        return {span: span._replace(start=0) for span in ordered}
    if rule == "00 UTC":
        return {span: span._replace(start=(span.init + span.end - 1) // DAY * DAY - span.init) for span in ordered}
    step = _step(ordered)
    return {span: span._replace(start=span.end - step) for span in ordered}


def _step(spans: list[Span]) -> int:
    """The usual step, in seconds, between frames of a run, or between analyses."""
    times = [(span.init if span.frame.lead else 0, span.init + span.end) for span in spans]
    steps = [b[1] - a[1] for a, b in pairwise(sorted(set(times))) if a[0] == b[0]]
    if not steps:
        raise UserError(f"sums, and its file has one time only; {TELL}")
    return int(np.median(steps))


def _windows(spans: list[Span]) -> list[list[Span]]:
    """Up to WINDOWS stretches of consecutive frames, spread over the archive."""
    if len(spans) <= WINDOW * WINDOWS:
        return [spans]
    firsts = np.linspace(0, len(spans) - WINDOW, WINDOWS).astype(int)
    return [spans[first : first + WINDOW] for first in firsts]


@dataclass
class _Seen:
    """What the fields of some windows show of how values follow each other."""

    fall: str = ""  # the first fall within a run or day
    grew: bool = False  # within a run or day
    fresh: bool = False  # a run or day began
    fell_anew: bool = False  # and values were smaller there
    rained: int = 0  # steps before which there was anything
    fell: int = 0  # those of them at which values fell somewhere
    lowest: float = 0.0
    largest: float = 0.0

    def no_total(self, rule: str) -> str:
        """Why the values are no total since the start of the run or of the day; "" where they are."""
        if self.fall:
            return self.fall
        if not self.grew:
            return "it never grows in the fields that were looked at"
        return "it does not start anew after 00 UTC" if rule == "00 UTC" and self.fresh and not self.fell_anew else ""


def _look(spans: list[Span], read: Callable[[Span], np.ndarray], rule: str, tolerance: float) -> _Seen:
    """Read each field of some windows once, and hold it against the one before."""

    def since(span: Span) -> int:
        return span.init if rule == "run" else (span.init + span.end - 1) // DAY

    seen = _Seen()
    for window in _windows(spans):
        for (first, before), (second, after) in pairwise((span, read(span)) for span in window):
            fall, growth, rain = (float(np.nanmax(f, initial=0.0)) for f in (before - after, after - before, before))
            size = float(np.nanmax(np.abs(before), initial=0.0))
            seen.largest = max(seen.largest, size, float(np.nanmax(np.abs(after), initial=0.0)))
            seen.lowest = min(seen.lowest, *(float(np.nanmin(f, initial=0.0)) for f in (before, after)))
            seen.rained += rain > tolerance
            seen.fell += rain > tolerance and fall > tolerance
            if since(first) != since(second):
                seen.fresh = True
                seen.fell_anew |= fall > tolerance
                continue
            seen.grew |= growth > 0
            if fall > max(tolerance, PACKED * size):
                seen.fall = seen.fall or f"it falls by {fall:.3g} before {_hours(second)}"
    return seen


def _hours(span: Span) -> str:
    return f"+{span.frame.lead / 3600:g} h" if span.frame.lead else f"{(span.init % DAY) / 3600:g} UTC"
