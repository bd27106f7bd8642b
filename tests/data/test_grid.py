"""Where grids lie on each other, from coordinates alone."""

import pickle

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


# Seams and poles


def globe(step, west=0.0, rows=None, columns=None):
    """Cells of `step` degrees round the earth, from `west`, north first."""
    y = 90 - step * (np.arange(round(180 / step) if rows is None else rows) + 0.5)
    return Grid(y, west + step * (np.arange(round(360 / step) if columns is None else columns) + 0.5))


def test_a_grid_that_goes_round_knows_it():
    assert globe(2).periodic and globe(2).period == 180
    assert globe(2, -180).crop(slice(None), slice(None, None, -1)).periodic
    repeats = globe(2, columns=181)  # 0 to 360, both given
    assert repeats.period == 180 and not repeats.periodic
    assert globe(2, columns=179).period is None
    assert Grid(np.arange(3.0), np.arange(0, 360, 0.1).astype("f4")).periodic
    assert not Grid(np.arange(3.0), np.arange(0, 360, 1.0), LAMBERT).periodic
    rotated = {"grid_mapping_name": "rotated_latitude_longitude", "grid_north_pole_latitude": 40.0}
    assert Grid(np.arange(3.0), np.arange(0, 360, 2.0), rotated | {"grid_north_pole_longitude": 10.0}).periodic
    assert globe(2).coarsened(4).periodic


def wave(grid):
    return (np.sin(np.radians(3 * grid.longitude)) * np.cos(np.radians(grid.latitude))).astype(np.float32)


@pytest.mark.parametrize("low_west", [0.0, -180.0, -90.0])
@pytest.mark.parametrize("high", ["globe", "Greenwich", "date line", "to 180", "Lambert"])
def test_every_domain_lies_seamless_on_a_globe(low_west, high):
    low = globe(3, low_west)
    domains = {
        "globe": globe(1, -180.0),
        "Greenwich": Grid(60 - 0.5 * np.arange(20), np.arange(350, 375) % 360.0),
        "date line": Grid(60 - 0.5 * np.arange(20), (np.arange(170, 195) + 180) % 360.0 - 180),
        "to 180": Grid(60 - 0.5 * np.arange(20), np.arange(-180.0, 0.0)),
        "Lambert": Grid(-1e6 + 1e5 * np.arange(20), -1e6 + 1e5 * np.arange(20), LAMBERT),
    }
    grid = domains[high]
    index = grid.index_on(low)
    assert low.covers(index).all()
    for method, close in (("bilinear", 0.02), ("bicubic", 0.01)):
        found = Interpolation(index, low.shape, method)(wave(low))
        inner = np.abs(grid.latitude) < 88  # beyond the last row, the nearest is taken
        np.testing.assert_allclose(found[inner], wave(grid)[inner], atol=close)


def test_regional_domains_meet_across_either_seam():
    for middle in (0, 180):
        low = Grid(np.arange(40.0, 61.0), (middle + np.arange(-20.0, 21.0)) % 360)
        high = Grid(np.arange(45.0, 55.0, 0.5), (middle + np.arange(-5.0, 5.0, 0.5) + 180) % 360 - 180)
        rows, columns = high.index_on(low)
        np.testing.assert_allclose(columns[0, [0, -1]], [15, 24.5])
        assert low.covers((rows, columns)).all()


def test_between_the_last_row_and_the_pole_the_last_row_is_taken():
    gaussian = Grid(np.array([87.86, 85.1, 82.3, 79.5]), globe(3).x)
    high = Grid(np.array([89.9, 88.0, 80.0]), globe(2).x)
    index = high.index_on(gaussian)
    assert gaussian.covers(index).all()
    last = Grid(np.array([87.86, 80.0]), high.x).index_on(gaussian)
    found, there = (Interpolation(i, gaussian.shape, "bicubic")(wave(gaussian)) for i in (index, last))
    assert np.array_equal(found[0], there[0]) and np.array_equal(found[1], there[0])
    assert np.isfinite(found).all() and np.isfinite(high.area()).all()
    regional = Grid(np.array([70.0, 69.0, 68.0]), globe(3).x)
    assert not regional.covers(high.index_on(regional))[:2].any()


def test_the_pole_lies_on_a_polar_grid_and_on_a_globe():
    polar = {"grid_mapping_name": "polar_stereographic", "straight_vertical_longitude_from_pole": 0.0}
    polar |= {"latitude_of_projection_origin": 90.0, "standard_parallel": 70.0}
    high, low = Grid(1e5 * np.arange(-10, 11), 1e5 * np.arange(-10, 11), polar), globe(2)
    index = high.index_on(low)
    assert low.covers(index).all() and np.isfinite(high.area()).all()
    found = Interpolation(index, low.shape, "bicubic")(wave(low))
    np.testing.assert_allclose(found, wave(high), atol=0.02)


def test_grids_travel_between_processes():
    for grid in (globe(2), Grid(np.arange(3.0), np.arange(4.0), LAMBERT), Grid(np.arange(3.0), np.arange(4.0), {})):
        assert pickle.loads(pickle.dumps(grid)).same(grid)
        assert Grid.from_dataset(grid.to_dataset()).same(grid)
