"""Sums and means over whatever intervals a file holds come out as those over disjoint intervals."""

import numpy as np
import pytest

from dsr.data.accumulation import disjoint
from dsr.data.series import Frame, Span
from dsr.errors import UserError

HOUR = 3600
RAIN = np.array([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0])  # of each hour of a run


def span(start, end, init=0):
    return Span(init, start * HOUR, end * HOUR)


def total(of):
    return RAIN[of.start // HOUR : of.end // HOUR].sum()


def mean(of):
    return RAIN[of.start // HOUR : of.end // HOUR].mean()


def played(spans, statistic, value, hours=None):
    """{(start, end) in hours: value} of what `disjoint` makes of the spans."""
    made = disjoint(spans, statistic, hours)
    return {(m.start / HOUR, m.end / HOUR): sum(f * value(s) for s, f in m.terms) for m in made.values()}


@pytest.mark.parametrize(
    ("spans", "intervals"),
    [
        ([span(0, e) for e in (1, 2, 3, 6)], [(0, 1), (1, 2), (2, 3), (3, 6)]),  # since the start of the run
        ([span(e - 1, e) for e in range(1, 9)], [(e - 1, e) for e in range(1, 9)]),  # of each step
        ([span(0, 3), span(0, 6), span(6, 8)], [(0, 3), (3, 6), (6, 8)]),  # buckets that restart
        ([span(0, 3), span(3, 6), span(0, 6)], [(0, 3), (3, 6)]),  # two kinds in one file
        ([span(0, 0), span(0, 2)], [(0, 2)]),  # nothing has fallen at step 0
        ([span(0, 6), span(0, 3)], [(0, 3), (3, 6)]),  # in any order
    ],
)
def test_sums(spans, intervals):
    assert played(spans, "sum", total) == {i: RAIN[i[0] : i[1]].sum() for i in intervals}


def test_totals_at_short_steps_give_sums_over_longer_ones():
    totals = [span(0, end) for end in range(1, 7)]
    assert played(totals, "sum", total, hours=3) == {(0, 3): 7, (1, 4): 14, (2, 5): 28, (3, 6): 56}
    both = [*totals, *(span(end - 1, end) for end in range(1, 7))]
    assert all(len(made.terms) == 1 for made in disjoint(both, "sum", 1).values())


def test_means_are_weighted_by_their_lengths():
    found = played([span(0, 3), span(0, 4), span(0, 8)], "mean", mean)
    assert found == pytest.approx({(0, 3): RAIN[:3].mean(), (3, 4): RAIN[3], (4, 8): RAIN[4:].mean()})


def test_runs_are_kept_apart():
    made = disjoint([span(0, 1), span(0, 2), span(0, 1, 6 * HOUR), span(0, 2, 6 * HOUR)], "sum")
    assert {frame: len(m.terms) for frame, m in made.items()} == {
        Frame(0, HOUR): 1, Frame(0, 2 * HOUR): 2, Frame(6 * HOUR, HOUR): 1, Frame(6 * HOUR, 2 * HOUR): 2,
    }  # fmt: skip


def test_totals_of_a_day_that_are_stamped_as_analyses():
    spans = [Span(h * HOUR, -((h - 1) % 24 + 1) * HOUR, 0) for h in range(1, 50)]
    made = disjoint(spans, "sum")
    assert {m.seconds for m in made.values()} == {HOUR} and len(made) == 49
    assert [len(made[Frame(h * HOUR, 0)].terms) for h in (1, 2, 24, 25, 26)] == [1, 2, 2, 1, 2]


def test_extremes_over_several_lengths_are_refused_unless_one_is_chosen():
    spans = [span(0, 3), span(0, 6), span(6, 9)]
    with pytest.raises(UserError, match=r'a maximum over 3, 6 hours.*choose one length with "hours"'):
        disjoint(spans, "maximum")
    assert list(disjoint(spans, "maximum", hours=3)) == [Frame(0, 3 * HOUR), Frame(0, 9 * HOUR)]
    with pytest.raises(UserError, match="nothing over 1 hours"):
        disjoint(spans, "sum", hours=1)


def test_instants_are_as_they_stand():
    made = disjoint([Span(0, 0, 0), Span(0, HOUR, HOUR)], "point")
    assert {frame: (m.start, m.end) for frame, m in made.items()} == {Frame(0, 0): (0, 0), Frame(0, HOUR): (HOUR, HOUR)}
