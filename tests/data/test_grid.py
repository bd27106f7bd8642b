"""Where grids lie on each other, from coordinates alone."""

import numpy as np
import pytest

from dsr.data.grid import Grid, block_mean
from dsr.data.interpolate import Interpolation
from dsr.errors import UserError

LAMBERT = {
    "grid_mapping_name": "lambert_azimuthal_equal_area",
    "longitude_of_projection_origin": -2.5,
    "latitude_of_projection_origin": 54.9,
    "false_easting": 0.0,
    "false_northing": 0.0,
    "semi_major_axis": 6378137.0,
    "semi_minor_axis": 6356752.314140356,
}


def lat_lon(rows=16, columns=24, step=0.25, north=58.0, west=-10.0):
    return Grid(north - step * np.arange(rows), west + step * np.arange(columns))


def test_coarsened_cells_lie_at_the_middle_of_their_block():
    high = lat_lon()
    rows, columns = high.index_on(high.coarsened(4))
    np.testing.assert_allclose(rows[:5, 0], [-0.375, -0.125, 0.125, 0.375, 0.625])
    np.testing.assert_allclose(columns[3, -1], 5.375)


def test_every_fourth_node_is_a_low_node_and_the_low_grid_may_reach_beyond():
    rows, columns = lat_lon(15, 23).index_on(lat_lon(5, 7, step=1.0))
    np.testing.assert_allclose(rows[::4, 0], range(4))
    np.testing.assert_allclose(columns[0, ::4], range(6))
    assert lat_lon(5, 7, step=1.0).covers((rows, columns)).all()


def test_rising_and_falling_rows_give_the_same_field():
    high, low = lat_lon(), lat_lon().coarsened(4)
    flipped = low.crop(slice(None, None, -1), slice(None))
    field = np.random.default_rng(0).normal(size=low.shape).astype("f4")
    maps = [Interpolation(high.index_on(g), g.shape, "bicubic") for g in (low, flipped)]
    np.testing.assert_allclose(maps[0](field), maps[1](field[::-1]), atol=1e-5)


def test_longitudes_of_either_convention_meet():
    here, there = lat_lon(west=-3.0), lat_lon(west=357.0)
    np.testing.assert_allclose(here.index_on(there), here.index_on(here))
    across = Grid(np.array([51.0, 50.0]), np.array([358.0, 359.0, 0.0, 1.0]))
    np.testing.assert_allclose(across.x, [358, 359, 360, 361])


def test_another_projection_is_placed_by_latitude_and_longitude():
    high = Grid(-3e5 + 2e4 * np.arange(10), 2e4 * np.arange(8), LAMBERT)
    low = lat_lon(40, 60, step=0.25, north=58.0, west=-8.0)
    index = high.index_on(low)
    onto = Interpolation(index, low.shape, "bilinear")
    np.testing.assert_allclose(onto(low.latitude), high.latitude, atol=1e-4)
    np.testing.assert_allclose(onto(low.longitude), high.longitude, atol=1e-4)
    back = low.crop(slice(20, 30), slice(25, 35)).index_on(high)
    assert np.ptp(back[0], axis=1).min() > 0.01  # rows of a parallel are bent on the projection
    assert not high.same(low)


def test_cell_areas():
    area = lat_lon(rows=40, step=1.0, north=60.0).area()
    np.testing.assert_allclose(area[0, 0] / area[-1, 0], np.cos(np.deg2rad(60)) / np.cos(np.deg2rad(21)), rtol=1e-6)
    equal = Grid(-3e5 + 2e4 * np.arange(10), 2e4 * np.arange(8), LAMBERT).area()
    np.testing.assert_allclose(equal, 1, atol=1e-6)


def test_coarsening_keeps_the_area_mean_and_leaves_missing_values_out():
    high = lat_lon(16, 24, step=2.0, north=70.0)
    low, cells = high.coarsened(4), high.area()
    field = np.random.default_rng(0).normal(280, 10, size=(3, 16, 24)).astype("f4")
    blocks = cells.reshape(4, 4, 6, 4).sum((1, 3))
    kept = (block_mean(field, cells, 4) * blocks).sum((1, 2)) / blocks.sum()
    np.testing.assert_allclose(kept, (field * cells).sum((1, 2)) / cells.sum(), rtol=1e-6)
    assert np.abs(block_mean(field, cells, 4) - field.reshape(3, 4, 4, 6, 4).mean((2, 4))).max() > 1e-3
    field[0, :4, :4], field[1, 0, 0] = np.nan, np.nan
    mean = block_mean(field, cells, 4)
    assert np.isnan(mean[0, 0, 0]) and np.isfinite(mean[1:]).all() and mean.dtype == np.float32
    assert low.shape == mean.shape[1:]


def test_what_does_not_divide_is_cropped_at_the_end():
    high = lat_lon(33, 49)
    assert high.coarsened(4).shape == (8, 12)
    index = high.index_on(high.coarsened(4))
    inside = high.coarsened(4).covers(index)
    assert inside[:32, :48].all() and not inside[32].any() and not inside[:, 48].any()


@pytest.mark.parametrize("y", [[1.0], [1.0, 3.0, 2.0], [1.0, 1.0]])
def test_a_coordinate_that_orders_nothing_is_refused(y):
    with pytest.raises(UserError, match="y coordinate"):
        Grid(np.array(y), np.arange(3.0))


def test_a_grid_too_small_for_the_factor_is_refused():
    with pytest.raises(UserError, match="too small"):
        lat_lon(8, 12).coarsened(8)
