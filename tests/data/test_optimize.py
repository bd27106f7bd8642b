"""A store that is written anew: the same values for every reader, in one step, under another fingerprint."""

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner

import dsr.data.store as stores
from dsr.cli import main
from dsr.data.optimize import optimize
from dsr.data.store import Store
from dsr.errors import UserError
from tests.stores import write_four_samples


@pytest.fixture
def path(tmp_path):
    random = np.random.default_rng(0)
    high = random.normal(size=(4, 1, 4, 4)).astype(np.float32)
    high[0, 0, 0, 0], high[1, 0, 0, 0] = np.nan, -0.0
    write_four_samples(tmp_path / "a.zarr", high=high)
    return tmp_path / "a.zarr"


@pytest.mark.parametrize("beside", [False, True])
def test_all_values_are_the_same_bits_and_the_codec_is_lz4(path, tmp_path, beside):
    old = Store(path)
    high, low, tree = old.high[:].tobytes(), old.low[:].tobytes(), stores.open(path).load()
    output = tmp_path / "b.zarr" if beside else None
    told = optimize(path, output)
    new = Store(output or path)
    assert (new.high[:].tobytes(), new.low[:].tobytes()) == (high, low)
    found = stores.open(output or path).load()
    for node in ("high", "low", "static"):
        xr.testing.assert_identical(found[node].to_dataset(), tree[node].to_dataset())
    assert "lz4" in str(new.group["high/field"].compressors) and new.statistics == old.statistics
    assert new.fingerprint != old.fingerprint
    assert new.attributes["provenance"]["optimized_from"] == old.fingerprint
    for word in ("samples/s", " MB", old.fingerprint[:12], new.fingerprint[:12], "--force"):
        assert word in told
    assert {file.name for file in tmp_path.iterdir()} == ({"a.zarr", "b.zarr"} if beside else {"a.zarr"})
    assert not beside or Store(path).fingerprint == old.fingerprint


def test_a_rotten_store_stays_as_it_is(path, tmp_path):
    was = Store(path).fingerprint
    (path / "high/field/c/2/0/0/0").write_bytes(b"other")
    with pytest.raises(UserError, match="row 2 of high/field"):
        optimize(path)
    assert Store(path).fingerprint == was and [file.name for file in tmp_path.iterdir()] == ["a.zarr"]


def test_where_it_goes(path, tmp_path):
    result = CliRunner().invoke(main, ["data", "optimize", str(path), "-o", str(path)])
    assert result.exit_code == 2 and "exists already" in result.output
    result = CliRunner().invoke(main, ["data", "optimize", str(path), "-o", str(tmp_path / "c.zarr")])
    assert result.exit_code == 0 and "bit for bit" in result.output and (tmp_path / "c.zarr").is_dir()
