"""Later runs join a store that is there, by the command that made it."""

import numpy as np
import pytest

from dsr.data.prepare import prepare_from_options
from dsr.data.store import Store
from dsr.errors import UserError

from .archives import analysis

pytestmark = pytest.mark.filterwarnings("ignore")


def made(tmp_path, **options):
    files = [str(tmp_path / "*.nc")]
    return prepare_from_options(recipe=None, output=tmp_path / "store", high=files, factor=4, gap=2, **options)


def test_runs_of_new_files_are_added_and_the_rest_stays_to_the_bit(tmp_path):
    whole = analysis(140, (16, 24))
    whole.isel(time=slice(0, 100)).to_netcdf(tmp_path / "1.nc")
    made(tmp_path)
    before = Store(tmp_path / "store")
    fields, split = before.high[:].copy(), before._array("low/split").copy()
    whole.isel(time=slice(100, 140)).to_netcdf(tmp_path / "2.nc")
    told = made(tmp_path, append=True)
    assert "added  40 samples, 2020-01-05T04:00 to 2020-01-06T19:00: train 0, validation 0, test 40" in told
    after = Store(tmp_path / "store")
    np.testing.assert_array_equal(after.high[:100], fields)
    np.testing.assert_array_equal(after._array("low/split")[:100], split)
    np.testing.assert_array_equal(after.high[:][:, 0], whole["t2m"].values)
    assert after.statistics["high"] == before.statistics["high"] and after.fingerprint != before.fingerprint
    with pytest.raises(UserError, match="nothing to add"):
        made(tmp_path, append=True)


def test_what_is_not_later_or_not_there_is_refused(tmp_path):
    whole = analysis(120, (16, 24))
    with pytest.raises(UserError, match="no store there"):
        whole.isel(time=slice(20, 120)).to_netcdf(tmp_path / "2.nc")
        made(tmp_path, append=True)
    made(tmp_path)
    whole.isel(time=slice(0, 20)).to_netcdf(tmp_path / "1.nc")
    with pytest.raises(UserError, match="only whole later runs can be added"):
        made(tmp_path, append=True)
    assert len(Store(tmp_path / "store").time) == 100
