"""Values that a file itself calls invalid are missing, however it says so."""

import netCDF4
import numpy as np
import pytest

from dsr.data.archive import open_archive


def written(path, dtype, values, **attributes):
    with netCDF4.Dataset(path, "w") as file:
        for name, units, points in (
            ("time", "hours since 2020-01-01", range(len(values))),
            ("lat", "degrees_north", [44, 45]),
            ("lon", "degrees_east", [5, 6]),
        ):
            file.createDimension(name, len(points))
            file.createVariable(name, "f8", (name,))[:] = list(points)
            file[name].units = units
        variable = file.createVariable("ozone", dtype, ("time", "lat", "lon"))
        variable.set_auto_maskandscale(False)
        variable[:] = np.broadcast_to(np.array(values)[:, None, None], (len(values), 2, 2))
        variable.setncatts({"units": "1", **attributes})
    return str(path)


PACKED = {"scale_factor": 0.01, "add_offset": 1.0}


@pytest.mark.parametrize(
    ("dtype", "values", "attributes", "truth"),
    [
        ("i2", [0, 300, -9], PACKED | {"valid_min": np.int16(0)}, [1, 4, np.nan]),  # as packed
        ("i2", [0, 300, -9], PACKED | {"valid_range": np.array([1.0, 3.0])}, [1, np.nan, np.nan]),  # as unpacked
        ("i2", [0, 300, -9], {"scale_factor": -0.01, "valid_max": np.int16(299)}, [0, np.nan, 0.09]),
        ("f4", [0, 3, -9], {"valid_range": np.array([0, 2], "f4")}, [0, np.nan, np.nan]),
        ("i1", [0, 10, -56], {"_Unsigned": "true", "valid_range": np.array([0, -57], "i1")}, [0, 10, np.nan]),
        ("i2", [0, 300, -32767], PACKED, [1, 4, np.nan]),  # NetCDF's own fill value
        ("u2", [0, 300, 65535], PACKED, [1, 4, np.nan]),
        ("i2", [0, 300, -32767], PACKED | {"missing_value": np.int16(300)}, [1, np.nan, -326.67]),  # which is named
        ("f4", [0, 3, -9], {"valid_min": "none"}, [0, 3, -9]),
    ],
)
def test_what_lies_out_of_the_valid_range_is_missing_and_counted(tmp_path, dtype, values, attributes, truth):
    archive = open_archive([written(tmp_path / "o.nc", dtype, values, **attributes)])
    np.testing.assert_allclose([archive.read(i)[0, 0, 0] for i in range(3)], truth, rtol=1e-5)
    missing = 4 * (np.isnan(truth).sum() - ("missing_value" in attributes))
    assert sum(archive.counts.values()) == missing
