"""What `dsr data info` says of a store."""

import pytest

from dsr.data.info import describe
from dsr.data.prepare import prepare_from_options
from dsr.data.store import Store
from dsr.errors import UserError

from .archives import analysis


@pytest.mark.parametrize("split", ["time", "region"])
def test_everything_a_user_asks_is_said(tmp_path, split):
    analysis(60, (40, 81)).to_netcdf(tmp_path / "a.nc")
    prepare_from_options(recipe=None, output=tmp_path / "store", high=[str(tmp_path / "a.nc")], factor=4, split=split)
    told = describe(tmp_path / "store")
    store = Store(tmp_path / "store")
    for part in (
        "40 x 80 points, 0.25 x 0.25 degrees",
        "10 x 20 points, 1 x 1 degrees",
        "factor 4, cell-registered",
        "60 truths, 2020-01-01T00:00 to 2020-01-03T11:00",
        "paired by coarsen",
        f"split by {'region' if split == 'region' else 'initial time'}",
        f"{store.statistics['high']['t2m']['mean']:.5g}",
        store.fingerprint,
        "1 files: a.nc",
        "high grid cropped from 40 x 81 to 40 x 80 points",
    ):
        assert part in told, told
    assert max(map(len, told.splitlines())) < 140


def test_no_store(tmp_path):
    with pytest.raises(UserError, match="no store there"):
        describe(tmp_path / "none")


def test_a_store_on_a_bare_plane_has_no_latitudes_to_tell(tiny_store):
    assert "24 x 24 points, 1 x 1 km (a bare plane)" in describe(tiny_store)
