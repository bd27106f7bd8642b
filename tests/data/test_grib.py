"""GRIB as written: places, times, intervals, members and names are those of the messages themselves."""

import pickle

import numpy as np
import pytest
from pyproj import Proj

from dsr.data.files import File
from dsr.data.openers import grib
from dsr.data.series import Span
from dsr.errors import UserError

from .archives.grib import encoded, latlon, points, scanning, write

HOUR, DAY = 3600, 86400
START = 1577836800  # 2020-01-01
NUMBERS = np.arange(24.0)
BASE = latlon() | {"dataDate": 20200101, "dataTime": 0, "bitsPerValue": 24, "values": 280 + NUMBERS}
EDITION_1 = {"sample": "regular_ll_sfc_grib1"}
TOTAL = {"productDefinitionTemplateNumber": 8, "shortName": "tp", "typeOfStatisticalProcessing": 1}


def opened(path, *messages):
    """The series of a file, which holds the messages if any are given."""
    path = write(path, messages) if messages else path
    return grib.open_file(File(str(path), str(path)))


def placed(series, number=0):
    """(point, 3): latitude, longitude and value of one field of a series."""
    field = series.read(list(series.keys)[number])
    return np.stack([np.ravel(a) for a in (series.grid.latitude, (series.grid.longitude + 180) % 360 - 180, field)], -1)


def in_order(listed):
    return listed[np.argsort(listed[:, 2])]


# Places


GRIDS = {
    "regular_ll": latlon(),
    "rotated_ll": latlon(north=2.0, west=-1.0)
    | {"gridType": "rotated_ll", "latitudeOfSouthernPoleInDegrees": -39.25, "longitudeOfSouthernPoleInDegrees": 18.0},
    "lambert": {
        "gridType": "lambert",
        "Nx": 6,
        "Ny": 4,
        "latitudeOfFirstGridPointInDegrees": 21.138123,
        "longitudeOfFirstGridPointInDegrees": 237.280472,
        "LaDInDegrees": 38.5,
        "LoVInDegrees": 262.5,
        "Latin1InDegrees": 38.5,
        "Latin2InDegrees": 38.5,
        "DxInMetres": 3000,
        "DyInMetres": 3000,
    },
    "polar_stereographic": {
        "gridType": "polar_stereographic",
        "Nx": 6,
        "Ny": 4,
        "latitudeOfFirstGridPointInDegrees": 23.117,
        "longitudeOfFirstGridPointInDegrees": 240.977,
        "LaDInDegrees": 60.0,
        "orientationOfTheGridInDegrees": 255.0,
        "DxInMetres": 4763,
        "DyInMetres": 4763,
    },
    "mercator": {
        "gridType": "mercator",
        "Ni": 6,
        "Nj": 4,
        "latitudeOfFirstGridPointInDegrees": 18.073,
        "longitudeOfFirstGridPointInDegrees": 198.475,
        "latitudeOfLastGridPointInDegrees": 18.14,
        "longitudeOfLastGridPointInDegrees": 198.59,
        "LaDInDegrees": 20.0,
        "DiInMetres": 2500,
        "DjInMetres": 2500,
    },
    "lambert_azimuthal_equal_area": {
        "gridType": "lambert_azimuthal_equal_area",
        "Nx": 6,
        "Ny": 4,
        "latitudeOfFirstGridPointInDegrees": 44.52,
        "longitudeOfFirstGridPointInDegrees": 342.8,
        "standardParallelInDegrees": 54.9,
        "centralLongitudeInDegrees": 357.5,
        "xDirectionGridLengthInMetres": 2000,
        "yDirectionGridLengthInMetres": 2000,
    },
}
PLAIN = {"regular_ll": 0, "rotated_ll": 0} | dict.fromkeys(list(GRIDS)[2:], 64)


@pytest.mark.parametrize("mode", range(0, 256, 16))
@pytest.mark.parametrize("kind", GRIDS)
def test_each_value_lies_where_eccodes_puts_it(tmp_path, kind, mode):
    keys = GRIDS[kind] | scanning(mode) | {"shapeOfTheEarth": 6}
    if kind in ("regular_ll", "rotated_ll"):
        for bit, axis in ((64, "latitude"), (128, "longitude")):
            ends = [f"{axis}Of{point}GridPointInDegrees" for point in ("First", "Last")]
            if mode & bit:
                keys[ends[0]], keys[ends[1]] = keys[ends[1]], keys[ends[0]]
    path = tmp_path / "a.grib"
    (series,) = opened(path, {**keys, "values": NUMBERS})
    (truth,) = points(path)
    ours, truth = in_order(placed(series)), in_order(truth)
    np.testing.assert_allclose(ours[:, 2], NUMBERS, atol=1e-3)
    cell = 0.25 if "_ll" in kind else 0.02
    np.testing.assert_allclose(ours[:, :2], truth[:, :2], atol=0.001 * cell)
    assert series.grid.shape == (4, 6) and (np.diff(series.grid.x) > 0).all()


@pytest.mark.parametrize(
    ("kind", "mode"), [("regular_ll", 16), ("rotated_ll", 48), ("lambert", 0), ("mercator", 192), ("lambert", 112)]
)
def test_scanning_that_the_manual_reads_otherwise_is_said(tmp_path, kind, mode):
    (series,) = opened(tmp_path / "a.grib", {**GRIDS[kind], **scanning(mode), "values": NUMBERS})
    assert any("eccodes and the GRIB manual" in note for note in series.notes)
    (plain,) = opened(tmp_path / "b.grib", {**GRIDS[kind], **scanning(PLAIN[kind]), "values": NUMBERS})
    assert not plain.notes


def test_alternating_rows_of_a_projected_grid_need_no_note(tmp_path):
    """As NOAA's National Blend of Models is written: the second row runs from east to west."""
    (series,) = opened(tmp_path / "a.grib", {**GRIDS["lambert"], **scanning(80), "values": NUMBERS})
    field = series.read(next(iter(series.keys)))
    assert field[0, :2].tolist() == [0, 1] and field[1, :2].tolist() == [11, 10] and not series.notes


def test_a_rotated_pole_by_hand(tmp_path):
    """EURO-CORDEX: 0 N 0 E of the grid is 50.75 N 18 E, and 39.25 degrees further north is the North Pole."""
    (series,) = opened(tmp_path / "a.grib", {**GRIDS["rotated_ll"], "values": NUMBERS})
    grid = series.grid
    np.testing.assert_allclose(grid.y, [2, 1.75, 1.5, 1.25], atol=1e-6)
    np.testing.assert_allclose(grid.x, [-1, -0.75, -0.5, -0.25, 0, 0.25], atol=1e-6)
    assert grid.latitude[2, 4] == pytest.approx(50.75 + 1.5) and grid.longitude[2, 4] == pytest.approx(18)


def test_the_first_point_of_hrrr_by_hand(tmp_path):
    """NOAA: the lower left point of the 3 km grid, 1799 x 1059, lies at -2697.52 km, -1587.31 km of its projection."""
    keys = GRIDS["lambert"] | scanning(64) | {"shapeOfTheEarth": 6, "values": NUMBERS}
    (series,) = opened(tmp_path / "a.grib", keys)
    assert series.grid.x[0] == pytest.approx(-2697520, abs=30) and series.grid.y[0] == pytest.approx(-1587306, abs=30)
    assert series.grid.mapping["earth_radius"] == 6371229 and series.grid.spacing == pytest.approx((3000, 3000))


def test_a_transverse_mercator_grid_by_hand(tmp_path):
    """Ordnance Survey's worked example: 651409.903 E 313177.270 N is 52.65757 N 1.71792 E (on Airy's ellipsoid)."""
    keys = {"Ni": 6, "Nj": 4, "latitudeOfReferencePoint": 49_000_000, "longitudeOfReferencePoint": -2_000_000}
    keys |= {"m": 0.9996012717, "XR": 40_000_000, "YR": -10_000_000, "Di": 200_000, "Dj": 200_000}
    keys |= {"X1": 65_140_990, "Y1": 31_317_727, "shapeOfTheEarth": 9} | scanning(64)
    (series,) = opened(tmp_path / "a.grib", {"gridType": "transverse_mercator", **keys, "values": NUMBERS})
    assert series.grid.latitude[0, 0] == pytest.approx(52 + 39 / 60 + 27.2531 / 3600, abs=1e-5)
    assert series.grid.longitude[0, 0] == pytest.approx(1 + 43 / 60 + 4.5177 / 3600, abs=1e-5)
    np.testing.assert_array_equal(series.read(next(iter(series.keys))), NUMBERS.reshape(4, 6))


@pytest.mark.parametrize("mode", [0, 64, 96, 144, 208])
def test_an_ellipsoid_under_a_polar_grid(tmp_path, mode):
    """eccodes places such points only on a sphere, so PROJ does, from the first point on."""
    keys = GRIDS["polar_stereographic"] | scanning(mode) | {"shapeOfTheEarth": 5}
    (series,) = opened(tmp_path / "a.grib", {**keys, "values": NUMBERS})
    place = in_order(placed(series))[:, :2]
    np.testing.assert_allclose(place[0], [23.117, -119.023], atol=1e-6)
    x, y = Proj("+proj=stere +lat_0=90 +lat_ts=60 +lon_0=255 +ellps=WGS84")(place[:, 1], place[:, 0])
    step = 4763 * (-1 if mode & 128 else 1), 4763 * (1 if mode & 64 else -1)
    second = (y[1] - y[0], step[1]) if mode & 32 else (x[1] - x[0], step[0])
    assert second[0] == pytest.approx(second[1], abs=1e-3)


def test_gaussian_latitudes_are_the_roots_of_legendre(tmp_path):
    (series,) = opened(tmp_path / "a.grib", {"sample": "regular_gg_pl_grib2", "values": np.arange(64 * 128.0)})
    roots = np.rad2deg(np.arcsin(np.polynomial.legendre.leggauss(64)[0]))
    np.testing.assert_allclose(series.grid.y, roots[::-1], atol=1e-6)
    assert series.grid.periodic and series.read(next(iter(series.keys)))[1, 0] == pytest.approx(128, abs=0.1)


@pytest.mark.parametrize(("shape", "earth"), [(0, 6367470), (6, 6371229), (8, 6371200), (5, 6378137), (4, 6378137)])
def test_the_shape_of_the_earth(tmp_path, shape, earth):
    keys = GRIDS["lambert"] | scanning(64)
    (series,) = opened(tmp_path / "a.grib", {**keys, "shapeOfTheEarth": shape, "values": NUMBERS})
    mapping = series.grid.mapping
    assert mapping.get("earth_radius", mapping.get("semi_major_axis")) == earth
    assert ("semi_minor_axis" in mapping) == (shape in (4, 5))


@pytest.mark.parametrize(
    ("sample", "remap"),
    [
        ("reduced_gg_pl_32_grib2", "cdo -f grb2 setgridtype,regular IN OUT"),
        ("sh_ml_grib2", "cdo -f grb2 sp2gpl IN OUT"),
        ("gg_sfc_grib2", "setgridtype,regular"),
    ],
)
def test_grids_without_rows_and_columns_are_refused(tmp_path, sample, remap):
    with pytest.raises(UserError, match=r"a.grib: t, .*grid without rows and columns") as refusal:
        opened(tmp_path / "a.grib", {"sample": sample})
    assert remap in str(refusal.value)


def test_a_reduced_grid_that_people_have(real_data):
    with pytest.raises(UserError, match=r"u10.*reduced_gg.*setgridtype,regular"):
        opened(real_data / "formats/reduced_gg.grib")


@pytest.mark.parametrize("name", ["lambert.grib", "ST4.2013052210.01h", "hpa_and_pa.grib"])
def test_real_files_lie_where_eccodes_puts_them(real_data, name):
    import eccodes

    path = real_data / "formats" / name
    series = opened(path)[0]
    with path.open("rb") as file:
        message = eccodes.codes_grib_new_from_file(file)
    rows, columns = series.grid.shape
    for key, ours in (("latitudes", series.grid.latitude), ("longitudes", series.grid.longitude)):
        truth = eccodes.codes_get_array(message, key).reshape(rows, columns)
        np.testing.assert_allclose((ours - truth + 180) % 360 - 180, 0, atol=1e-6)
    eccodes.codes_set(message, "missingValue", np.nan)
    values = eccodes.codes_get_values(message).reshape(rows, columns).astype(np.float32)
    np.testing.assert_array_equal(series.read(next(iter(series.keys))), values)


# Messages and files


def test_a_header_of_a_telegram_stands_before_the_message(tmp_path, real_data):
    (real,) = opened(real_data / "formats/40bytes.grib")
    assert real.name == "icaht" and list(real.keys) == [Span(1324447200, 15 * HOUR, 15 * HOUR)]
    assert grib.sniff("", (real_data / "formats/40bytes.grib").read_bytes()[:512])
    (series,) = opened(tmp_path / "a.grib", {**BASE, "before": b"\1\r\r\n"}, {**BASE, "step": 3, "before": b"\0" * 30})
    assert [span.end for span in series.keys] == [0, 3 * HOUR]
    (series,) = opened(tmp_path / "b.grib", {**BASE, "before": b"FORECAST.GRIB2 of today"})
    assert len(series.keys) == 1


def test_a_file_without_a_message_is_refused(tmp_path):
    (tmp_path / "a.grib").write_bytes(b"GRIB" + bytes(100))
    with pytest.raises(UserError, match=r"a.grib: cannot be read \(it contains no message"):
        opened(tmp_path / "a.grib")


def test_an_interval_that_ends_before_it_starts_is_not_believed(tmp_path):
    keys = {**EDITION_1, "timeRangeIndicator": 4, "P1": 6, "P2": 3, "indicatorOfParameter": 61}
    (series,) = opened(tmp_path / "a.grib", {**keys, **BASE})
    assert [span.start for span in series.keys] == [None] and "ends before it starts" in series.notes[-1]


def test_missing_values_are_nan(tmp_path, real_data):
    values = np.where(NUMBERS == 7, np.nan, NUMBERS)
    (series,) = opened(tmp_path / "a.grib", {**BASE, "values": values})
    field = series.read(next(iter(series.keys)))
    assert np.isnan(field).sum() == 1 and np.isnan(field[1, 1]) and field.dtype == np.float32
    (stage_iv,) = opened(real_data / "formats/ST4.2013052210.01h")
    assert np.isnan(stage_iv.read(next(iter(stage_iv.keys)))).sum() == 324909


@pytest.mark.parametrize("packing", ["grid_simple", "grid_ccsds", "grid_jpeg", "grid_complex", "grid_ieee"])
def test_every_packing_is_read_as_precisely_as_it_says(tmp_path, packing):
    values = np.random.default_rng(0).normal(280, 10, (40, 60))
    keys = BASE | latlon((40, 60)) | {"values": values}
    del keys["bitsPerValue"]
    (series,) = opened(tmp_path / "a.grib", {**keys, "bitsPerValue": 12, "packingType": packing})
    error = np.abs(series.read(next(iter(series.keys))) - values).max()
    assert error <= series.precision + 3e-5  # of float32
    assert series.precision == 0 if packing == "grid_ieee" else error > 0.9 * series.precision


def test_a_constant_field_is_exact(tmp_path):
    (series,) = opened(tmp_path / "a.grib", {**BASE, "values": np.full(24, 5.0)})
    assert series.precision == 0 and (series.read(next(iter(series.keys))) == 5).all()


@pytest.mark.parametrize("sample", ["regular_ll_sfc_grib1", "regular_ll_sfc_grib2"])
@pytest.mark.parametrize("cut", [30, 150, -5])
def test_a_file_that_is_cut_short_is_refused(tmp_path, sample, cut):
    one = encoded(**{**BASE, "sample": sample})
    (tmp_path / "a.grib").write_bytes(one + one[:cut])
    with pytest.raises(UserError, match=rf"a.grib: cannot be read \(message 2, at byte {len(one)}.*is the file whole"):
        opened(tmp_path / "a.grib")


def test_a_message_that_goes_bad_later_is_named(tmp_path):
    (series,) = opened(tmp_path / "a.grib", BASE)
    (tmp_path / "a.grib").write_bytes(bytes(200))
    with pytest.raises(OSError, match=r"a.grib: the message at byte 0 cannot be read"):
        series.read(next(iter(series.keys)))


def test_several_fields_in_one_message(tmp_path):
    """As NCEP writes the components of wind: sections 4 to 7 stand twice, the second time with the first bitmap."""
    values = np.where(NUMBERS == 5, np.nan, NUMBERS)
    u = encoded(**{**BASE, "shortName": "10u", "values": values})
    v = encoded(**{**BASE, "shortName": "10v", "values": -values})
    parts = dict(next(grib.fields(v))[1])
    bitmap = bytearray(v[parts[6]])[:6]
    bitmap[:4], bitmap[5] = (6).to_bytes(4, "big"), 254
    both = u[:-4] + v[parts[4]] + v[parts[5]] + bytes(bitmap) + v[parts[7]] + b"7777"
    path = tmp_path / "a.grib"
    path.write_bytes(both[:8] + len(both).to_bytes(8, "big") + both[16:] + u)
    series = {(one.name, i): one for i, one in enumerate(opened(path))}
    assert list(series) == [("u10", 0), ("u10", 1), ("v10", 2)] or list(series) == [("u10", 0), ("v10", 1), ("u10", 2)]
    fields = {name: one.read(next(iter(one.keys))).ravel() for (name, _), one in series.items()}
    np.testing.assert_allclose(fields["v10"], -values, atol=1e-4)
    np.testing.assert_allclose(fields["u10"], values, atol=1e-4)


def test_messages_beyond_8_megabytes_in_edition_1(tmp_path):
    """As ERA5-Land comes: the size does not fit into its three bytes."""
    shape = (1500, 2000)
    values = np.arange(shape[0] * shape[1], dtype=float)
    keys = {**EDITION_1, **latlon(shape, step=0.01), "bitsPerValue": 24, "values": values}
    path = tmp_path / "a.grib"
    (series,) = opened(path, {**keys, "dataDate": 20200101}, {**keys, "dataDate": 20200102})
    assert path.stat().st_size > 2 * 2**23 and len(series.keys) == 2
    np.testing.assert_allclose(series.read(list(series.keys)[1]).ravel(), values, atol=1)


def test_series_go_to_other_processes(tmp_path):
    (series,) = opened(tmp_path / "a.grib", BASE)
    copy = pickle.loads(pickle.dumps(series))
    np.testing.assert_array_equal(copy.read(next(iter(copy.keys))), series.read(next(iter(series.keys))))


@pytest.mark.slow
def test_era5_as_another_library_reads_it(real_data):
    import xarray as xr

    path = real_data / "era5_uk/era5-2mt-2019-03-uk.grib"
    (series,) = opened(path)
    assert len(series.keys) == 744 and series.name == "t2m" and series.attributes["units"] == "K"
    assert series.statistic == "point" and series.members is None and series.labels == {"expver": "0001"}
    with xr.open_dataset(path, engine="cfgrib", backend_kwargs={"indexpath": ""}) as truth:
        np.testing.assert_array_equal(series.grid.y, truth.latitude)
        np.testing.assert_array_equal(series.grid.x, truth.longitude)
        for i in (0, 100, 743):
            span = list(series.keys)[i]
            assert span == Span(int(truth.time.values[i].astype("datetime64[s]").astype(int)), 0, 0)
            np.testing.assert_array_equal(series.read(span), truth["t2m"].values[i])


# Times and intervals


@pytest.mark.parametrize(
    ("keys", "seconds"),
    [
        ({"indicatorOfUnitOfTimeRange": 0, "forecastTime": 15}, 900),
        ({"indicatorOfUnitOfTimeRange": 1, "forecastTime": 7}, 7 * HOUR),
        ({"indicatorOfUnitOfTimeRange": 2, "forecastTime": 2}, 2 * DAY),
        ({"indicatorOfUnitOfTimeRange": 10, "forecastTime": 5}, 15 * HOUR),
        ({"indicatorOfUnitOfTimeRange": 11, "forecastTime": 5}, 30 * HOUR),
        ({"indicatorOfUnitOfTimeRange": 12, "forecastTime": 3}, 36 * HOUR),
        ({"indicatorOfUnitOfTimeRange": 13, "forecastTime": 90}, 90),
        (EDITION_1 | {"indicatorOfUnitOfTimeRange": 1, "P1": 9}, 9 * HOUR),
        (EDITION_1 | {"indicatorOfUnitOfTimeRange": 0, "P1": 45}, 45 * 60),
        (EDITION_1 | {"indicatorOfUnitOfTimeRange": 1, "timeRangeIndicator": 10, "P1": 1, "P2": 2}, 258 * HOUR),
    ],
)
def test_units_of_steps(tmp_path, keys, seconds):
    (series,) = opened(tmp_path / "a.grib", {**keys, **BASE})
    assert list(series.keys) == [Span(START, seconds, seconds)]


@pytest.mark.parametrize("sample", ["regular_ll_sfc_grib1", "regular_ll_sfc_grib2"])
def test_months_are_refused(tmp_path, sample):
    with pytest.raises(UserError, match=r"a.grib: .*months or years"):
        opened(tmp_path / "a.grib", {"sample": sample, "indicatorOfUnitOfTimeRange": 3, **BASE})


def test_minutes_and_seconds_of_the_reference_time(tmp_path):
    keys = BASE | {"dataTime": 1345, "second": 30}
    (series,) = opened(tmp_path / "a.grib", keys)
    assert [span.init for span in series.keys] == [START + 13 * HOUR + 45 * 60 + 30]
    (early,) = opened(tmp_path / "b.grib", BASE | EDITION_1 | {"dataDate": 19000228, "dataTime": 1800})
    assert [span.init for span in early.keys] == [int(np.datetime64("1900-02-28T18", "s").astype(int))]


@pytest.mark.parametrize(
    ("code", "statistic"), [(1, "sum"), (0, "mean"), (2, "maximum"), (3, "minimum"), (5, ""), (6, "")]
)
def test_the_interval_of_a_statistic(tmp_path, code, statistic):
    keys = {"productDefinitionTemplateNumber": 8, "parameterCategory": 0, "parameterNumber": 0}
    keys |= {"typeOfStatisticalProcessing": code, "indicatorOfUnitOfTimeRange": 0, "forecastTime": 45}
    keys |= {"indicatorOfUnitForTimeRange": 0, "lengthOfTimeRange": 15}
    (series,) = opened(tmp_path / "a.grib", {**BASE, **keys})
    assert series.statistic == statistic and list(series.keys) == [Span(START, 45 * 60, HOUR)]


ECMWF = EDITION_1 | {"centre": "ecmf", "table2Version": 128}


@pytest.mark.parametrize(
    ("keys", "statistic", "start"),
    [
        ({"indicatorOfParameter": 228, "timeRangeIndicator": 0, "P1": 6}, "sum", None),
        ({"indicatorOfParameter": 228, "timeRangeIndicator": 2, "P1": 5, "P2": 6}, "sum", 5 * HOUR),
        ({"indicatorOfParameter": 228, "timeRangeIndicator": 4, "P1": 0, "P2": 6}, "sum", 0),
        ({"indicatorOfParameter": 169, "timeRangeIndicator": 0, "P1": 6}, "sum", None),
        ({"indicatorOfParameter": 49, "timeRangeIndicator": 0, "P1": 6}, "maximum", None),
        ({"indicatorOfParameter": 202, "timeRangeIndicator": 2, "P1": 3, "P2": 6}, "minimum", 3 * HOUR),
        ({"indicatorOfParameter": 167, "timeRangeIndicator": 2, "P1": 3, "P2": 6}, "", 3 * HOUR),
        ({"indicatorOfParameter": 167, "timeRangeIndicator": 0, "P1": 6}, "point", 6 * HOUR),
        ({"table2Version": 228, "indicatorOfParameter": 28, "timeRangeIndicator": 0, "P1": 6}, "maximum", 3 * HOUR),
    ],
)
def test_edition_1_does_not_always_say_what_an_interval_is(tmp_path, keys, statistic, start):
    (series,) = opened(tmp_path / "a.grib", {**ECMWF, **keys, **BASE})
    assert series.statistic == statistic and list(series.keys) == [Span(START, start, 6 * HOUR)]


def test_buckets_and_totals_in_one_file(tmp_path):
    """As GFS: both over hours 0 to 6, then over 6 to 9 and 0 to 9."""
    steps = ("0-6", "0-6", "6-9", "0-9")
    messages = [{**BASE, **TOTAL, "stepRange": s, "values": i + NUMBERS} for i, s in enumerate(steps)]
    series, twice = opened(tmp_path / "a.grib", *messages)
    assert [(s.start // HOUR, s.end // HOUR) for s in series.keys] == [(0, 6), (6, 9), (0, 9)]
    assert series.statistic == "sum" and list(twice.keys) == [Span(START, 0, 6 * HOUR)]
    assert twice.read(next(iter(twice.keys)))[0, 0] == pytest.approx(1, abs=1e-4)


def test_only_frames_that_hold_a_message_exist(tmp_path):
    """ERA5's precipitation: runs at 06 and 18 UTC, 12 hours each, cut to some days."""
    times = [(day, run, step) for day in (1, 2) for run in (6, 18) for step in range(1, 13)][6:-6]
    messages = [
        {**BASE, **TOTAL, "dataDate": 20200100 + day, "dataTime": 100 * run, "stepRange": f"{step - 1}-{step}"}
        for day, run, step in times
    ]
    (series,) = opened(tmp_path / "a.grib", *messages)
    assert len(series.keys) == 36 and all(span.end - span.start == HOUR for span in series.keys)


def test_a_constant_field_needs_no_date(real_data):
    topography = next(one for one in opened(real_data / "meteonet_NW/NW_masks.grib") if one.name == "h")
    assert topography.timeless and topography.read(next(iter(topography.keys))).max() == pytest.approx(628.68, abs=0.01)


# Names, levels, members


def test_one_name_on_two_kinds_of_level(real_data):
    series = opened(real_data / "formats/hpa_and_pa.grib")
    assert [one.name for one in series] == ["t"] * 3
    assert [one.level for one in series] == [("isobaricInhPa", 1), ("isobaricInPa", 10), ("isobaricInPa", 1)]


def test_levels_that_are_no_whole_numbers(tmp_path):
    keys = {"typeOfFirstFixedSurface": 103, "scaleFactorOfFirstFixedSurface": 1, "scaledValueOfFirstFixedSurface": 15}
    (series,) = opened(tmp_path / "a.grib", {**BASE, **keys})
    assert series.level == ("heightAboveGround", 1.5)


def test_layers_with_one_top_are_told_apart(tmp_path):
    layer = {"typeOfFirstFixedSurface": 106, "scaleFactorOfFirstFixedSurface": 0, "scaledValueOfFirstFixedSurface": 0}
    layer |= {"typeOfSecondFixedSurface": 106, "scaleFactorOfSecondFixedSurface": 1, "parameterNumber": 0}
    messages = [{**BASE, **layer, "scaledValueOfSecondFixedSurface": bottom} for bottom in (1, 4)]
    series = opened(tmp_path / "a.grib", *messages)
    assert [one.labels["bottomLevel"] for one in series] == [0.1, 0.4]


PERTURBED = {"productDefinitionTemplateNumber": 1, "parameterCategory": 0, "parameterNumber": 0}


def test_the_control_is_member_0_beside_the_others(tmp_path):
    messages = [
        {**BASE, **PERTURBED, "typeOfEnsembleForecast": kind, "perturbationNumber": n, "step": step, "values": [n] * 24}
        for step in (3, 6)
        for kind, n in ((1, 0), (3, 1), (3, 2))
    ]
    (series,) = opened(tmp_path / "a.grib", *reversed(messages))
    assert series.members == (0, 1, 2) and len(series.keys) == 2
    field = series.read(Span(START, 6 * HOUR, 6 * HOUR))
    assert field.shape == (3, 4, 6)
    np.testing.assert_allclose(field[:, 0, 0], [0, 1, 2], atol=1e-4)


def test_frames_with_other_members_are_series_of_their_own(tmp_path):
    messages = [{**BASE, **PERTURBED, "perturbationNumber": n, "step": step} for step, n in ((3, 0), (3, 1), (6, 1))]
    series = opened(tmp_path / "a.grib", *messages)
    assert [(one.members, [s.end for s in one.keys]) for one in series] == [((0, 1), [3 * HOUR]), ((1,), [6 * HOUR])]


def test_real_ensembles(real_data):
    storm = {one.name: one for one in opened(real_data / "ecmwf_ens/ens_storm.grib")}
    assert storm["fg10_3"].members == tuple(range(51)) and storm["fg10_3"].statistic == "maximum"
    assert [(s.start, s.end) for s in storm["fg10_3"].keys] == [(h * HOUR - 3 * HOUR, h * HOUR) for h in (72, 78, 84)]
    era5 = opened(real_data / "ecmwf_ens/era5-levels-members.grib")
    assert {(one.name, one.level[1]) for one in era5} == {("z", 500), ("z", 850), ("t", 500), ("t", 850)}
    assert all(one.members == tuple(range(10)) and len(one.keys) == 4 for one in era5)


def test_experiments_means_and_percentiles_are_told_apart(tmp_path):
    ecmwf = {**ECMWF, "indicatorOfParameter": 167, "setLocalDefinition": 1, "localDefinitionNumber": 1}
    series = opened(tmp_path / "e.grib", *({**ecmwf, **BASE, "expver": e} for e in ("0001", "0005")))
    assert [one.labels["expver"] for one in series] == ["0001", "0005"]
    derived = {**BASE, "productDefinitionTemplateNumber": 2, "parameterCategory": 0, "parameterNumber": 0}
    series = opened(tmp_path / "d.grib", *({**derived, "derivedForecast": d} for d in (0, 4)))
    assert [one.labels["derivedForecast"] for one in series] == [0, 4]
    percentile = {**BASE, "productDefinitionTemplateNumber": 6, "parameterCategory": 0, "parameterNumber": 0}
    series = opened(tmp_path / "p.grib", *({**percentile, "percentileValue": p} for p in (10, 90)))
    assert len(series) == 2 and series[1].labels["percentileValue"] == "90"


@pytest.mark.slow
def test_parameters_without_a_name(tmp_path, real_data):
    local = {"discipline": 209, "parameterCategory": 6, "parameterNumber": 1}
    total = {"productDefinitionTemplateNumber": 8, "centre": "lfpw", "parameterCategory": 1}
    snow, rain = ({**BASE, **total, "parameterNumber": number} for number in (29, 8))
    first, second, third = opened(tmp_path / "a.grib", {**BASE, **local}, snow, rain)
    assert first.name == "unknown_209_6_1" and first.attributes["units"] == "" and "without a name" in first.notes[0]
    assert second.name == "unknown_0_1_29" and second.attributes["units"] == "m"
    assert second.attributes["long_name"] == "Total snowfall" and second.notes == first.notes
    assert third.name == "tp" and third.attributes["units"] == "kg m-2" and not third.notes
    (mrms,) = opened(real_data / "mrms/PrecipRate_00.00_20190610-001000.grib2")
    assert mrms.name == "unknown_209_6_1" and mrms.grid.shape == (3500, 7000)
    assert next(iter(mrms.keys)).init == int(np.datetime64("2019-06-10T00:10", "s").astype(int))


def test_winds_along_the_grid_are_said(tmp_path):
    wind = {"parameterCategory": 2, "typeOfFirstFixedSurface": 103, "scaledValueOfFirstFixedSurface": 10}
    wind |= {"scaleFactorOfFirstFixedSurface": 0, "values": NUMBERS}
    messages = [
        {**GRIDS[kind], **scanning(PLAIN[kind]), "uvRelativeToGrid": relative, **wind, "parameterNumber": number}
        for kind, relative, number in (("lambert", 1, 2), ("lambert", 1, 3), ("lambert", 0, 2), ("regular_ll", 1, 2))
    ]
    told = [(one.attributes["standard_name"], len(one.notes)) for one in opened(tmp_path / "a.grib", *messages)]
    assert told == [("x_wind", 1), ("y_wind", 1), ("eastward_wind", 0), ("eastward_wind", 0)]


def test_a_projection_of_the_recipe_is_refused(tmp_path):
    path = write(tmp_path / "a.grib", [BASE])
    with pytest.raises(UserError, match="defines its projection"):
        grib.open_file(File("a", str(path)), crs="EPSG:3035")
