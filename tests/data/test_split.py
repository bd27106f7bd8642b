"""Splits keep whole runs together and apart."""

import numpy as np
import pytest

from dsr.data.recipe import ByRegion, ByTime
from dsr.data.split import by_region, by_time
from dsr.errors import UserError

DAY, HOUR = 86400, 3600


def runs(count=60, leads=(6, 12, 48)):
    init = np.repeat(np.arange(count) * DAY, len(leads))
    return init, np.tile(np.array(leads) * HOUR, count)


@pytest.mark.parametrize("gap", [0, 30])
def test_runs_stay_whole_and_no_valid_time_is_in_two_splits(gap):
    init, lead = runs()
    split, told = by_time(ByTime(gap_hours=gap), init, lead, "standard")
    assert told["gap_hours"] == 48 + gap
    for run in np.unique(init):
        assert len(set(split[init == run])) == 1
    for a, b in ((0, 1), (1, 2)):
        assert init[split == b].min() - init[split == a].max() > (48 + gap) * HOUR
        assert not set((init + lead)[split == a]) & set((init + lead)[split == b])
    assert (split == 0).sum() / (split >= 0).sum() == pytest.approx(0.7, abs=0.02)


def test_dates_can_be_given():
    span = {"train": (1, 20), "validation": (24, 30), "test": (1, 3)}
    days = {k: tuple(f"1970-{1 + (k == 'test'):02}-{day:02}T00:00" for day in days) for k, days in span.items()}
    split, told = by_time(ByTime(**days), *runs(leads=(6,)), "standard")
    assert [(split == code).sum() for code in (0, 1, 2)] == [20, 7, 3]
    assert told["validation"] == ["1970-01-24T00:00", "1970-01-30T00:00"]


@pytest.mark.parametrize(("calendar", "last", "count"), [("360_day", "1970-02-30", 60), ("noleap", "1970-02-28", 59)])
def test_dates_are_those_of_the_datas_calendar(calendar, last, count):
    """Runs at noon: the last day of a range is in it. 360_day has a 30 February, noleap ends it with the 28th."""
    init, lead = np.arange(200) * DAY + DAY // 2, np.zeros(200, int)
    ranges = {
        "train": ("1970-01-01", last),
        "validation": ("1970-03-03", "1970-03-30"),
        "test": ("1970-05-01", "1970-05-30"),
    }
    split, told = by_time(ByTime(**ranges), init, lead, calendar)
    assert [(split == code).sum() for code in (0, 1, 2)] == [count, 28, 30]
    assert told["train"] == ["1970-01-01T00:00", f"{last}T23:59:59"]
    with pytest.raises(
        UserError, match=rf"^splits.train: 1970-02-31 does not exist in the {calendar} calendar; {last} does"
    ):
        by_time(ByTime(**{**ranges, "train": ("1970-01-01", "1970-02-31")}), init, lead, calendar)


def test_a_range_without_data_is_named_beside_what_there_is():
    ranges = {
        "train": ("1970-01-01", "1970-01-20"),
        "validation": ("1971-01-01", "1971-01-30"),
        "test": ("1970-02-01", "1970-02-20"),
    }
    message = (
        r"splits.validation: no initial time is in 1971-01-01T00:00 to 1971-01-30T23:59:59; the data cover "
        r"1970-01-01T00:00 to 1970-02-30T00:00 \(360_day calendar\)"
    )
    with pytest.raises(UserError, match=message):
        by_time(ByTime(**ranges), *runs(leads=(6,)), "360_day")


def test_ranges_closer_than_the_longest_lead_are_refused():
    days = {"train": (1, 10), "validation": (12, 14), "test": (20, 30)}
    chosen = ByTime(**{k: tuple(f"1970-01-{day:02}" for day in pair) for k, pair in days.items()})
    with pytest.raises(UserError, match="validation starts 48 h after the last run of train; more than 48 h"):
        by_time(chosen, *runs(), "standard")


def test_too_few_dates_are_refused():
    with pytest.raises(UserError, match="only one initial time"):
        by_time(ByTime(), *runs(1), "standard")
    with pytest.raises(UserError, match="no run is left for validation"):
        by_time(ByTime(), *runs(6), "standard")
    with pytest.raises(UserError, match="three shares"):
        by_time(ByTime(train=0.9, validation=0.9, test=0.9), *runs(), "standard")


@pytest.mark.parametrize("shape", [(40, 100), (100, 40)])
def test_strips_are_apart_by_the_gap(shape):
    region, told = by_region(ByRegion(by="region", gap=5), shape, 4)
    along = region[0] if shape[1] > shape[0] else region[:, 0]
    changes = np.flatnonzero(np.diff(along))
    assert along[0] == 0 and along[-1] == 2 and set(np.unique(region)) == {-1, 0, 1, 2}
    assert np.diff(changes)[[0, 2]].tolist() == [5, 5] and told["gap_points"] == 5


def test_boxes_are_apart_by_the_gap_from_training_and_from_each_other():
    boxes = ByRegion(by="region", gap=3, validation=(0, 9, 0, 9), test=(20, 29, 20, 29))
    region, _ = by_region(boxes, (40, 40), 4)
    assert (region == 1).sum() == (region == 2).sum() == 100
    train = np.argwhere(region == 0)
    for code in (1, 2):
        points = np.argwhere(region == code)
        assert np.abs(train[:, None] - points[None]).max(-1).min() == 4


@pytest.mark.parametrize(
    ("validation", "test", "message"),
    [
        ((0, 9, 0, 9), (5, 12, 5, 12), "overlap"),
        ((0, 9, 0, 9), (12, 20, 0, 9), "closer than the gap"),
        ((0, 9, 0, 40), (20, 29, 20, 29), "splits.validation"),
        ((0, 39, 0, 19), (0, 39, 24, 39), "no points are left for training"),
        (None, (0, 9, 0, 9), "splits.validation"),
    ],
)
def test_boxes_that_cannot_be(validation, test, message):
    with pytest.raises(UserError, match=message):
        by_region(ByRegion(by="region", gap=3, validation=validation, test=test), (40, 40), 4)
