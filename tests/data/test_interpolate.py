"""Interpolation: exact where theory says so, the same in its two forms, and kept inside the domain."""

import numpy as np
import pytest

from dsr.data.interpolate import METHODS, Index, Interpolation


def index(rows, columns):
    return tuple(np.meshgrid(np.asarray(rows, float), np.asarray(columns, float), indexing="ij"))


NODES = index(np.arange(21) / 4, np.arange(25) / 4)  # every 4th high point is a low one: 6 x 7
CELLS = index((np.arange(24) - 1.5) / 4, (np.arange(28) - 1.5) / 4)  # 4 high cells in each low one
INSIDE = (slice(8, 15), slice(8, 19))  # where all 4 x 4 taps lie in the domain, on both


def field(rows, columns, power):
    return (0.5 + rows - 2 * columns + power * (rows**2 - rows * columns + 0.5 * columns**2)).astype(np.float32)


def low(power):
    return field(*index(np.arange(6), np.arange(7)), power)


@pytest.mark.parametrize("where", [NODES, CELLS], ids=["nodes", "cells"])
@pytest.mark.parametrize("method", METHODS)
def test_a_constant_stays_one_everywhere(method, where):
    found = Interpolation(where, (6, 7), method)(np.full((2, 3, 6, 7), 280.0))
    assert found.shape == (2, 3, *where[0].shape) and found.dtype == np.float32
    np.testing.assert_allclose(found, 280, rtol=1e-6)


@pytest.mark.parametrize("where", [NODES, CELLS], ids=["nodes", "cells"])
def test_bilinear_reproduces_planes(where):
    found = Interpolation(where, (6, 7), "bilinear")(low(0))
    np.testing.assert_allclose(found[INSIDE], field(*where, 0)[INSIDE], rtol=1e-5, atol=1e-5)


def test_bilinear_does_not_reproduce_quadratics():
    found = Interpolation(CELLS, (6, 7), "bilinear")(low(1))
    assert np.abs(found - field(*CELLS, 1))[INSIDE].max() > 0.1


@pytest.mark.parametrize("method", METHODS)
def test_low_points_on_nodes_are_kept(method):
    values = np.random.default_rng(0).normal(size=(6, 7)).astype(np.float32)
    np.testing.assert_allclose(Interpolation(NODES, (6, 7), method)(values)[::4, ::4], values, atol=1e-6)


def test_nearest_on_cells_repeats_each_cell():
    values = np.random.default_rng(0).normal(size=(6, 7)).astype(np.float32)
    assert np.array_equal(Interpolation(CELLS, (6, 7), "nearest")(values), values.repeat(4, 0).repeat(4, 1))


def test_bicubic_weights_by_hand():
    """Keys' kernel with a = -3/4 half way between two points: -3/32, 19/32, 19/32, -3/32."""
    values = np.zeros((1, 8), np.float32)
    values[0, 3] = 1
    found = Interpolation(index([0], np.arange(14) / 2), (1, 8), "bicubic")(values)[0]
    assert found.tolist() == [0, 0, 0, -3 / 32, 0, 19 / 32, 1, 19 / 32, 0, -3 / 32, 0, 0, 0, 0]


@pytest.mark.parametrize("method", METHODS)
def test_points_beyond_the_low_domain_take_its_edge(method):
    values = np.random.default_rng(1).normal(size=(6, 7)).astype(np.float32)
    outside = Interpolation(index([-3, 2, 9], [-1, 3, 6.4]), (6, 7), method)(values)
    at_edge = Interpolation(index([0, 2, 5], [0, 3, 6]), (6, 7), method)(values)
    np.testing.assert_allclose(outside, at_edge, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_the_sparse_form_is_the_separable_one(method, monkeypatch):
    values = np.random.default_rng(2).normal(size=(2, 6, 7)).astype(np.float32)
    matrices = Interpolation(CELLS, (6, 7), method)
    rows, columns = CELLS
    turned = rows + 1e-3 * columns, columns - 1e-3 * rows
    sparse = Interpolation(turned, (6, 7), method)
    assert matrices.separable and not sparse.separable
    monkeypatch.setattr(np, "ptp", lambda values, axis: np.ones(1))  # as if rows depended on x
    same = Interpolation(CELLS, (6, 7), method)
    assert not same.separable
    np.testing.assert_allclose(same(values), matrices(values), atol=1e-5)


def test_a_missing_value_is_never_passed_off_as_a_number():
    values = np.ones((6, 7), np.float32)
    values[2, 3] = np.nan
    for turn in (0, 1e-2):
        found = Interpolation((CELLS[0] + turn * CELLS[1], CELLS[1]), (6, 7), "bilinear")(values)
        assert np.isnan(found[10, 14])  # inside the low cell (2, 3)
        assert np.isfinite(found[:4]).all() or not turn  # matrix products spread NaN along rows and columns


@pytest.mark.parametrize("turn", [0.0, 0.01], ids=["separable", "sparse"])
@pytest.mark.parametrize("method", METHODS)
def test_columns_that_go_round_have_no_seam(method, turn):
    """What is turned by three low columns, twelve high ones, stays the same field, turned."""
    rows, columns = index((np.arange(24) - 1.5) / 4, (np.arange(28) - 1.5) / 4)
    onto = Interpolation(Index(rows + turn * rows[::-1] * (columns % 1), columns, 7), (6, 7), method)
    field = np.random.default_rng(0).normal(size=(2, 6, 7)).astype(np.float32)
    assert onto.separable == (turn == 0)
    np.testing.assert_allclose(onto(np.roll(field, 3, -1)), np.roll(onto(field), 12, -1), atol=1e-5)


def test_a_column_that_repeats_the_first_is_not_used_twice():
    field = np.random.default_rng(0).normal(size=(6, 7)).astype(np.float32)
    places = Index(*index(np.arange(6), np.arange(-0.5, 6.5, 0.25)), 7)
    repeated = np.concatenate([field, field[:, :1] + 100], 1)
    plain = Interpolation(places, (6, 7), "bicubic")(field)
    np.testing.assert_allclose(Interpolation(places, (6, 8), "bicubic")(repeated), plain, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_large_domains_have_the_same_map(method, monkeypatch):
    """In sparse matrices where the separable form is large, and tile by tile where there is none."""
    import dsr.data.interpolate as module

    values, turned = low(1), (CELLS[0] + 0.02 * CELLS[1], CELLS[1])
    expected = [Interpolation(where, (6, 7), method)(values[None]) for where in (CELLS, turned)]
    monkeypatch.setattr(module, "DENSE", 10)
    monkeypatch.setattr(module, "TILE", 100)
    for kept in (10**6, 10):
        monkeypatch.setattr(module, "KEPT", kept)
        for where, field in zip((CELLS, turned), expected, strict=True):
            onto = Interpolation(where, (6, 7), method)
            np.testing.assert_allclose(onto(values[None]), field, rtol=1e-6, atol=1e-6)
