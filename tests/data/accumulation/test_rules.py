"""What a file does not say of its sums is verified on the data, or refused."""

import re

import numpy as np
import pytest

from dsr.data.accumulation.rules import check_hours, with_starts
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
    with pytest.raises(
        UserError, match=r'fall only at some steps.*as buckets do; give the interval in a recipe.*"hours"'
    ):
        starts(fields)


def test_amounts_of_unknown_length_between_far_stamps_are_refused():
    with pytest.raises(UserError, match="does not give the interval"):
        starts(analyses(RAIN[5::6], step=6))
    assert set(starts(analyses(RAIN[5::6], step=6), steps=True)) == {-6 * HOUR}  # cell_methods: each its step


def test_a_recipe_that_the_data_contradict_is_refused():
    with pytest.raises(UserError, match="is not a total since the start of the day: it falls by"):
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
    with pytest.raises(UserError, match="does not hold sums over 3 h: it falls only at \\+9, "):
        starts(run(in_buckets(rain, 2), 3), **said)


@pytest.mark.parametrize("fields", [run(RAIN[:24].cumsum(0)), analyses(since_midnight(RAIN))])
def test_totals_are_no_amounts(fields):
    for said in ({"accumulated": False}, {"hours": 1}):
        with pytest.raises(
            UserError, match="does not hold sums over 1 h: it never falls, as values since a common start do"
        ):
            starts(fields, **said)


def test_totals_are_no_longer_sums_either():
    with pytest.raises(UserError, match="does not hold sums over 6 h: it never falls"):
        starts(run(RAIN[:24].cumsum(0)), hours=6)


@pytest.mark.parametrize(
    ("fields", "times"),
    [
        (run(in_buckets(RAIN[:24], 6)), r"\+7, \+13, \+19 h"),
        (run(in_buckets(RAIN[:48], 24)), r"\+25 h"),
        (analyses(in_buckets(RAIN[:240], 6)), "1, 7, 13, 19 UTC"),
        (
            {span._replace(init=span.init + DAY // 2): f for span, f in analyses(in_buckets(RAIN, 2), 12).items()},
            "0 UTC",
        ),
    ],
)
def test_the_times_at_which_sums_start_anew_are_named(fields, times):
    with pytest.raises(UserError, match=f"it falls only at {times}, as values that restart do"):
        starts(fields, accumulated=False)


def extremes(values, statistic, step=1):
    fields = run(values, step)
    return check_hours(list(fields), fields.__getitem__, statistic, step, 0.0)


@pytest.mark.parametrize(("statistic", "sign", "word"), [("maximum", 1, "falls"), ("minimum", -1, "rises")])
def test_extremes_since_a_start_are_not_those_of_a_step(statistic, sign, word):
    warmth = 280 + sign * RAIN[:48]
    further = np.maximum if sign == 1 else np.minimum
    since = further.accumulate(warmth.reshape(8, 6, 6, 6), axis=1).reshape(warmth.shape)
    assert extremes(warmth, statistic) == ""
    with pytest.raises(UserError, match=rf"a {statistic} over 1 h: it {word} only at \+7, \+13"):
        extremes(since, statistic)
    with pytest.raises(UserError, match=rf'a {statistic} over 1 h: it never {word}.*leave "hours" out'):
        extremes(further.accumulate(warmth), statistic)


def test_means_show_no_length():
    assert "is taken as means over 1 h" in extremes(RAIN[:24], "mean")
    assert extremes(RAIN[:1], "mean") == ""  # whatever began with the run


def test_amounts_are_no_totals():
    with pytest.raises(UserError, match="is not a total since the start of the run: it falls by"):
        starts(run(RAIN[:24]), accumulated="run")
    with pytest.raises(UserError, match="is not a total since the start of the day: it falls by"):
        starts(analyses(RAIN), accumulated="00 UTC")
    with pytest.raises(UserError, match="does not restart after 00 UTC"):
        starts(analyses(RAIN.cumsum(0)), accumulated="00 UTC")


@pytest.mark.parametrize(
    ("fields", "said", "note"),
    [
        (run(np.zeros((24, 6, 6))), {"accumulated": False}, "sums over 1 h.*falls at 0 of 0 steps"),
        (run(RAIN[:2]), {"hours": 1}, "sums over 1 h.*falls at 1 of 1 steps"),
        (run(RAIN[:1]), {"hours": 3}, "sums over 3 h.*only one time"),
        (run(RAIN[:24]), {"hours": 6}, "sums over 6 h.*a value every 1 h"),
        (analyses(RAIN[5::6], step=6), {"hours": 1}, "sums over 1 h.*a value every 6 h"),
        (run(np.arange(1, 9).reshape(8, 1, 1)), {"accumulated": False}, "sums over 1 h.*falls at 0 of 7 steps"),
        (run(np.r_[1:9, 5].reshape(9, 1, 1)), {"hours": 1}, "sums over 1 h.*falls at 1 of 8 steps"),
        (run(-RAIN[:24].cumsum(0)), {"accumulated": "run"}, "a total.*falls by"),
        (run(-RAIN[:24]), {"hours": 1}, "sums over 1 h.*some are below 0"),
        (run(np.zeros((24, 6, 6))), {"accumulated": "run"}, "a total.*never grows"),
        (analyses(np.zeros((48, 6, 6))), {"accumulated": "00 UTC"}, "a total.*never grows"),
    ],
)
def test_what_the_data_do_not_show_is_noted(fields, said, note):
    new, noted = with_starts(list(fields), fields.__getitem__, **said)
    assert len(new) == len(fields) and re.search(f"is taken as {note}", noted)


def test_daily_sums_and_the_first_step_of_runs_need_no_note():
    assert set(starts(analyses(RAIN[:40], step=24), hours=24)) == {-DAY}
    everywhere_alike = np.tile([1, 2, 3], 8).reshape(24, 1, 1)  # falls at every third day
    assert set(starts(analyses(everywhere_alike, step=24), accumulated=False)) == {-DAY}
    assert set(starts({Span(i * DAY, None, 6 * HOUR): f for i, f in enumerate(RAIN[:9])}, hours=6)) == {0}
