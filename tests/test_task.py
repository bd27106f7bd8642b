"""From a config and a store to a task, and what is refused before anything is started."""

from pathlib import Path

import numpy as np
import pytest

from dsr.errors import UserError
from dsr.task import resolve
from tests.stores import write_tiny_store

SMALL = Path(__file__).parent / "small.json"


def test_the_store_given_goes_before_the_configs(tiny_store):
    found = resolve(SMALL, ("dsr.data.store=/nowhere",), str(tiny_store))
    assert (found.store, found.samples) == (str(tiny_store), 40)
    assert resolve(SMALL, (f"dsr.data.store={tiny_store}", "dsr.data.patch=12")).samples == 40 * 4


def test_where_a_missing_store_is_to_be_had_is_said(tmp_path):
    sets = (f"dsr.data.store={tmp_path}/gone.zarr", "dsr.data.origin=ask the service")
    with pytest.raises(UserError, match=r"gone.zarr: no store there .*\nwhere to get it: ask the service$"):
        resolve(SMALL, sets)
    with pytest.raises(UserError, match=r"other.zarr: no store there [^\n]*$"):
        resolve(SMALL, sets, str(tmp_path / "other.zarr"))


def test_what_would_fail_later_is_refused(tiny_store, tmp_path):
    write_tiny_store(tmp_path / "a.zarr", np.repeat([0, -1, 2], 8).repeat(24).reshape(24, 24))
    cases = {
        "no store there": ("dsr.data.store=/nowhere",),
        "no variable q there": ('dsr.data.low=["q"]',),
        "dsr.loss.weights: q is not learnt here": ("dsr.loss.weights.q=2",),
        "did you mean width": ("dsr.model.widht=8",),
        "not one of deepdownscale": ("dsr.model.name=unet",),
        "learns values for each place": ("dsr.model.place=true", "dsr.data.patch=8"),
        "larger than the high grid": ("dsr.data.patch=25",),
        "the validation split is empty": (f"dsr.data.store={tmp_path / 'a.zarr'}",),
    }
    for message, sets in cases.items():
        with pytest.raises(UserError, match=message):
            resolve(SMALL, (f"dsr.data.store={tiny_store}", *sets))
