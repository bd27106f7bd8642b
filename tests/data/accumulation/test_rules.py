"""What a file does not say of its sums is verified on the data, or refused."""

import re

import numpy as np
import pytest

from dsr.data.accumulation.rules import with_starts
from dsr.data.series import Span
from dsr.errors import UserError

HOUR, DAY = 3600, 86400
RAIN = (
    np.random.default_rng(0).gamma(0.5, 0.4, (24 * 12, 6, 6)).astype(np.float32)
)  # of the hour that ends at (t + 1) h


def analyses(values, step=1):
    """{span: field}: hourly stamps, the first at 01 UTC."""
    return {Span((i + 1) * step * HOUR, None, 0): field for i, field in enumerate(values)}


def since_midnight(rain):
    return rain.reshape(-1, 24, *rain.shape[1:]).cumsum(1).reshape(rain.shape)


def starts(fields, **options):
    new, note = with_starts(list(fields), fields.__getitem__, **options)
    assert not note
    return [new[span].start for span in fields]


def test_totals_since_midnight_are_seen_and_the_stamp_of_midnight_holds_the_day_before():
    found = starts(analyses(since_midnight(RAIN)))
    assert found[:3] == [-HOUR, -2 * HOUR, -3 * HOUR] and found[23:25] == [-DAY, -HOUR]


def test_amounts_of_single_hours_are_seen():
    assert set(starts(analyses(RAIN))) == {-HOUR}


def test_totals_of_a_run_are_seen():
    fields = {Span(0, None, (i + 1) * HOUR): f for i, f in enumerate(RAIN[:24].cumsum(0))}
    assert set(starts(fields)) == {0} and set(starts(fields, accumulated="run")) == {0}


def test_falls_by_the_packing_do_not_make_it_another_rule():
    packed = since_midnight(RAIN) + np.float32(0.001) * np.random.default_rng(1).standard_normal(RAIN.shape).astype(
        "f4"
    )
    assert starts(analyses(packed), tolerance=0.01)[1] == -2 * HOUR


@pytest.mark.parametrize("length", [3, 6])
def test_buckets_whose_starts_nobody_tells_are_refused(length):
    buckets = RAIN.reshape(-1, length, 6, 6).cumsum(1).reshape(RAIN.shape)
    fields = {Span(0, None, (i + 1) * HOUR): f for i, f in enumerate(buckets)}
    with pytest.raises(UserError, match=r'fall at some steps only.*as buckets do; say in a recipe.*"hours"'):
        starts(fields)


def test_amounts_of_unknown_length_between_far_stamps_are_refused():
    with pytest.raises(UserError, match="does not say over what interval"):
        starts(analyses(RAIN[5::6], step=6))
    assert set(starts(analyses(RAIN[5::6], step=6), hours=1)) == {-HOUR}
    assert set(starts(analyses(RAIN[5::6], step=6), steps=True)) == {-6 * HOUR}  # cell_methods: each its step


def test_a_recipe_that_the_data_contradict_is_refused():
    with pytest.raises(UserError, match="is no total since the start of the day: it falls by"):
        starts(analyses(RAIN), accumulated=True)


def test_without_rain_nothing_can_be_verified():
    with pytest.raises(UserError, match="never grows"):
        starts(analyses(np.zeros((48, 4, 4), np.float32)))


def test_sums_below_zero_cannot_be_verified_whether_they_are_totals_or_amounts():
    flux = np.random.default_rng(1).normal(0, 1e5, RAIN.shape).astype(np.float32)
    for fields in (flux, since_midnight(flux)):
        with pytest.raises(UserError, match="below 0"):
            starts(analyses(fields))
        new, note = with_starts(list(analyses(fields)), analyses(fields).__getitem__, accumulated=False)
        assert {span.start for span in new.values()} == {-HOUR} and "some are below 0" in note


def run(values, step=1):
    """{span: field}: stamps of one run."""
    return {Span(0, None, (i + 1) * step * HOUR): field for i, field in enumerate(values)}


def in_buckets(rain, length):
    return rain.reshape(-1, length, *rain.shape[1:]).cumsum(1).reshape(rain.shape)


@pytest.mark.parametrize("said", [{"accumulated": False}, {"hours": 3}, {"accumulated": False, "hours": 3}])
def test_buckets_of_6_hours_at_steps_of_3_are_no_sums_over_3_hours(said):
    rain = RAIN[:24]
    assert set(np.diff([0, *starts(run(rain, 3), **said)])) == {0, 3 * HOUR}  # each step's own
    with pytest.raises(UserError, match="does not hold sums over 3 h: it falls only every 6 h"):
        starts(run(in_buckets(rain, 2), 3), **said)


@pytest.mark.parametrize("fields", [run(RAIN[:24].cumsum(0)), analyses(since_midnight(RAIN))])
def test_totals_are_no_amounts(fields):
    for said in ({"accumulated": False}, {"hours": 1}):
        with pytest.raises(UserError, match="does not hold sums over 1 h: it never falls, as totals do"):
            starts(fields, **said)


def test_amounts_are_no_totals():
    with pytest.raises(UserError, match="is no total since the start of the run: it falls by"):
        starts(run(RAIN[:24]), accumulated="run")
    with pytest.raises(UserError, match="is no total since the start of the day: it falls by"):
        starts(analyses(RAIN), accumulated="00 UTC")
    with pytest.raises(UserError, match="does not start anew after 00 UTC"):
        starts(analyses(RAIN.cumsum(0)), accumulated="00 UTC")


@pytest.mark.parametrize(
    ("fields", "said", "note"),
    [
        (run(np.zeros((24, 6, 6))), {"accumulated": False}, "sums over 1 h.*falls at 0 of 0 steps"),
        (run(RAIN[:2]), {"hours": 1}, "sums over 1 h.*falls at 1 of 1 steps"),
        (run(RAIN[:1]), {"hours": 3}, "sums over 3 h.*one time only"),
        (run(RAIN[:24]), {"hours": 6}, "sums over 6 h.*stand every 1 h"),
        (run(np.zeros((24, 6, 6))), {"accumulated": "run"}, "a total.*never grows"),
        (analyses(np.zeros((48, 6, 6))), {"accumulated": "00 UTC"}, "a total.*never grows"),
    ],
)
def test_what_the_data_do_not_show_is_noted(fields, said, note):
    new, noted = with_starts(list(fields), fields.__getitem__, **said)
    assert len(new) == len(fields) and re.search(f"is taken as {note}", noted)


def test_daily_sums_and_the_first_step_of_runs_need_no_note():
    assert set(starts(analyses(RAIN[:40], step=24), hours=24)) == {-DAY}
    assert set(starts({Span(i * DAY, None, 6 * HOUR): f for i, f in enumerate(RAIN[:9])}, hours=6)) == {0}
