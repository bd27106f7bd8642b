"""The accumulation interval of files that do not give it: rules for known archives, verified against the data."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np

from dsr.data.series import Span
from dsr.errors import UserError

HOUR, DAY = 3600, 86400
WINDOW = 26  # consecutive frames that are read: a day of hours and the start of the next
PACKING = 1e-3  # of the largest total: it may fall by this much in a file that was packed once
WINDOWS = 6  # how many windows, spread over the archive
MIN_STEPS = 3  # fewer wet steps prove nothing
MIN_POINTS = 30  # wet points of all these steps: fewer may all rise by chance
BUCKETS = (2, 3, 4, 6, 8, 12, 24)  # hours after which weather services restart sums
HINT = 'give the interval in a recipe: "accumulated": "run", "00 UTC" or false (the step before), or "hours"'
HINT_LENGTH = 'give the "hours" that each value covers, or leave "hours" out'
ONE_TIME = f"is a sum, and its file has only one time; {HINT}"

Total = Literal["run", "00 UTC"]
Accumulated = bool | Total | None


def with_starts(
    spans: list[Span],
    read: Callable[[Span], np.ndarray],
    *,
    accumulated: Accumulated = None,
    hours: float | None = None,
    steps: bool = False,
    tolerance: float = 0.0,
) -> tuple[dict[Span, Span], str]:
    """{span: span with start} of sums whose file does not give it; and a note if that is doubtful, or "".

    `accumulated` and `hours` come from the recipe (None: not given); `read(span)` returns a field of the file; falls of
    a total within `tolerance` are due to packing. `steps`: CF's cell_methods say that each value is the sum of its
    step. What is not given is inferred from the data, and what is given is checked against them: a total never falls
    within its run (or day) and restarts in the next; sums of single steps fall somewhere at nearly every step. Raises
    UserError if the data contradict the recipe or match none of the rules.
    """
    ordered = sorted(spans, key=lambda span: (span.init, span.end))
    total: Total = "run" if any(span.frame.lead for span in ordered) else "00 UTC"
    step = _step(ordered)
    if accumulated:
        given = total if accumulated is True else accumulated
        note = _check_total(_gather(ordered, read, given, tolerance), given, tolerance, sure=accumulated is True)
        rule: Total | None = given
    elif accumulated is False or hours:
        evidence = _gather(ordered, read, total, tolerance)
        signed = "some are below 0" if evidence.is_signed(tolerance) else ""
        rule, note = None, _check_steps(evidence, ordered, step, hours, "sums", signed)
    else:
        evidence, note = _gather(ordered, read, total, tolerance), ""
        rule = total if _is_total(evidence, total, steps, step, tolerance) else None
    starts = {
        "run": lambda span: 0,
        "00 UTC": lambda span: (span.init + span.end - 1) // DAY * DAY - span.init,
        None: lambda span: span.end - (round(hours * HOUR) if hours else step),
    }
    return {span: span._replace(start=starts[rule](span)) for span in ordered}, note


def _is_total(evidence: "_Evidence", rule: Total, steps: bool, step: int | None, tolerance: float) -> bool:
    """Whether undocumented values are totals (True) or sums of single steps (False); UserError for anything else."""
    wrong = evidence.against_total(rule)
    if not wrong:
        return True
    if step is None:
        raise UserError(ONE_TIME)
    if not steps and step != HOUR:
        raise UserError(f"is a sum, and its file does not give the interval ({wrong}); {HINT}")
    if evidence.is_signed(tolerance):  # then totals may fall at any step, as amounts do
        raise UserError(f"sums values below 0, so the data cannot show its interval; {HINT}")
    if not 0 < 0.9 * evidence.wet_steps <= evidence.fell:
        raise UserError(f"is a sum whose values fall only at some steps ({wrong}), as buckets do; {HINT}")
    return False


def check_hours(
    spans: list[Span], read: Callable[[Span], np.ndarray], statistic: str, hours: float, tolerance: float
) -> str:
    """Check `hours` of a mean or an extreme in a recipe against the data: a note if they do not confirm it, or "".

    Raises UserError if values are extremes since a start that several of them share.
    """
    ordered = sorted(spans, key=lambda span: (span.init, span.end))
    step = _step(ordered)
    if statistic not in ("maximum", "minimum"):
        return _check_steps(_Evidence(), ordered, step, hours, "means", "means do not show their interval")
    sign, usual = 1 if statistic == "maximum" else -1, np.nanmean(read(ordered[0]))
    rule: Total = "run" if any(span.frame.lead for span in ordered) else "00 UTC"
    evidence = _gather(ordered, lambda span: sign * (read(span) - usual), rule, tolerance)
    return _check_steps(evidence, ordered, step, hours, f"a {statistic}")


def _check_total(evidence: "_Evidence", rule: Total, tolerance: float, *, sure: bool) -> str:
    """Check "run", "00 UTC" or true in a recipe against the data: a note if they show too little.

    `sure`: reject it if they show too little. Raises UserError if the data contradict the recipe.
    """
    wrong = evidence.against_total(rule)
    signed = evidence.is_signed(tolerance)  # then a total may fall
    if wrong and (sure or ((evidence.fall or evidence.grew) and not signed)):
        raise UserError(
            f"is not a total since the start of {'the run' if rule == 'run' else 'the day'}: {wrong}; {HINT}"
        )
    return f"is taken as a total, as the recipe says, but the data do not confirm it: {wrong}" if wrong else ""


def _check_steps(
    evidence: "_Evidence", spans: list[Span], step: int | None, hours: float | None, what: str, unknown: str = ""
) -> str:
    """Check false or `hours` in a recipe against the data: a note if they show too little, or why they are `unknown`.

    Raises UserError if values rise and fall as totals or buckets do.
    """
    length = round(hours * HOUR) if hours else step
    if length is None:
        raise UserError(ONE_TIME)
    falls, tell = ("rises" if what == "a minimum" else "falls", HINT if what == "sums" else HINT_LENGTH)
    what = f"{what} over {length / HOUR:g} h"
    given = f"is taken as {what}, as the recipe says, but the data do not confirm it: "
    if all(span.end == length for span in spans):
        return ""  # every interval starts with the run
    if unknown or step is None:
        return f"{given}{unknown or 'there is only one time'}"
    inside = [change for change in evidence.steps if change.inside]
    if evidence.grew and _are_enough(inside, MIN_STEPS) and not any(change.fell for change in inside):
        raise UserError(f"does not hold {what}: it never {falls}, as values since a common start do; {tell}")
    if times := evidence.restarts(step):
        raise UserError(f"does not hold {what}: it {falls} only at {times}, as values that restart do; {tell}")
    if length != step:
        return f"{given}there is a value every {step / HOUR:g} h"
    fell = sum(change.fell for change in evidence.steps)
    share = 0.6 if step < DAY else 0  # nothing restarts at every second step, nor after more than a day
    shown = fell >= max(MIN_STEPS, share * len(evidence.steps))
    return "" if shown else f"{given}it {falls} at {fell} of {len(evidence.steps)} steps"


def _are_enough(steps: list["_Change"], least: int) -> bool:
    """Whether there are too many steps and points for all of them to have risen by chance."""
    return len(steps) >= least and sum(change.points for change in steps) >= MIN_POINTS


def _step(spans: list[Span]) -> int | None:
    """The usual step, in seconds, between frames of a run, or between analyses; None if there is only one time."""
    times = [(span.init if span.frame.lead else 0, span.init + span.end) for span in spans]
    steps = [b[1] - a[1] for a, b in pairwise(sorted(set(times))) if a[0] == b[0]]
    return int(np.median(steps)) if steps else None


def _windows(spans: list[Span]) -> list[list[Span]]:
    """Up to WINDOWS stretches of consecutive frames, spread over the archive."""
    if len(spans) <= WINDOW * WINDOWS:
        return [spans]
    firsts = np.linspace(0, len(spans) - WINDOW, WINDOWS).astype(int)
    return [spans[first : first + WINDOW] for first in firsts]


class _Change(NamedTuple):
    """The change from a field that is not empty to the next, of one run or of analyses."""

    end: int  # lead time, or seconds since 1970 of analyses
    inside: bool  # within one run or day
    fell: bool  # somewhere, by more than packing explains
    points: int  # with a value other than 0 before


@dataclass
class _Evidence:
    """What the fields of some windows show about successive values."""

    fall: str = ""  # the first fall within a run or day
    grew: bool = False  # within a run or day
    new_period: bool = False  # a new run or day began
    restarted: bool = False  # and values were smaller after it
    wet_steps: int = 0  # steps from a field that is not empty
    fell: int = 0  # those of them at which values fell somewhere
    steps: list[_Change] = field(default_factory=list)
    forecasts: bool = False
    lowest: float = 0.0
    largest: float = 0.0

    def against_total(self, rule: str) -> str:
        """Why the values are not totals since the start of the run or of the day; "" if they are."""
        if self.fall:
            return self.fall
        if not self.grew:
            return "it never grows in the fields that were checked"
        return "it does not restart after 00 UTC" if rule == "00 UTC" and self.new_period and not self.restarted else ""

    def is_signed(self, tolerance: float) -> bool:
        """Whether values lie below 0 by more than packing explains."""
        return self.lowest < -max(tolerance, PACKING * self.largest)

    def restarts(self, step: int) -> str:
        """The only lead times or hours at which values fall, if these are regular and values grow in between; or ""."""
        ends = {change.end for change in self.steps if change.fell}
        for length in (hours * HOUR for hours in BUCKETS if hours * HOUR > step):
            places = {end % length for end in ends}
            quiet = [change for change in self.steps if change.end % length not in places]
            if len(places) == 1 and _are_enough(quiet, 2 * MIN_STEPS):
                hours = sorted({(end if self.forecasts else end % DAY) / HOUR for end in ends})
                more = ", .." if len(hours) > 4 else ""
                listed = ", ".join(f"{'+' * self.forecasts}{hour:g}" for hour in hours[:4])
                return f"{listed}{more} {'h' if self.forecasts else 'UTC'}"
        return ""


def _gather(spans: list[Span], read: Callable[[Span], np.ndarray], rule: str, tolerance: float) -> _Evidence:
    """Read each field of some windows once, and compare it with the one before."""

    def period(span: Span) -> int:
        return span.init if rule == "run" else (span.init + span.end - 1) // DAY

    evidence = _Evidence(forecasts=any(span.frame.lead for span in spans))
    for window in _windows(spans):
        for (first, before), (second, after) in pairwise((span, read(span)) for span in window):
            fall, growth, rain = (float(np.nanmax(f, initial=0.0)) for f in (before - after, after - before, before))
            size = float(np.nanmax(np.abs(before), initial=0.0))
            evidence.largest = max(evidence.largest, size, float(np.nanmax(np.abs(after), initial=0.0)))
            evidence.lowest = min(evidence.lowest, *(float(np.nanmin(f, initial=0.0)) for f in (before, after)))
            evidence.wet_steps += rain > tolerance
            evidence.fell += rain > tolerance and fall > tolerance
            inside, falls = period(first) == period(second), fall > max(tolerance, PACKING * size)
            points = int((np.abs(before) > tolerance).sum())
            if points and (inside or not evidence.forecasts):
                evidence.steps.append(_Change(second.frame.lead or second.init + second.end, inside, falls, points))
            if not inside:
                evidence.new_period = True
                evidence.restarted |= fall > tolerance
                continue
            evidence.grew |= growth > 0
            if falls:
                evidence.fall = evidence.fall or f"it falls by {fall:.3g} before {_time_label(second)}"
    return evidence


def _time_label(span: Span) -> str:
    return f"+{span.frame.lead / 3600:g} h" if span.frame.lead else f"{(span.init % DAY) / 3600:g} UTC"
