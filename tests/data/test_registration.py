"""Registration: told from bounds and from coordinates, and half a cell noticed in the fields themselves."""

import numpy as np
import pytest

from dsr.data.grid import Grid
from dsr.data.registration import corner_note, half_cell_note, lag, onto_low, registration

HIGH = Grid(60 - 0.25 * (np.arange(80) + 0.5), 0.25 * (np.arange(96) + 0.5))
LOW = HIGH.coarsened(4)


def weather(grid, times=12, north=0.0, east=0.0):
    """(n, y, x): waves of many lengths and phases, as they would stand if the grid's points were moved."""
    random = np.random.default_rng(0)
    y, x = grid.y[:, None] + north, grid.x[None] + east
    fields = np.zeros((times, *grid.shape))
    for field in fields:
        for _ in range(12):
            ky, kx, phase = *random.normal(scale=1.0, size=2), random.uniform(0, 6.28)
            field += np.sin(ky * y + kx * x + phase)
    return fields


def pair(**moved):
    return weather(LOW, **moved), onto_low(weather(HIGH), HIGH.index_on(LOW), LOW.shape)


def test_high_fields_come_onto_the_low_grid_unmoved():
    plane = HIGH.latitude + 2 * HIGH.longitude
    found = onto_low(plane[None], HIGH.index_on(LOW), LOW.shape)[0]
    assert np.isfinite(found[1:-1, 1:-1]).all()
    np.testing.assert_allclose(found[1:-1, 1:-1], (LOW.latitude + 2 * LOW.longitude)[1:-1, 1:-1], atol=1e-9)


@pytest.mark.parametrize(("north", "east"), [(0, 0), (0, 0.5), (-0.5, 0.5), (1, 0), (0.25, -1)])
def test_the_lag_is_found_to_a_part_of_a_cell(north, east):
    """A low field that holds what lies further north must be moved north; rows run south here."""
    rows, columns, correlation = lag(*pair(north=north, east=east))
    assert (rows, columns) == pytest.approx((-north, east), abs=0.08)
    assert 0.75 < correlation < 1  # at whole cells


def test_half_a_cell_is_said_and_little_is_not():
    assert half_cell_note(*pair(), LOW) == ""
    assert half_cell_note(*pair(east=0.15), LOW) == ""
    assert half_cell_note(*pair(east=0.5), LOW) == (
        "low fits high best when moved by 0.5 cells east: is one of them registered at the corners of cells?"
    )
    assert "0.5 cells south and 0.5 cells west" in half_cell_note(*pair(north=-0.5, east=-0.5), LOW)


def test_rows_that_run_north_are_told_north():
    low, high = pair(north=0.5)
    upward = LOW.crop(slice(None, None, -1), slice(None))
    assert "0.5 cells north" in half_cell_note(low[:, ::-1], high[:, ::-1], upward)


def test_fields_that_have_nothing_in_common_say_nothing():
    random = np.random.default_rng(1)
    assert half_cell_note(random.normal(size=(12, 20, 24)), pair()[1], LOW) == ""
    assert lag(np.full((4, 20, 24), np.nan), np.zeros((4, 20, 24))) == (0, 0, 0)


def test_missing_values_are_left_out():
    low, high = pair(east=0.5)
    low[:, :5, :5], high[3, 10:12] = np.nan, np.nan
    assert lag(low, high)[:2] == pytest.approx((0, 0.5), abs=0.08)


def test_nodes_and_cells():
    assert registration(HIGH.index_on(LOW)) == "cell"
    nodes = Grid(HIGH.y[::4], HIGH.x[::4])
    assert registration(HIGH.index_on(nodes)) == "node"


def test_bounds_tell_corners_from_middles():
    x = np.arange(10.0)
    assert corner_note("x", x, np.stack([x - 0.5, x + 0.5], 1)) == ""
    assert corner_note("x", x, np.stack([x + 0.5, x - 0.5], 1)) == ""
    assert corner_note("x", x, np.stack([x, x + 1], 1)).startswith("x lies 0 of the way through its bounds")
