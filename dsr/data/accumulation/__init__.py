"""From values over the intervals that files hold to values over disjoint ones: amounts, means and extremes."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from dsr.data.series import Frame, Span
from dsr.errors import UserError


@dataclass(frozen=True)
class Made:
    """How the value of a frame is made: the sum of factor x the value that stands at a span."""

    terms: tuple[tuple[Span, float], ...]
    start: int | None  # the leads between which it holds; equal for an instant; start is None where nobody says
    end: int

    @property
    def seconds(self) -> int | None:
        """The length of the interval."""
        return None if self.start is None else self.end - self.start


def disjoint(spans: Iterable[Span], statistic: str, hours: float | None = None) -> dict[Frame, Made]:
    """{frame: how its value over the shortest interval that ends there is made}.

    Sums over (s, e] and (s, m] give the sum over (m, e]; means likewise, weighted by their lengths. So totals since the
    start of a run, buckets that restart, amounts of single steps, and files that hold several of them all come out as
    amounts over disjoint intervals. Extremes and instants stay what they are. `hours` keeps only what covers so long;
    totals may stand at shorter steps.
    Raises UserError where extremes over different lengths cannot be held apart, or nothing covers `hours`.
    """
    found: dict[Frame, Made] = {}
    groups = _runs(
        [span for span in spans if span.start is not None and (span.start < span.end or statistic == "point")]
    )
    for group in groups:
        for made in _finest(group, hours) if statistic in ("sum", "mean") else map(_itself, group):
            if statistic == "mean" and len(made.terms) == 2:
                made = _weighted(made)
            frame = made.terms[0][0].frame
            held = found.get(frame)
            fits = hours is None or made.seconds == round(hours * 3600)
            if fits and (held is None or _effort(made) < _effort(held)):
                found[frame] = made
    for span in spans:
        if span.start is None and hours is None:
            found.setdefault(span.frame, _itself(span))
    lengths = sorted({made.seconds for made in found.values() if made.seconds})
    if statistic in ("maximum", "minimum") and len(lengths) > 1:
        covered = ", ".join(f"{seconds / 3600:g}" for seconds in lengths)
        raise UserError(
            f"holds a {statistic} over {covered} hours, and a shorter one cannot be had from longer ones: "
            f'choose one length by "hours" in a recipe'
        )
    if hours is not None and not found:
        raise UserError(f'holds nothing over {hours:g} hours, which "hours" asks for')
    if not found:
        raise UserError(f"holds no {statistic} over an interval: each starts and ends at the same time")
    return found


def _itself(span: Span) -> Made:
    return Made(((span, 1.0),), span.start, span.end)


def _runs(spans: list[Span]) -> list[list[Span]]:
    """Spans among which sums may be subtracted: those of one run; analyses, which have no lead, all together."""
    if all(span.frame.lead == 0 for span in spans):
        return [spans]
    groups: dict[int, list[Span]] = defaultdict(list)
    for span in spans:
        groups[span.init].append(span)
    return list(groups.values())


def _effort(made: Made) -> tuple[int, int]:
    return made.seconds or 0, len(made.terms)


def _finest(spans: list[Span], hours: float | None = None) -> list[Made]:
    """For each span the sum over itself, or over what it goes on beyond the next shorter one with the same start.

    With `hours`, beyond the one that is so much shorter, where there is one.
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
                result.append(_itself(span))
            else:
                begins = before.init + before.end - span.init
                result.append(Made(((span, 1.0), (before, -1.0)), begins, span.end))
            before = span
    return result


def _weighted(made: Made) -> Made:
    """A difference of means, of which each counts by its length."""
    lengths = [(span.end - span.start) * factor for span, factor in made.terms if span.start is not None]
    seconds = made.seconds or 1
    return Made(
        tuple((span, n / seconds) for (span, _), n in zip(made.terms, lengths, strict=True)), made.start, made.end
    )
