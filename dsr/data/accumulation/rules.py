"""Where a file does not say over which interval it sums: rules for known archives, verified on the data."""

from collections.abc import Callable
from itertools import groupby, pairwise
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
        wrong = _no_total(ordered, read, rule, tolerance)
        if wrong and accumulated:
            raise UserError(f"is no total since the start of {'the run' if forecasts else 'the day'}: {wrong}; {TELL}")
        if wrong:
            if not steps and _step(ordered) != 3600:
                raise UserError(f"sums, and its file does not say over what interval ({wrong}); {TELL}")
            if _below_zero(ordered, read, tolerance):
                raise UserError(f"sums values below 0, so that no rule over what interval can be verified; {TELL}")
            if not _falls_at_any_step(ordered, read, tolerance):
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


def _no_total(spans: list[Span], read: Callable[[Span], np.ndarray], rule: str, tolerance: float) -> str:
    """Why the values are no total since the start of the run or of the day; "" where they are."""
    grew = fell_anew = fresh = False

    def key(span: Span) -> int:
        return span.init if rule == "run" else (span.init + span.end - 1) // DAY

    for window in _windows(spans):
        last = None
        for _, group in groupby(window, key):
            members = list(group)
            fields = [read(span) for span in members]
            for (_, before), (b, after) in pairwise(zip(members, fields, strict=True)):
                fall = float(np.nanmax(before - after, initial=0.0))
                if fall > max(tolerance, PACKED * float(np.nanmax(np.abs(before), initial=0.0))):
                    return f"it falls by {fall:.3g} before {_hours(b)}"
                grew |= bool(np.nanmax(after - before, initial=0.0) > 0)
            if last is not None:
                fresh = True
                fell_anew |= bool(np.nanmax(last - fields[0], initial=0.0) > tolerance)
            last = fields[-1]
    if not grew:
        return "it never grows in the fields that were looked at"
    if rule == "00 UTC" and fresh and not fell_anew:
        return "it does not start anew after 00 UTC"
    return ""


def _falls_at_any_step(spans: list[Span], read: Callable[[Span], np.ndarray], tolerance: float) -> bool:
    """Whether values fall somewhere from each step to the next, so that none holds more than its own step."""
    fell = rained = 0
    for window in _windows(spans):
        fields = [read(span) for span in window]
        for before, after in pairwise(fields):
            if np.nanmax(before, initial=0.0) > tolerance:
                rained += 1
                fell += bool(np.nanmax(before - after, initial=0.0) > tolerance)
    return rained > 0 and fell >= 0.9 * rained


def _below_zero(spans: list[Span], read: Callable[[Span], np.ndarray], tolerance: float) -> bool:
    """Whether values lie below 0 by more than their packing: then totals may fall at any step as amounts do."""
    fields = [read(span) for window in _windows(spans) for span in window]
    largest = max(float(np.nanmax(np.abs(field), initial=0.0)) for field in fields)
    lowest = min(float(np.nanmin(field, initial=0.0)) for field in fields)
    return lowest < -max(tolerance, PACKED * largest)


def _hours(span: Span) -> str:
    return f"+{span.frame.lead / 3600:g} h" if span.frame.lead else f"{(span.init % DAY) / 3600:g} UTC"
