"""From values over the intervals in files to values over disjoint intervals: amounts, means and extremes."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from dsr.data.series import Frame, Span
from dsr.errors import UserError


@dataclass(frozen=True)
class Combination:
    """The value of a frame as a linear combination: the sum of factor x the value at a span."""

    terms: tuple[tuple[Span, float], ...]
    start: int | None  # lead times of start and end; equal for an instant; start is None if unknown
    end: int

    @property
    def seconds(self) -> int | None:
        """The length of the interval."""
        return None if self.start is None else self.end - self.start


def disjoint(spans: Iterable[Span], statistic: str, hours: float | None = None) -> dict[Frame, Combination]:
    """{frame: its value over the shortest interval that ends there}.

    Sums over (s, e] and (s, m] give the sum over (m, e]; means likewise, weighted by their lengths. Thus totals since
    the start of a run, buckets that restart, amounts of single steps, and files that mix them all become amounts over
    disjoint intervals. Extremes and instants are unchanged. `hours` keeps only intervals of that length; totals may
    have shorter steps. Raises UserError if extremes cover several lengths, or nothing covers `hours`.
    """
    result: dict[Frame, Combination] = {}
    groups = _groups(
        [span for span in spans if span.start is not None and (span.start < span.end or statistic == "point")]
    )
    for group in groups:
        for combination in _differences(group, hours) if statistic in ("sum", "mean") else map(_single, group):
            if statistic == "mean" and len(combination.terms) == 2:
                combination = _weighted(combination)
            frame = combination.terms[0][0].frame
            present = result.get(frame)
            fits = hours is None or combination.seconds == round(hours * 3600)
            if fits and (present is None or _cost(combination) < _cost(present)):
                result[frame] = combination
    for span in spans:
        if span.start is None and hours is None:
            result.setdefault(span.frame, _single(span))
    lengths = sorted({combination.seconds for combination in result.values() if combination.seconds})
    if statistic in ("maximum", "minimum") and len(lengths) > 1:
        covered = ", ".join(f"{seconds / 3600:g}" for seconds in lengths)
        raise UserError(
            f"holds a {statistic} over {covered} hours, and shorter ones cannot be derived from longer ones: "
            f'choose one length with "hours" in a recipe'
        )
    if hours is not None and not result:
        raise UserError(f'holds nothing over {hours:g} hours, which "hours" requests')
    if not result:
        raise UserError(f"holds no {statistic} over an interval: each starts and ends at the same time")
    return result


def _single(span: Span) -> Combination:
    return Combination(((span, 1.0),), span.start, span.end)


def _groups(spans: list[Span]) -> list[list[Span]]:
    """Spans whose sums may be subtracted from each other: those of one run; for analyses, which have no lead, all."""
    if all(span.frame.lead == 0 for span in spans):
        return [spans]
    groups: dict[int, list[Span]] = defaultdict(list)
    for span in spans:
        groups[span.init].append(span)
    return list(groups.values())


def _cost(combination: Combination) -> tuple[int, int]:
    return combination.seconds or 0, len(combination.terms)


def _differences(spans: list[Span], hours: float | None = None) -> list[Combination]:
    """For each span the sum over all of it, or over the part beyond the next shorter span with the same start.

    With `hours`, beyond the span that is shorter by `hours`, if there is one.
    """
    since: dict[int, list[Span]] = defaultdict(list)
    for span in spans:
        assert span.start is not None
        since[span.init + span.start].append(span)
    result = []
    for group in since.values():
        ends = {span.init + span.end: span for span in group}
        before = None
        for end, span in sorted(ends.items()):
            if hours is not None:
                before = ends.get(end - round(hours * 3600))
            if before is None:
                result.append(_single(span))
            else:
                start = before.init + before.end - span.init
                result.append(Combination(((span, 1.0), (before, -1.0)), start, span.end))
            before = span
    return result


def _weighted(combination: Combination) -> Combination:
    """A difference of means, weighted by the lengths of their intervals."""
    lengths = [(span.end - span.start) * factor for span, factor in combination.terms if span.start is not None]
    seconds = combination.seconds or 1
    return Combination(
        tuple((span, n / seconds) for (span, _), n in zip(combination.terms, lengths, strict=True)),
        combination.start,
        combination.end,
    )
