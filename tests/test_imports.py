"""Libraries that bring C libraries of one name are imported in any order: right numbers, and a clean end."""

import subprocess
import sys
from itertools import combinations, permutations
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
NAMES = ("pyproj", "eccodes", "netCDF4", "cfgrib", "torch", "dsr.data.store")
USE = """
import sys
from pathlib import Path

sys.path.insert(0, {root!r})
for name in {order!r}:
    __import__(name)
import numpy as np
import pyproj, torch, netCDF4, xarray
from tests.data.archives import write_grib

grib, netcdf = Path("one.grib"), Path("one.nc")
keys = {{"discipline": 0, "parameterCategory": 0, "parameterNumber": 0, "value": 280.0}}
write_grib(grib, [keys])
with xarray.open_dataset(grib, engine="cfgrib", backend_kwargs={{"indexpath": ""}}) as dataset:
    assert np.allclose(dataset["t"].values.ravel(), 280 + 0.001 * np.arange(24), atol=1e-4)
with netCDF4.Dataset(netcdf, "w") as file:
    file.createDimension("x", 3)
    file.createVariable("x", "f8", "x")[:] = [1, 2, 4]
with netCDF4.Dataset(netcdf) as file:
    assert file["x"][:].tolist() == [1, 2, 4]
assert torch.linalg.inv(2 * torch.eye(3)).sum() == 1.5
where = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:3035", always_xy=True).transform(10, 52)
assert np.allclose(where, (4321000, 3210000), atol=1e-3), where  # the false origin of the projection
"""


def orders(names):
    """Few orders of all names in which any three of them stand in each of their orders."""
    candidates = {order: set(combinations(order, 3)) for order in permutations(names)}
    missing = set(permutations(names, 3))
    while missing:
        best = max(candidates, key=lambda order: len(candidates[order] & missing))
        missing -= candidates[best]
        yield best


@pytest.mark.parametrize("order", list(orders(NAMES)), ids="-".join)
def test_any_order_of_imports(order, tmp_path):
    code = USE.format(root=str(ROOT), order=order)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("first", ["torch", "eccodes", "netCDF4"])
def test_dsr_after_another_library(first):
    code = f"import {first}, dsr\ndsr.load\nimport pyproj, torch, netCDF4\nprint(dsr.open_store.__name__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "open\n", "")
