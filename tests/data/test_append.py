"""Runs that are added to a store: whole or not at all, training's part untouched, whoever reads meanwhile."""

import multiprocessing
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from dsr.data.append import Appender, grow
from dsr.data.grid import Grid
from dsr.data.manifest import Changed
from dsr.data.store import Store, Variable
from dsr.data.workers import write_rows
from dsr.data.writer import Writer
from dsr.errors import UserError
from tests.stores import four_samples

pytestmark = pytest.mark.slow

DAY, HOUR = 86400, 3600


def archive(runs, first=0, **change):
    """Runs of two leads, 0 and 12 h, one a day; the truth of every valid time once. Four runs: 2 train, gap, test."""
    init = np.repeat(np.arange(first, runs), 2) * DAY
    lead = np.tile([0, 12 * HOUR], runs - first)
    split = np.full(len(init), -1)
    split[init <= DAY], split[init == 2 * DAY], split[init == 4 * DAY] = 0, 1, 2
    rows = np.arange(len(init))
    values = {"low_init_time": init, "low_lead_time": lead, "time": init + lead, "high_index": rows, "split": split}
    values |= {"splits": {"by": "time", "gap_hours": 0.0}, "pairing": "valid-time"}
    return four_samples(**values | {"provenance": {"files": [f"{runs}.nc"], "problems": []}} | change)


def high(time):
    return np.arange(16.0).reshape(1, 4, 4) + time / HOUR


def low(init, lead):
    return np.arange(8.0).reshape(2, 2, 2) * 2 + init / DAY + lead


class Fill:
    def __init__(self, layout):
        self.layout = layout

    def __call__(self):
        return self.fill

    def fill(self, job, put):
        part, row, of_archive = job
        given = self.layout
        if part == "high":
            put("high", row, high(given.time[of_archive]))
        else:
            put("low", row, low(given.low_init_time[of_archive], given.low_lead_time[of_archive]))
        return Counter()


def prepare(path, given):
    jobs = [(part, row, row) for part in ("high", "low") for row in range(len(given.time))]
    with Writer(path, given) as writer:
        write_rows(writer, jobs, Fill(given))
    return Store(path)


def append(path, given, fill=Fill):
    store = Store(path)
    growth = grow(store, given)
    jobs = [("high", len(store.time) + i, row) for i, row in enumerate(growth.high)]
    jobs += [("low", len(store.high_index) + i, row) for i, row in enumerate(growth.low)]
    with Appender(store, growth) as writer:
        write_rows(writer, jobs, fill(given))
    return Store(path)


@pytest.fixture
def path(tmp_path):
    prepare(tmp_path / "a.zarr", archive(5))
    return tmp_path / "a.zarr"


@pytest.mark.parametrize("first", [0, 5], ids=["an archive of all", "only what is new"])
def test_runs_are_added_and_nothing_else_moves(path, first):
    before = Store(path)
    fields, split = before.high[:], before._array("low/split")
    chunk = (path / "high/field/c/3/0/0/0").stat().st_ino
    after = append(path, archive(7, first))
    assert after.low_init_time.tolist() == [day * DAY for day in range(7) for _ in range(2)]
    assert np.array_equal(after.high[: len(fields)], fields)
    assert np.array_equal(after.high[after.high_index[12]], high(6 * DAY).astype("f4"))
    assert np.array_equal(after.low[13], low(6 * DAY, 12 * HOUR).astype("f4"))
    assert np.array_equal(after._array("low/split"), [*split, 2, 2, 2, 2])
    assert after.statistics == before.statistics and after.fingerprint != before.fingerprint
    assert (path / "high/field/c/3/0/0/0").stat().st_ino == chunk  # not copied
    assert after.attributes["splits"]["appended"] == [
        {"first": "1970-01-06T00:00", "last": "1970-01-07T00:00", "train": 0, "validation": 0, "test": 4}
    ]
    assert after.attributes["provenance"]["files"] == ["5.nc", "7.nc"]
    assert [left.name for left in path.parent.iterdir()] == ["a.zarr"]
    again = append(path, archive(8))
    assert len(again.attributes["splits"]["appended"]) == 2 and again.samples("train").tolist() == [0, 1, 2, 3]


def test_the_statistics_are_those_of_the_whole_prepared_at_once(path):
    given = archive(7)
    given.split[10:] = 2
    whole = prepare(path.with_name("b.zarr"), given)
    grown = append(path, archive(7))
    assert grown.statistics == whole.statistics and grown.counts.tolist() == whole.counts.tolist()
    assert np.array_equal(grown.high[:], whole.high[:]) and np.array_equal(grown.low[:], whole.low[:])


def test_a_truth_that_is_there_already_is_not_written_again(tmp_path):
    """The runs' 12-hour leads verify at the next run's start where they are 24 hours apart."""

    def daily(runs):
        index = np.repeat(np.arange(runs), 2) + np.tile([0, 1], runs)
        return archive(runs, low_lead_time=np.tile([0, DAY], runs), time=np.arange(runs + 1) * DAY, high_index=index)

    given = daily(5)
    jobs = [("high", row, row) for row in range(6)] + [("low", row, row) for row in range(10)]
    with Writer(tmp_path / "a.zarr", given) as writer:
        write_rows(writer, jobs, Fill(given))
    store = Store(tmp_path / "a.zarr")
    growth = grow(store, daily(6))
    assert growth.high.tolist() == [6] and growth.low.tolist() == [10, 11]
    assert growth.layout.high_index.tolist() == daily(6).high_index.tolist()


def test_a_run_near_to_validation_lies_in_the_gap(tmp_path):
    given = archive(3)
    given.split[:] = [0, 0, 0, 0, 1, 1]
    given = replace(given, splits={"by": "time", "gap_hours": 24.0})
    store = prepare(tmp_path / "a.zarr", given)
    with pytest.raises(UserError, match="the run of 1970-01-04T00:00 would join the training split"):
        grow(store, archive(6, split=np.zeros(12, int)))
    growth = grow(store, archive(6))  # 24 h and the longest lead of 12 h after the run of day 2
    assert growth.layout.split[6:].tolist() == [-1, -1, 2, 2, 2, 2]


def test_a_run_that_dates_name_for_validation_stays_away_from_test(tmp_path):
    store = prepare(tmp_path / "a.zarr", archive(5, splits={"by": "time", "gap_hours": 24.0}))
    named = np.repeat([0, 0, 1, -1, 2, 1], 2)
    with pytest.raises(UserError, match="the run of 1970-01-06T00:00 is too close to other splits"):
        grow(store, archive(6, split=named))
    named = np.repeat([0, 0, 1, -1, 2, -1, 1], 2)
    assert grow(store, archive(7, split=named)).layout.split[10:].tolist() == [-1, -1, 1, 1]


def test_missing_values_of_new_runs_are_counted(path):
    class Holes(Fill):
        def fill(self, job, put):
            return super().fill(
                job, lambda part, row, field: put(part, row, np.where(field == field.max(), np.nan, field))
            )

    before = Store(path).statistics["low"]["q"]["missing"]
    assert append(path, archive(6), Holes).statistics["low"]["q"]["missing"] == before + 2


SHIFTED = Grid(np.arange(4.0) * 2000 + 900, np.arange(4.0) * 2000 + 500, {})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            {"high_variables": [Variable("t", "degC", "air_temperature", "temperature", "time: point")]},
            "variables of high",
        ),
        (
            {"low_variables": [Variable("t", "K", "air_temperature")]},
            "the variables of low cannot change: t .K., q",
        ),
        ({"high_grid": SHIFTED}, "the high grid of the archive differs"),
        ({"calendar": "noleap"}, "the calendar cannot change: proleptic_gregorian in the store, noleap in the archive"),
        ({"members": 2}, "the number of members cannot change: None in the store, 2 in"),
        ({"split": np.zeros(14, int)}, "the run of 1970-01-06T00:00 would join the training split"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_does_not_fit_is_refused_and_the_store_stays(path, change, told):
    fingerprint = Store(path).fingerprint
    with pytest.raises(UserError, match=told):
        append(path, archive(7, **change))
    assert Store(path).fingerprint == fingerprint and [left.name for left in path.parent.iterdir()] == ["a.zarr"]


def test_nothing_new_and_runs_that_are_not_later_are_refused(path):
    with pytest.raises(UserError, match="nothing to add"):
        append(path, archive(5))
    given = archive(5)
    given.low_lead_time[9] += HOUR
    with pytest.raises(UserError, match=r"the run of 1970-01-05T00:00 \(\+13 h\) is new but not later"):
        append(path, given)


def test_a_failure_leaves_the_old_store(path):
    class Broken(Fill):
        def fill(self, job, put):
            raise UserError("the file ends early")

    fingerprint = Store(path).fingerprint
    with pytest.raises(UserError, match="ends early"):
        append(path, archive(7), Broken)
    assert Store(path).fingerprint == fingerprint and [left.name for left in path.parent.iterdir()] == ["a.zarr"]


def test_a_chunk_that_was_rotten_stays_rotten(path):
    (path / "high/field/c/0/0/0/0").write_bytes(b"rotten")
    after = append(path, archive(6))
    with pytest.raises(UserError, match="row 0 of high/field"):
        after.high[0]


def read_again_and_again(path, stop, found):
    """Open it whole, and read with a store that was opened first, until told to stop."""
    first, lengths, error = Store(path), set(), ""
    whole = first.high[:]
    try:
        while not stop.is_set():
            assert np.array_equal(first.high[:], whole)
            try:
                store = Store(path)
                times, fields = store.time, store.high[:]
            except Changed:  # between its opening and its first look at the times or the fields
                continue
            lengths.add(len(times))
            assert np.array_equal(fields, np.stack([high(t) for t in times]).astype("f4"))
    except Exception as problem:
        error = f"{type(problem).__name__}: {problem}"
    found.put((sorted(lengths), error))


def test_a_reader_sees_the_old_store_or_the_new_one(path):
    context = multiprocessing.get_context("fork")
    stop, found = context.Event(), context.SimpleQueue()
    reader = context.Process(target=read_again_and_again, args=(path, stop, found))
    reader.start()
    for runs in range(6, 14):
        append(path, archive(runs))
    stop.set()
    lengths, error = found.get()
    reader.join()
    assert not error and set(lengths) <= {2 * runs for runs in range(5, 14)} and len(lengths) > 1
