"""Bicubic interpolation as a module: the map of NumPy's, the same bits in any company, and round the earth."""

import numpy as np
import pytest
import torch

from dsr.data import interpolate
from dsr.data.interpolate import Index, Interpolation
from dsr.models.bicubic import Scattered, Separable, bicubic

ROWS, COLUMNS = np.meshgrid((np.arange(24) - 1.5) / 4, (np.arange(28) - 1.5) / 4, indexing="ij")
LOW = (6, 7)
GRIDS = {
    "separable": Index(ROWS, COLUMNS),
    "upside down": Index(ROWS[::-1], COLUMNS),
    "beyond the edges": Index(ROWS * 1.5 - 2, COLUMNS * 1.5 - 2),
    "round": Index(ROWS, COLUMNS, 7),
    "another projection": Index(ROWS + 0.02 * COLUMNS, COLUMNS - 0.01 * ROWS),
    "another projection, round": Index(ROWS + 0.1 * ROWS[::-1] * (COLUMNS % 1), COLUMNS, 7),
}
FIELDS = torch.randn(16, 5, *LOW, generator=torch.Generator().manual_seed(0))


def whole(onto, fields):
    """(n, variable, y, x) -> (n, variable, Y, X)."""
    high = onto(fields.flatten(0, 1))
    return high.reshape(len(fields), -1, *high.shape[1:])


@pytest.fixture(params=GRIDS)
def grid(request):
    return GRIDS[request.param]


@pytest.fixture(params=["kept", "worked out"])
def onto(request, grid, monkeypatch):
    """The module, with taps that are kept, or in tiles that are worked out for each call."""
    if request.param == "worked out":
        monkeypatch.setattr(interpolate, "KEPT", 10)
        monkeypatch.setattr(interpolate, "TILE", 100)
    return bicubic(grid, LOW)


def test_it_is_the_map_of_numpy(grid, onto):
    expected = Interpolation(grid, LOW, "bicubic")
    assert isinstance(onto, Separable if expected.separable else Scattered)
    np.testing.assert_allclose(whole(onto, FIELDS).numpy(), expected(FIELDS.numpy()), atol=2e-6)


def test_a_window_is_a_crop_to_the_bit(onto):
    for window in ((slice(5, 13), slice(0, 9)), (slice(0, 24), slice(20, 28))):
        assert torch.equal(onto(FIELDS[0], window), onto(FIELDS[0])[:, *window])


def test_the_bits_do_not_depend_on_the_company(onto):
    together = whole(onto, FIELDS)
    for some in (slice(0, 1), slice(3, 5), slice(15, 16)):
        assert torch.equal(whole(onto, FIELDS[some]), together[some])
    assert torch.equal(onto(FIELDS[2, 1:2]), together[2, 1:2])


@pytest.mark.parametrize("name", ["separable", "another projection"])
def test_the_bits_do_not_depend_on_the_number_of_threads(name):
    onto, fields = bicubic(GRIDS[name], LOW), FIELDS.repeat(8, 1, 1, 1)  # large enough to be dealt to threads
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            found.append(whole(onto, fields))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


@pytest.mark.parametrize("name", ["round", "another projection, round"])
def test_columns_that_go_round_have_no_seam(name):
    """What is turned by three low columns, twelve high ones, stays the same field, turned, to the bit."""
    onto = bicubic(GRIDS[name], LOW)
    assert torch.equal(onto(FIELDS[0].roll(3, -1)), onto(FIELDS[0]).roll(12, -1))


def test_a_missing_value_spoils_its_neighbourhood_alone(onto, grid):
    fields = FIELDS[0].clone()
    fields[:, 2, 3] = np.nan
    rows, columns = (np.clip(places, 0, size - 1) for places, size in zip(grid, LOW, strict=True))
    near = np.hypot(rows - 2, columns - 3)
    found = torch.isnan(onto(fields)).all(0).numpy()
    assert found[near < 0.5].all() and not found[near > 3].any()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["separable", "another projection"])
def test_it_can_be_exported(name):
    """For formats without torch's operators, as sums of plain gathers: the same to rounding."""
    onto = bicubic(GRIDS[name], LOW)
    program = torch.export.export(onto, (FIELDS[0],))
    assert "embedding_bag" not in str(program.graph) and "mm" not in str(program.graph)
    torch.testing.assert_close(program.module()(FIELDS[0]), onto(FIELDS[0]), atol=1e-6, rtol=1e-6)
    assert not program.state_dict
