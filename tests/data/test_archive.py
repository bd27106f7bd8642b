"""Archives of every kind come out as the same frames."""

import fsspec
import numpy as np
import pytest
import xarray as xr

from dsr.data import decoding
from dsr.data.archive import open_archive, static_fields
from dsr.data.calendar import when
from dsr.data.choice import Choice
from dsr.data.grid import Grid
from dsr.errors import UserError

from .archives import HOUR, START, analysis, forecasts, write_grib

pytestmark = pytest.mark.filterwarnings("ignore")


def saved(dataset, path):
    dataset.to_netcdf(path)
    return str(path)


def test_an_analysis_has_one_frame_a_time_and_no_lead(tmp_path):
    truth = analysis(5)
    archive = open_archive([saved(truth, tmp_path / "a.nc")])
    assert [when(frame, archive.calendar) for frame in archive.frames[:2]] == ["2020-01-01T00:00", "2020-01-01T01:00"]
    assert not archive.lead_time.any() and archive.members is None and archive.grid.shape == (8, 12)
    np.testing.assert_array_equal(archive.read(3)[0], truth["t2m"].values[3])
    assert archive.variables[0].units == "K" and archive.variables[0].standard_name == "air_temperature"


def test_files_are_joined_by_glob_and_overlaps_are_kept_once(tmp_path):
    truth = analysis(8)
    saved(truth.isel(time=slice(0, 5)), tmp_path / "1.nc")
    saved(truth.isel(time=slice(4, 8)), tmp_path / "2.nc")
    archive = open_archive(["*.nc"], root=tmp_path)
    assert len(archive.frames) == 8 and len(archive.files) == 2
    assert [len(frames) for frames in archive.dropped.values()] == [1]


@pytest.mark.parametrize("layout", ["init and lead", "time and timedelta", "one dimension", "scalars"])
def test_initial_and_lead_times_however_they_are_written(tmp_path, layout):
    data = forecasts(2, (1, 2, 3))[["t2m"]]
    if layout == "time and timedelta":  # as WeatherBench 2
        data = data.rename(init_time="time", lead_time="prediction_timedelta")
        data["prediction_timedelta"] = np.array([1, 2, 3]) * HOUR
    elif layout == "one dimension":
        data = data.isel(init_time=1, drop=True).rename(lead_time="time")
        data = data.assign_coords(time=START + 24 * HOUR + np.array([1, 2, 3]) * HOUR)
        data = data.assign_coords(forecast_reference_time=START + 24 * HOUR)
    elif layout == "scalars":
        data = data.isel(init_time=1, lead_time=2)
        attributes = {"units": "hours", "standard_name": "forecast_period"}
        data = data.assign_coords(lead_time=((), 3, attributes), time=START + 27 * HOUR).drop_vars("init_time")
    archive = open_archive([saved(data, tmp_path / "f.nc")])
    day = int(START.astype("datetime64[s]").astype(int)) + 86400
    assert archive.frames[-1] == (day, 3 * 3600)
    assert len(archive.frames) == {"one dimension": 3, "scalars": 1}.get(layout, 6)
    assert archive.read(len(archive.frames) - 1)[0, 0, 0] == pytest.approx(281.3)


@pytest.mark.parametrize("name", ["member", "number", "realization", "ens", "ensemble"])
def test_the_ensemble_dimension_under_its_usual_names(tmp_path, name):
    control = analysis(3)
    members = xr.concat([control, control + 1, control + 2], name).assign_coords({name: [0, 1, 7]})
    path = saved(members.transpose("time", "latitude", "longitude", name), tmp_path / "e.nc")
    archive = open_archive([path])
    assert archive.members == [0, 1, 7]
    field = archive.read(2)
    assert field.shape == (3, 1, 8, 12)
    np.testing.assert_allclose(field[2] - field[0], 2, atol=1e-4)
    one = open_archive([path], members=[7])
    assert one.members is None
    np.testing.assert_array_equal(one.read(2), field[2])


def test_a_frame_that_lacks_members_is_dropped(tmp_path):
    control = analysis(3)
    members = xr.concat([control, control + 1], "member").assign_coords(member=[0, 1])
    saved(members.isel(time=[0, 1]), tmp_path / "1.nc")
    saved(members.isel(time=[2], member=[0]), tmp_path / "2.nc")
    archive = open_archive(["*.nc"], root=tmp_path)
    assert archive.members == [0, 1] and len(archive.frames) == 2
    assert list(archive.dropped) == ["t2m lacks members [1]"]


def test_levels_become_variables(tmp_path):
    data = xr.concat([analysis(2), analysis(2) - 20], "pressure").assign_coords(pressure=[850, 500])
    archive = open_archive(
        [saved(data.rename(t2m="t"), tmp_path / "l.nc")], {"upper": Choice(source="t_500"), "t_850": Choice()}
    )
    field = archive.read(0)
    assert [v.name for v in archive.variables] == ["upper", "t_850"]
    np.testing.assert_allclose(field[1] - field[0], 20, atol=1e-4)


def test_a_projection_in_kilometres(tmp_path):
    mapping = {"grid_mapping_name": "lambert_azimuthal_equal_area", "longitude_of_projection_origin": -2.5}
    mapping |= {"latitude_of_projection_origin": 54.9, "false_easting": 0.0, "false_northing": 0.0}
    data = analysis(2).rename(latitude="projection_y_coordinate", longitude="projection_x_coordinate")
    data["projection_y_coordinate"] = ("projection_y_coordinate", 2.0 * np.arange(8), {"units": "km"})
    data["projection_x_coordinate"] = ("projection_x_coordinate", 2.0 * np.arange(12), {"units": "km"})
    data["t2m"].attrs["grid_mapping"] = "laea"
    data["laea"] = ((), 0, mapping)
    archive = open_archive([saved(data, tmp_path / "p.nc")])
    assert archive.grid.spacing == (2000, 2000) and archive.grid.latitude[0, 0] == pytest.approx(54.9)
    del data["laea"]
    with pytest.raises(UserError, match="a projection that the file does not name"):
        open_archive([saved(data, tmp_path / "q.nc")])


def test_sentinels_fill_values_and_impossible_values_become_missing(tmp_path):
    data = analysis(2)
    data["t2m"][0, 0, :4] = [-9999, 9.96921e36, -77, 5000]
    data["t2m"][0, 1, 0] = np.nan
    data["t2m"].encoding["_FillValue"] = -1.0
    choice = Choice(missing=(-77,), valid_range=(150, 350))
    archive = open_archive([saved(data, tmp_path / "m.nc")], {"t2m": choice})
    assert np.isnan(archive.read(0)).sum() == 5 and np.isfinite(archive.read(1)).all()
    assert sum(archive.counts.values()) == 4


def test_units_are_converted_or_refused(tmp_path):
    path = saved(forecasts(2)[["tp", "t2m"]], tmp_path / "u.nc")
    archive = open_archive([path], {"rain": Choice("tp", "kg m-2", True), "t2m": Choice(units="degC")})
    rain, t2m = archive.read(1)
    np.testing.assert_allclose(rain, 4 - 1, rtol=1e-6)
    np.testing.assert_allclose(t2m, 280.2 - 273.15, atol=1e-4)
    assert [v.units for v in archive.variables] == ["kg m-2", "degC"]
    with pytest.raises(UserError, match='t2m: "K" cannot be converted to "m s-1"'):
        open_archive([path], {"t2m": Choice(units="m s-1")})


def test_totals_of_a_run_become_amounts_over_the_actual_step(tmp_path):
    data = forecasts(2, (1, 2, 3, 6))[["tp"]]
    data["tp"][0, 2, 0, 0] -= 0.005002  # falls by 2e-6 of 9e-3 m, as packing makes it: clipped and counted
    archive = open_archive([saved(data, tmp_path / "tp.nc")], {"tp": Choice(units="mm", accumulated=True)})
    assert [when(frame, archive.calendar)[-4:] for frame in archive.frames[:4]] == ["+1 h", "+2 h", "+3 h", "+6 h"]
    amounts = [archive.read(i)[0] for i in range(8)]
    np.testing.assert_allclose([a[3, 3] for a in amounts], [1, 3, 5, 27, 1, 3, 5, 27], rtol=1e-4)
    assert amounts[2][0, 0] == 0
    assert archive.counts["tp", "small falls of the total, clipped to 0"] == 1
    assert archive.interval("tp", archive.frames[3]) == (3 * 3600, 6 * 3600)
    assert archive.variables[0].cell_methods == "time: sum" and not archive.dropped
    assert any("mixes values over 1, 3 hours" in note for note in archive.notes)
    np.testing.assert_array_equal(archive.read(5), amounts[5][None])  # in any order


def test_what_is_no_total_is_not_differenced(tmp_path):
    data = forecasts(1, (1, 2, 3))[["tp"]].isel(lead_time=[2, 1, 0]).assign_coords(lead_time=[1, 2, 3])
    data["lead_time"].attrs["units"] = "hours"
    with pytest.raises(
        UserError, match=r"tp is not a total since the start of the run: it falls by 0.005 before \+2 h"
    ):
        open_archive([saved(data, tmp_path / "tp.nc")], {"tp": Choice(accumulated=True)})


def test_grib_hypercubes_are_opened_together(tmp_path):
    base = {"dataTime": 0, "stepType": "instant"}
    temperature = base | {"shortName": "2t", "typeOfLevel": "heightAboveGround", "level": 2}
    wind = base | {"shortName": "10u", "typeOfLevel": "heightAboveGround", "level": 10}
    messages = [temperature | {"step": s, "value": 280.0 + s} for s in (0, 1, 2)]
    messages += [wind | {"step": s, "value": float(s)} for s in (1, 2)]
    archive = open_archive([str(write_grib(tmp_path / "a.grib", messages))])
    assert [v.name for v in archive.variables] == ["t2m", "u10"] and len(archive.frames) == 2
    assert archive.variables[0].standard_name == "air_temperature" and archive.dropped
    assert archive.read(1)[:, 0, 0] == pytest.approx([282, 2], abs=1e-3)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.grib"]  # no index beside the data


@pytest.mark.parametrize(("starts", "accumulated"), [((0, 0, 0), True), ((0, 1, 2), False)])
def test_grib_totals_are_told_from_amounts_by_their_start(tmp_path, starts, accumulated):
    keys = {
        "shortName": "tp",
        "productDefinitionTemplateNumber": 8,
        "typeOfStatisticalProcessing": 1,
        "stepType": "accum",
    }
    messages = [keys | {"stepRange": f"{s}-{e}", "value": float(e)} for s, e in zip(starts, (1, 2, 3), strict=True)]
    for message in messages:
        message["shortName"] = message.pop("shortName")  # set last: it depends on the others
    path = write_grib(tmp_path / "tp.grib", messages)
    fsspec.filesystem("memory").put(str(path), f"memory://totals/{accumulated}.grib")
    archive = open_archive([f"memory://totals/{accumulated}.grib"], {"tp": Choice(units="kg m-2")})
    assert [archive.interval("tp", frame) for frame in archive.frames] == [(0, 3600), (3600, 7200), (7200, 10800)]
    assert archive.read(1)[0, 0, 0] == pytest.approx(1000 if accumulated else 2000, rel=1e-3)
    assert archive.variables[0].standard_name == "precipitation_amount" and archive.variables[0].lower == 0


def in_chunks(dataset, path):
    """Write a Zarr whose chunks hold three times each."""
    chunks = (3, *dataset["t2m"].shape[1:])
    dataset.to_zarr(path, consolidated=False, encoding={"t2m": {"chunks": chunks}})


def test_zarr_and_remote_files(tmp_path):
    truth = analysis(6)
    in_chunks(truth, tmp_path / "a.zarr")
    truth.to_zarr("memory://archive/a.zarr", consolidated=False)
    saved(truth, tmp_path / "a.nc")
    fsspec.filesystem("memory").put(str(tmp_path / "a.nc"), "memory://archive/a.nc")
    for url in (str(tmp_path / "a.zarr"), str(tmp_path / "*.zarr"), "memory://archive/a.zarr", "memory://archive/*.nc"):
        archive = open_archive([url])
        assert len(archive.frames) == 6
        for i in (0, 4, 1):
            np.testing.assert_array_equal(archive.read(i)[0], truth["t2m"].values[i])


def test_a_chunk_of_many_frames_is_read_once(tmp_path, monkeypatch):
    in_chunks(analysis(6), tmp_path / "a.zarr")
    archive = open_archive([str(tmp_path / "a.zarr")])
    reads = []
    original = xr.DataArray.isel
    monkeypatch.setattr(xr.DataArray, "isel", lambda self, *a, **k: reads.append(a) or original(self, *a, **k))
    for i in range(6):
        archive.read(i)
    assert len(reads) == 2


def test_only_a_bounded_share_of_the_files_stays_in_memory(tmp_path, monkeypatch):
    for part in range(4):
        in_chunks(analysis(12).isel(time=slice(3 * part, 3 * part + 3)), tmp_path / f"{part}.zarr")
    monkeypatch.setattr(decoding, "BLOCK", 3 * 8 * 12 * 8)  # one chunk's float64
    archive = open_archive(["*.zarr"], root=tmp_path)
    for i in range(12):
        archive.read(i)
    assert sum(block.nbytes for block in decoding._BLOCKS.values()) <= 2 * decoding.BLOCK


def test_members_may_have_names(tmp_path):
    members = xr.concat([analysis(2), analysis(2)], "member").assign_coords(member=["a", "b"])
    assert open_archive([saved(members, tmp_path / "e.nc")]).members == ["a", "b"]


def test_static_fields_come_onto_any_grid_inside(tmp_path):
    data = analysis(1).isel(time=0, drop=True).rename(t2m="orog")
    archive = open_archive([saved(data, tmp_path / "s.nc")], static=True)
    fields = static_fields(archive, archive.grid)
    np.testing.assert_allclose(fields["orog"], data["orog"], rtol=1e-6)
    finer = Grid(57.8 - 0.1 * np.arange(10), -9.5 + 0.1 * np.arange(10))
    assert static_fields(archive, finer)["orog"].shape == (10, 10)
    with pytest.raises(UserError, match="not all of"):
        static_fields(archive, Grid(np.arange(10.0, 20.0), np.arange(5.0)))


def test_geopotential_at_the_surface_is_topography_and_aloft_is_not(tmp_path):
    data = analysis(1).isel(time=0, drop=True).rename(t2m="z")
    data["z"] = (
        data["z"]
        .copy(data=np.full((8, 12), 9806.65, np.float32))
        .assign_attrs(units="m**2 s**-2", standard_name="geopotential")
    )
    surface = open_archive([saved(data, tmp_path / "s.nc")], static=True)
    assert (surface.variables[0].standard_name, surface.variables[0].units) == ("surface_altitude", "m")
    np.testing.assert_allclose(surface.read(0), 1000, rtol=1e-6)
    aloft = open_archive([saved(data.assign_coords(isobaricInhPa=500.0), tmp_path / "a.nc")], static=True)
    assert aloft.variables[0].units == "m2 s-2" and aloft.read(0)[0, 0, 0] == pytest.approx(9806.65)


def test_directions_are_refused_where_chosen_and_left_out_otherwise(tmp_path):
    data = analysis(2)
    data["wdir"] = data["t2m"].assign_attrs(units="degree", standard_name="wind_from_direction")
    path = saved(data, tmp_path / "w.nc")
    with pytest.raises(UserError, match=r"wdir is a direction.*use the wind components \(such as u10 and v10\)"):
        open_archive([path], {"wdir": Choice()})
    archive = open_archive([path])
    assert [v.name for v in archive.variables] == ["t2m"]
    assert any("wdir is a direction and was left out" in note for note in archive.notes)


def test_lists_of_points_are_refused_with_the_line_that_remaps_them(tmp_path):
    data = xr.Dataset(
        {"t": (("time", "ncells"), np.zeros((2, 9), np.float32), {"units": "K"})},
        {"time": START + np.arange(2) * HOUR, "clat": ("ncells", np.arange(9.0), {"units": "degrees_north"})},
    )
    with pytest.raises(UserError, match=r"unstructured or reduced grid .dimension ncells.*`cdo remapcon,"):
        open_archive([saved(data, tmp_path / "icon.nc")])


def test_other_calendars_are_kept(tmp_path):
    data = analysis(3)
    times = xr.date_range("2001-02-28", periods=3, freq="D", calendar="noleap", use_cftime=True)
    archive = open_archive([saved(data.assign_coords(time=times), tmp_path / "c.nc")])
    assert archive.calendar == "noleap" and np.diff(archive.init_time).tolist() == [86400, 86400]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: None, "no such file"),
        (lambda p: p.write_bytes(b"GRIB" + bytes(100)), "cannot be read"),
        (lambda p: p.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100)), "cannot be read"),
        (lambda p: p.write_text("latitude,longitude"), "is not NetCDF, GRIB or Zarr"),
        (lambda p: p.mkdir(), "is a folder but not a Zarr group"),
        (lambda p: xr.Dataset({"a": ("time", [1.0])}).to_netcdf(p), "holds no variable with rows and columns"),
        (lambda p: analysis(1).isel(time=0, drop=True).to_netcdf(p), "t2m: has no time coordinate"),
        (lambda p: analysis(1).drop_vars("latitude").to_netcdf(p), "have no coordinates"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, make, message):
    path = tmp_path / "archive"
    make(path)
    with pytest.raises(UserError, match=message) as refusal:
        open_archive([str(path)])
    assert str(path) in str(refusal.value) and str(refusal.value).count("\n") < 2


@pytest.mark.parametrize("kind", ["NETCDF4", "NETCDF3_64BIT", "GRIB"])
def test_a_truncated_file_is_refused_before_anything_is_read(tmp_path, kind):
    path = tmp_path / "archive"
    if kind != "GRIB":
        analysis(50).to_netcdf(path, format=kind)
    else:
        write_grib(path, [{"shortName": "2t", "step": s, "value": 280.0} for s in (0, 1)])
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    with pytest.raises(UserError, match=r"archive: cannot be read.*is the file whole"):
        open_archive([str(path)])


def test_a_missing_variable_is_named_with_those_that_are_there(tmp_path):
    with pytest.raises(UserError, match="no variable wind; there are: t2m, tp"):
        open_archive([saved(forecasts(), tmp_path / "a.nc")], {"wind": Choice()})


def test_variables_on_different_grids_are_refused(tmp_path):
    saved(analysis(2), tmp_path / "1.nc")
    saved(analysis(2, (4, 6)).rename(t2m="sst"), tmp_path / "2.nc")
    with pytest.raises(UserError, match="sst is on a different grid"):
        open_archive(["*.nc"], root=tmp_path)


def test_a_control_run_is_joined_as_member_0(real_data):
    archive = open_archive([str(real_data / "ecmwf_ens/ens_storm.grib")], {"gust": Choice("fg10_3", "m s-1")})
    assert archive.members == list(range(51)) and len(archive.frames) == 3
    control = open_archive([str(real_data / "ecmwf_ens/ens_storm.grib")], {"gust": Choice("fg10_3")}, members=[0])
    np.testing.assert_array_equal(archive.read(1)[0], control.read(1))
    assert archive.variables[0].standard_name != "unknown" and archive.variables[0].cell_methods == "time: maximum"


def test_levels_and_members_of_grib(real_data):
    archive = open_archive([str(real_data / "ecmwf_ens/era5-levels-members.grib")])
    assert [v.name for v in archive.variables] == ["z_500", "z_850", "t_500", "t_850"] and len(archive.members) == 10
