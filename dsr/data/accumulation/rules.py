"""Where a file does not say over which interval it sums: rules for known archives, verified on the data."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np

from dsr.data.series import Span
from dsr.errors import UserError

HOUR, DAY = 3600, 86400
WINDOW = 26  # frames that are read together: a day of hours, and where the next one begins
PACKED = 1e-3  # of the largest total: by so much it may fall in a file that was packed once
WINDOWS = 6  # of them, spread over the archive
FEW = 3  # wet steps: fewer show nothing
ENOUGH = 30  # wet points of them all together: fewer may go up at once by chance
BUCKETS = (2, 3, 4, 6, 8, 12, 24)  # hours after which services let sums start anew
TELL = 'say in a recipe over what it sums: "accumulated": "run", "00 UTC" or false (the step before), or "hours"'
TELL_LENGTH = 'give the "hours" that each value covers, or leave "hours" out'
ONE_TIME = f"sums, and its file has one time only; {TELL}"

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
    """{span: the same with its start}, of sums whose file does not say it; and a note where that is doubtful, or "".

    `accumulated` and `hours` are what a recipe says (None: nothing); `read(span)` gives a field of the file; falls of a
    total within `tolerance` are packing. `steps`: CF's cell_methods say that each value is the sum of its step. What is
    not said is found in the data, and what is said is held against them: a total never falls within its run (or day)
    and starts anew in the next; sums of single steps fall somewhere at nearly every step. Raises UserError where the
    data contradict the recipe, or fit none of the rules.
    """
    ordered = sorted(spans, key=lambda span: (span.init, span.end))
    total: Total = "run" if any(span.frame.lead for span in ordered) else "00 UTC"
    step = _step(ordered)
    if accumulated:
        said = total if accumulated is True else accumulated
        note = _check_total(_look(ordered, read, said, tolerance), said, tolerance, sure=accumulated is True)
        rule: Total | None = said
    elif accumulated is False or hours:
        seen = _look(ordered, read, total, tolerance)
        signed = "some are below 0" if seen.is_signed(tolerance) else ""
        rule, note = None, _check_steps(seen, ordered, step, hours, "sums", signed)
    else:
        seen, note = _look(ordered, read, total, tolerance), ""
        rule = total if _is_total(seen, total, steps, step, tolerance) else None
    starts = {
        "run": lambda span: 0,
        "00 UTC": lambda span: (span.init + span.end - 1) // DAY * DAY - span.init,
        None: lambda span: span.end - (round(hours * HOUR) if hours else step),
    }
    return {span: span._replace(start=starts[rule](span)) for span in ordered}, note


def _is_total(seen: "_Seen", rule: Total, steps: bool, step: int | None, tolerance: float) -> bool:
    """Whether values that nobody describes are totals, or else sums of single steps; UserError for anything else."""
    wrong = seen.no_total(rule)
    if not wrong:
        return True
    if step is None:
        raise UserError(ONE_TIME)
    if not steps and step != HOUR:
        raise UserError(f"sums, and its file does not say over what interval ({wrong}); {TELL}")
    if seen.is_signed(tolerance):  # then totals may fall at any step as amounts do
        raise UserError(f"sums values below 0, so that no rule over what interval can be verified; {TELL}")
    if not 0 < 0.9 * seen.rained <= seen.fell:
        raise UserError(f"sums, and its values fall at some steps only ({wrong}), as buckets do; {TELL}")
    return False


def check_hours(
    spans: list[Span], read: Callable[[Span], np.ndarray], statistic: str, hours: float, tolerance: float
) -> str:
    """Hold `hours` of a mean or an extreme in a recipe against the data: a note where they do not show it, or "".

    Raises UserError where an extreme is one since a start that several values share.
    """
    ordered = sorted(spans, key=lambda span: (span.init, span.end))
    step = _step(ordered)
    if statistic not in ("maximum", "minimum"):
        return _check_steps(_Seen(), ordered, step, hours, "means", "means show no length")
    sign, usual = 1 if statistic == "maximum" else -1, np.nanmean(read(ordered[0]))
    rule: Total = "run" if any(span.frame.lead for span in ordered) else "00 UTC"
    seen = _look(ordered, lambda span: sign * (read(span) - usual), rule, tolerance)
    return _check_steps(seen, ordered, step, hours, f"a {statistic}")


def _check_total(seen: "_Seen", rule: Total, tolerance: float, *, sure: bool) -> str:
    """Hold "run", "00 UTC" or true in a recipe against the data: a note where they show too little.

    `sure`: too little is refused. Raises UserError where the data contradict the recipe.
    """
    wrong = seen.no_total(rule)
    signed = seen.is_signed(tolerance)  # then a total may fall
    if wrong and (sure or ((seen.fall or seen.grew) and not signed)):
        raise UserError(f"is no total since the start of {'the run' if rule == 'run' else 'the day'}: {wrong}; {TELL}")
    return f"is taken as a total, as the recipe says; the data do not show it: {wrong}" if wrong else ""


def _check_steps(
    seen: "_Seen", spans: list[Span], step: int | None, hours: float | None, what: str, unknown: str = ""
) -> str:
    """Hold false or `hours` in a recipe against the data: a note where they show too little, or why they are `unknown`.

    Raises UserError where values rise and fall as totals or buckets do.
    """
    length = round(hours * HOUR) if hours else step
    if length is None:
        raise UserError(ONE_TIME)
    falls, tell = ("rises" if what == "a minimum" else "falls", TELL if what == "sums" else TELL_LENGTH)
    what = f"{what} over {length / HOUR:g} h"
    said = f"is taken as {what}, as the recipe says; the data do not show it: "
    if all(span.end == length for span in spans):
        return ""  # whatever began with the run
    if unknown or step is None:
        return f"{said}{unknown or 'there is one time only'}"
    inside = [one for one in seen.steps if one.inside]
    if seen.grew and _suffice(inside, FEW) and not any(one.fell for one in inside):
        raise UserError(f"does not hold {what}: it never {falls}, as values since a start do; {tell}")
    if times := seen.restarts(step):
        raise UserError(f"does not hold {what}: it {falls} only at {times}, as values that start anew do; {tell}")
    if length != step:
        return f"{said}values stand every {step / HOUR:g} h"
    fell = sum(one.fell for one in seen.steps)
    share = 0.6 if step < DAY else 0  # nothing starts anew at every second step, nor after more than a day
    shown = fell >= max(FEW, share * len(seen.steps))
    return "" if shown else f"{said}it {falls} at {fell} of {len(seen.steps)} steps"


def _suffice(steps: list["_Step"], few: int) -> bool:
    """Whether so many steps and points cannot all have gone up by chance."""
    return len(steps) >= few and sum(one.points for one in steps) >= ENOUGH


def _step(spans: list[Span]) -> int | None:
    """The usual step, in seconds, between frames of a run, or between analyses; None where there is one time only."""
    times = [(span.init if span.frame.lead else 0, span.init + span.end) for span in spans]
    steps = [b[1] - a[1] for a, b in pairwise(sorted(set(times))) if a[0] == b[0]]
    return int(np.median(steps)) if steps else None


def _windows(spans: list[Span]) -> list[list[Span]]:
    """Up to WINDOWS stretches of consecutive frames, spread over the archive."""
    if len(spans) <= WINDOW * WINDOWS:
        return [spans]
    firsts = np.linspace(0, len(spans) - WINDOW, WINDOWS).astype(int)
    return [spans[first : first + WINDOW] for first in firsts]


class _Step(NamedTuple):
    """From a field to the next, of one run or of analyses, where there was anything."""

    end: int  # lead, or time of day and date
    inside: bool  # of one run or day
    fell: bool  # somewhere, by more than packing
    points: int  # at which there was anything


@dataclass
class _Seen:
    """What the fields of some windows show of how values follow each other."""

    fall: str = ""  # the first fall within a run or day
    grew: bool = False  # within a run or day
    fresh: bool = False  # a run or day began
    fell_anew: bool = False  # and values were smaller there
    rained: int = 0  # steps before which there was anything
    fell: int = 0  # those of them at which values fell somewhere
    steps: list[_Step] = field(default_factory=list)
    forecasts: bool = False
    lowest: float = 0.0
    largest: float = 0.0

    def no_total(self, rule: str) -> str:
        """Why the values are no total since the start of the run or of the day; "" where they are."""
        if self.fall:
            return self.fall
        if not self.grew:
            return "it never grows in the fields that were looked at"
        return "it does not start anew after 00 UTC" if rule == "00 UTC" and self.fresh and not self.fell_anew else ""

    def is_signed(self, tolerance: float) -> bool:
        """Whether values lie below 0 by more than packing explains."""
        return self.lowest < -max(tolerance, PACKED * self.largest)

    def restarts(self, step: int) -> str:
        """The leads or hours at which alone values fall, where that is regular and they grow in between; or ""."""
        ends = {one.end for one in self.steps if one.fell}
        for period in (hours * HOUR for hours in BUCKETS if hours * HOUR > step):
            places = {end % period for end in ends}
            quiet = [one for one in self.steps if one.end % period not in places]
            if len(places) == 1 and _suffice(quiet, 2 * FEW):
                hours = sorted({(end if self.forecasts else end % DAY) / HOUR for end in ends})
                more = ", .." if len(hours) > 4 else ""
                listed = ", ".join(f"{'+' * self.forecasts}{hour:g}" for hour in hours[:4])
                return f"{listed}{more} {'h' if self.forecasts else 'UTC'}"
        return ""


def _look(spans: list[Span], read: Callable[[Span], np.ndarray], rule: str, tolerance: float) -> _Seen:
    """Read each field of some windows once, and hold it against the one before."""

    def since(span: Span) -> int:
        return span.init if rule == "run" else (span.init + span.end - 1) // DAY

    seen = _Seen(forecasts=any(span.frame.lead for span in spans))
    for window in _windows(spans):
        for (first, before), (second, after) in pairwise((span, read(span)) for span in window):
            fall, growth, rain = (float(np.nanmax(f, initial=0.0)) for f in (before - after, after - before, before))
            size = float(np.nanmax(np.abs(before), initial=0.0))
            seen.largest = max(seen.largest, size, float(np.nanmax(np.abs(after), initial=0.0)))
            seen.lowest = min(seen.lowest, *(float(np.nanmin(f, initial=0.0)) for f in (before, after)))
            seen.rained += rain > tolerance
            seen.fell += rain > tolerance and fall > tolerance
            inside, falls = since(first) == since(second), fall > max(tolerance, PACKED * size)
            points = int((np.abs(before) > tolerance).sum())
            if points and (inside or not seen.forecasts):
                seen.steps.append(_Step(second.frame.lead or second.init + second.end, inside, falls, points))
            if not inside:
                seen.fresh = True
                seen.fell_anew |= fall > tolerance
                continue
            seen.grew |= growth > 0
            if falls:
                seen.fall = seen.fall or f"it falls by {fall:.3g} before {_hours(second)}"
    return seen


def _hours(span: Span) -> str:
    return f"+{span.frame.lead / 3600:g} h" if span.frame.lead else f"{(span.init % DAY) / 3600:g} UTC"
