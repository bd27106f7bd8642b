"""The page of a store: its numbers, on every kind of grid, and that a browser shows it."""

import base64
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner
from scipy.ndimage import gaussian_filter

from dsr.cli import main
from dsr.data import match
from dsr.data.coarsening import Coarsening
from dsr.data.grid import Grid, block_mean
from dsr.data.prepare import prepare_from_options
from dsr.data.store import Layout, Store, Variable
from dsr.data.writer import Writer
from dsr.errors import UserError
from dsr.report import store as page
from dsr.report.plane import Plane, coastlines
from dsr.report.store import write

from ..conftest import write_tiny_store
from ..data.archives import forecasts
from ..pages import read_page

pytestmark = pytest.mark.slow

FACTOR, SHAPE = 4, (48, 64)
ATTRIBUTES = {
    "t2m": {"units": "K", "standard_name": "air_temperature"},
    "tp": {"units": "kg m-2", "standard_name": "precipitation_amount", "cell_methods": "time: sum (interval: 1 hour)"},
    "index": {"units": "1"},  # without physical limits
}
POLE = {
    "grid_mapping_name": "rotated_latitude_longitude",
    "grid_north_pole_latitude": 39.25,
    "grid_north_pole_longitude": -162.0,
}


def weather(times: int = 72, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """(time, y, x): patterns of a few low cells that move and change, in every place another at every time."""
    noise = np.random.default_rng(3).normal(size=(times, *shape))
    smooth = gaussian_filter(noise, (1.0, FACTOR, FACTOR), mode="wrap")
    return smooth / smooth.std()


def coarse(fields: np.ndarray) -> np.ndarray:
    """(..., y, x): plain means of blocks."""
    *rest, ny, nx = fields.shape
    return fields.reshape(*rest, ny // FACTOR, FACTOR, nx // FACTOR, FACTOR).mean((-3, -1))


def archive(path: Path, fields: dict[str, np.ndarray], latitude: np.ndarray, longitude: np.ndarray) -> str:
    """Hourly fields as a NetCDF file."""
    hours = np.arange(len(next(iter(fields.values()))))
    variables = {n: (("time", "lat", "lon"), values.astype("f4"), ATTRIBUTES[n]) for n, values in fields.items()}
    coordinates = {
        "time": np.datetime64("2020-01-01T00:00", "ns") + hours * np.timedelta64(1, "h").astype("timedelta64[ns]"),
        "lat": ("lat", latitude, {"units": "degrees_north", "standard_name": "latitude"}),
        "lon": ("lon", longitude, {"units": "degrees_east", "standard_name": "longitude"}),
    }
    xr.Dataset(variables, coordinates).to_netcdf(path)
    return str(path)


def paired(folder: Path, high: dict[str, np.ndarray], low: dict[str, np.ndarray]) -> Path:
    """A store of hourly high and low fields around the equator, low cells of 1 degree."""
    latitude, longitude = -6 + 0.25 * (np.arange(SHAPE[0]) + 0.5), 10 + 0.25 * (np.arange(SHAPE[1]) + 0.5)
    of_high = archive(folder / "high.nc", high, latitude, longitude)
    of_low = archive(folder / "low.nc", low, *(c.reshape(-1, FACTOR).mean(1) for c in (latitude, longitude)))
    prepare_from_options(recipe=None, output=folder / "store", high=[of_high], low=[of_low])
    return folder / "store"


def seen(path: Path) -> tuple[Store, match.Sample, dict[str, match.Match]]:
    store = Store(path)
    sample, lags = match.read(store, lambda rows, _: rows)
    return store, sample, match.compare(store, sample, lags)


def judged(path: Path) -> tuple[match.Match, str]:
    """What is found of the one shared variable, and its verdict."""
    store, _, found = seen(path)
    (m,), (verdict,) = found.values(), page.verdicts(store, found)
    return m, f"{verdict.kind}: {verdict.text}"


def test_low_that_is_coarsened_high_fits(tmp_path):
    fields = {"t2m": 280 + 5 * weather(), "tp": np.maximum(weather(), 0)}
    store, _, found = seen(paired(tmp_path, fields, {name: coarse(values) for name, values in fields.items()}))
    for m in found.values():
        assert (m.spatial_correlation, m.temporal_correlation, m.ratio) == pytest.approx((1, 1, 1), abs=1e-4)
        assert m.bias == pytest.approx(0, abs=1e-3)
        assert m.displacement == pytest.approx((0, 0), abs=0.05)
        assert np.unravel_index(m.shifts.argmax(), m.shifts.shape) == (2, 2)
        assert m.lag_hours == 0
    text = "low matches high: correlation 1.00 over the map, 1.00 in time"
    assert [(v.kind, v.text) for v in page.verdicts(store, found)] == [
        ("fits", f"{text}; displacement 0.0 cells; lag 0 h; bias 0.00 K"),
        ("fits", f"{text}; displacement 0.0 cells; lag 0 h; ratio of totals 1.00"),
    ]


@pytest.mark.parametrize(
    ("shift", "says"), [((0, 4), "1.0 cells east"), ((-4, 0), "1.0 cells south"), ((0, 2), "0.5 cells east")]
)
def test_a_low_field_that_lies_elsewhere(tmp_path, shift, says):
    """`shift` is in high cells, four to a low one."""
    high = 280 + 5 * weather()
    path = paired(tmp_path, {"t2m": high}, {"t2m": coarse(np.roll(high, shift, axis=(1, 2)))})
    m, verdict = judged(path)
    assert m.displacement == pytest.approx((shift[0] / 4, shift[1] / 4), abs=0.1)
    assert verdict.startswith(f"doubt: doubtful: low is displaced {says}: correlation")


@pytest.mark.parametrize(("hours", "says"), [(2, "low is 2 h late"), (-3, "low is 3 h early")])
def test_a_low_field_that_comes_at_another_time(tmp_path, hours, says):
    high = 280 + 5 * weather()
    m, verdict = judged(paired(tmp_path, {"t2m": high}, {"t2m": coarse(np.roll(high, hours, axis=0))}))
    assert m.lag_hours == hours
    assert verdict.startswith(f"doubt: doubtful: {says}")


def test_a_low_field_of_its_own_weather_is_not_called_late(tmp_path):
    """Noise has its best lag somewhere, but by chance."""
    noise = np.random.default_rng(1).normal(size=(72, 12, 16))
    high = 280 + 5 * weather()
    m, verdict = judged(paired(tmp_path, {"t2m": high}, {"t2m": coarse(high) + 2 * noise}))
    assert m.temporal_correlation == pytest.approx(5 / np.sqrt(5**2 + 2**2), abs=0.05)
    assert verdict.startswith("fits")
    _, verdict = judged(paired(_folder(tmp_path), {"t2m": high}, {"t2m": 280 + 5 * noise}))
    assert verdict.startswith("doubt: doubtful: low says little about high: correlation")


def _folder(folder: Path) -> Path:
    (folder / "other").mkdir()
    return folder / "other"


def test_the_ratio_of_totals(tmp_path):
    rain = np.maximum(weather(), 0)
    m, verdict = judged(paired(tmp_path, {"tp": rain}, {"tp": 1.1 * coarse(rain)}))
    assert m.ratio == pytest.approx(1.1, abs=1e-4)
    assert verdict.startswith("fits") and verdict.endswith("ratio of totals 1.10")


def test_an_amount_of_another_interval_is_doubtful(tmp_path):
    rain = np.maximum(weather(), 0)
    _, verdict = judged(paired(tmp_path, {"tp": rain}, {"tp": 3 * coarse(rain)}))
    assert verdict.startswith("doubt: doubtful: low has too much: ") and verdict.endswith("ratio of totals 3.00")


def test_another_unit_is_doubtful(tmp_path):
    """As kelvins against degrees Celsius."""
    high = 280 + 5 * weather()
    _, verdict = judged(paired(tmp_path, {"index": high}, {"index": coarse(high) - 273.15}))
    assert verdict.startswith("doubt: doubtful: the bias exceeds the standard deviation of high: ")
    assert verdict.endswith("bias -273.15 1")


def test_quantiles(tmp_path):
    """The 192 low cells hold 0 to 191 at all times, so that the quantile q of them is 191 q; low is 2 x + 1 of it."""
    high = np.repeat(np.kron(np.arange(192.0).reshape(12, 16), np.ones((FACTOR, FACTOR)))[None], 30, 0)
    m, _ = judged(paired(tmp_path, {"index": high}, {"index": 2 * coarse(high) + 1}))
    np.testing.assert_allclose(m.quantiles[:, match.LEVELS == 0.5].ravel(), [192, 95.5], atol=1e-3)
    np.testing.assert_allclose(m.quantiles[1], 191 * match.LEVELS, atol=1)  # each value stands 30 times
    np.testing.assert_allclose(m.quantiles[0], 2 * m.quantiles[1] + 1, rtol=1e-6)


def test_bias_by_hour(tmp_path):
    """Low is too warm by the hour of the day in tenths of a kelvin."""
    high, hour = 280 + 5 * weather(240), np.arange(240)[:, None, None] % 24
    m, _ = judged(paired(tmp_path, {"t2m": high}, {"t2m": coarse(high) + 0.1 * hour}))
    assert [g.hours for g in m.by_hour] == list(range(24))
    np.testing.assert_allclose([g.bias for g in m.by_hour], 0.1 * np.arange(24), atol=1e-3)
    assert sum(g.samples for g in m.by_hour) == match.MAX_PAIRS
    assert m.by_lead == []


def test_bias_by_lead(tmp_path):
    """Forecasts that grow colder by half a kelvin an hour."""
    high = forecasts(12, (1, 2, 3, 4), (16, 24))[["t2m"]]
    low = high.coarsen(lat=4, lon=4).mean(keep_attrs=True)
    low["t2m"].values[...] -= 0.5 * np.array([1, 2, 3, 4])[:, None, None]
    for name, dataset in (("high", high), ("low", low)):
        dataset.to_netcdf(tmp_path / f"{name}.nc")
    paths = {name: [str(tmp_path / f"{name}.nc")] for name in ("high", "low")}
    prepare_from_options(recipe=None, output=tmp_path / "store", **paths, pairing="same-run")
    m, _ = judged(tmp_path / "store")
    assert [(g.hours, g.samples) for g in m.by_lead] == [(1, 12), (2, 12), (3, 12), (4, 12)]
    np.testing.assert_allclose([g.bias for g in m.by_lead], [-0.5, -1, -1.5, -2], atol=1e-3)


def test_a_sample_is_spread_over_all_and_over_every_hour():
    rows = match.spread(2400, 100)
    assert np.array_equal(rows, match.spread(2400, 100))
    assert np.array_equal(rows // 24, np.arange(100))
    assert len(np.unique(rows % 24)) == 24
    assert np.array_equal(match.spread(7, 100), np.arange(7))


def _places(store: Store) -> tuple:
    return store.grid("high"), store.grid("low"), store.low_index


def test_coarsening_is_the_mean_of_blocks_by_area(tmp_path):
    high = 280 + 5 * weather(12)
    store, _, _ = seen(paired(tmp_path, {"t2m": high}, {"t2m": coarse(high)}))
    expected = block_mean(high, store.grid("high").area(), FACTOR)
    np.testing.assert_allclose(Coarsening(*_places(store))(high[3]), expected[3], rtol=1e-6)


def test_coarsening_leaves_out_cells_that_are_hardly_known(tmp_path):
    high = 280 + 5 * weather(12)
    store, _, _ = seen(paired(tmp_path, {"t2m": high}, {"t2m": coarse(high)}))
    field = high[0].copy()
    field[:4, :1], field[4:8, :2] = np.nan, np.nan  # a quarter and a half of two low cells
    means = Coarsening(*_places(store))(field)
    weights = store.grid("high").area()[:4, 1:4]
    assert means[0, 0] == pytest.approx((field[:4, 1:4] * weights).sum() / weights.sum(), rel=1e-6)
    assert np.isnan(means[1, 0])
    assert np.isfinite(means).sum() == means.size - 1


POLAR = {
    "grid_mapping_name": "polar_stereographic",
    "latitude_of_projection_origin": 90.0,
    "straight_vertical_longitude_from_pole": 0.0,
    "standard_parallel": 60.0,
    "earth_radius": 6371000.0,
}


def steps(count: int, size: float, middle: float = 0.0) -> np.ndarray:
    """Cell centres about a middle."""
    return middle + size * (np.arange(count) - 0.5 * (count - 1))


GRIDS = {  # high: rows, columns, mapping; low is coarsened x4 unless it is given
    "rotated": Grid(steps(40, 0.25), steps(24, 0.25, -5), POLE),
    "polar": Grid(steps(32, 50e3), steps(32, 50e3), POLAR),
    "date line": Grid(steps(24, 0.5, -15), steps(32, 0.5, 180)),
    "tall": Grid(steps(80, 0.5), steps(16, 0.5, 20)),
    "wide": Grid(steps(12, 0.5, 45), steps(120, 0.5, 0)),
    "global": Grid(steps(72, -2.5), steps(144, 2.5, 178.75)),
    "plane": Grid(steps(16, 2e3), steps(32, 2e3), {}),
}


def on(path: Path, high: Grid, times: int = 12, **more: object) -> Store:
    """A store of waves that are the same function of the place on the grid and on the coarsened one."""
    low = high.coarsened(FACTOR)
    layout = Layout(
        high_variables=[Variable("t2m", "K", "air_temperature")],
        low_variables=[Variable("t2m", "K", "air_temperature")],
        high_grid=high,
        low_grid=low,
        time=np.arange(times) * 3600,
        low_init_time=np.arange(times) * 3600,
        low_lead_time=np.zeros(times, np.int64),
        high_index=np.arange(times),
        split=np.repeat([0, 1, 2], times // 3),
        low_index=high.index_on(low),
        factor=FACTOR,
        pairing="valid-time",
        splits={},
        provenance={},
        **more,  # type: ignore[arg-type]
    )
    with Writer(path, layout) as writer:
        for row in range(times):
            for fields, grid in ((writer.high, high), (writer.low, low)):
                if grid.bare:
                    y, x = np.meshgrid(grid.y / 1e4, grid.x / 1e4, indexing="ij")
                    waves = np.sin(3 * x + row) * np.cos(2 * y - row)
                else:
                    y, x = np.deg2rad(grid.latitude), np.deg2rad(grid.longitude)
                    waves = np.sin(20 * np.cos(y) * np.cos(x) + row) + np.sin(20 * np.cos(y) * np.sin(x) - row)
                    waves = waves + np.cos(20 * np.sin(y) + row)
                fields[row] = 280 + 5 * waves[None]
    return Store(path)


@pytest.mark.parametrize("name", GRIDS)
def test_the_page_of_every_kind_of_grid(tmp_path, name):
    store = on(tmp_path / "store", GRIDS[name])
    output = write(store.path)
    assert output == tmp_path / "store.html"
    text = read_page(output)
    assert "t2m: low matches high: correlation" in text
    assert f"high {store.grid('high').describe()}" in text
    assert "bias by" not in text  # in pictures only
    pictures = re.findall(r'src="data:image/png;base64,([^"]*)"', output.read_text())
    assert len(pictures) == 5  # domains, pair, match, splits, registration
    for picture in pictures:
        assert base64.b64decode(picture)[:8] == b"\x89PNG\r\n\x1a\n"


def test_both_topographies(tmp_path):
    """Low is 100 m too high in the west, and no more than that can be told apart."""
    hills = 300 + 200 * weather(1, (40, 24))[0]
    low = coarse(hills) + 100 * (np.arange(6) < 3)
    statics = {"static_variables": [Variable("h", "m", "surface_altitude")], "static": {"h": hills}}
    store = on(tmp_path / "store", GRIDS["rotated"], low_static={"h": low}, **statics)
    text = read_page(write(store.path))
    assert "h on the low and the high grid." in text
    assert "h: where low is too high (red) or too low (blue)." in text
    assert "none on the low grid" not in text


def test_what_a_user_named_is_text_and_never_markup(tmp_path):
    fields = {"t2m": 280 + 5 * weather(12)}
    folder = paired(tmp_path, fields, {"t2m": coarse(fields["t2m"])})
    path = folder.rename(tmp_path / "<b>&store")
    text = write(path).read_text()
    assert "<h1>&lt;b&gt;&amp;store</h1>" in text
    assert "<b>" not in text


def test_missing_values_are_counted_and_drawn(tmp_path):
    high = 280 + 5 * weather(24)
    sea = np.zeros(SHAPE, bool)
    sea[:12] = True  # a quarter of the domain, three rows of low cells
    path = paired(tmp_path, {"t2m": np.where(sea, np.nan, high)}, {"t2m": coarse(high)})
    _, sample, found = seen(path)
    assert sample.missing_high[0].mean() == pytest.approx(0.25)
    assert not sample.missing_low.any()
    assert found["t2m"].bias == pytest.approx(0, abs=1e-3)
    assert found["t2m"].spatial_correlation == pytest.approx(1, abs=1e-4)
    text = read_page(write(path))
    assert " 25 %" in text
    assert "Where values are missing" in text


def test_problems_intervals_and_splits_stand_on_the_page(tmp_path):
    fields = {"tp": np.maximum(weather(), 0)}
    path = paired(tmp_path, fields, {"tp": coarse(fields["tp"])})
    text = read_page(write(path))
    assert "time: sum" in text
    store = Store(path)
    for problem in store.attributes["provenance"]["problems"]:
        assert problem in text
    assert f"train {len(store.samples('train'))} samples" in text
    assert store.fingerprint in text


def test_a_bare_plane_split_by_region_with_members_and_a_topography(tmp_path):
    region = np.full((24, 24), -1, np.int8)
    region[:, :10], region[:, 12:16], region[:, 18:] = 0, 1, 2
    write_tiny_store(tmp_path / "tiny", region)
    text = read_page(write(tmp_path / "tiny"))
    assert "Parts of the high domain; every sample is in every split." in text
    assert "3 members: their mean" in text
    assert "h on the high grid; the store has none on the low grid." in text


def test_nothing_in_common(tmp_path):
    high = 280 + 5 * weather(12)
    text = read_page(write(paired(tmp_path, {"t2m": high}, {"index": coarse(high)})))
    assert "low has index; high has t2m: no variable in common to compare" in text


def test_coasts_lie_where_they_are():
    """Land's End, Cape Agulhas and North Cape, to a tenth of a degree at 1:50 million."""
    latitude, longitude = coastlines("50m")
    for y, x in ((50.07, -5.71), (-34.83, 20.0), (71.1, 25.8)):
        assert np.nanmin(np.hypot(latitude - y, (longitude - x) * np.cos(np.deg2rad(y)))) < 0.1
    for scale in ("50m", "110m"):
        latitude, longitude = coastlines(scale)
        assert np.nanmax(np.abs(np.diff(longitude))) < 10, "no line crosses the map"
        assert np.nanmax(np.abs(longitude)) <= 180 and np.nanmin(latitude) > -90


def test_the_coastlines_name_their_source():
    with np.load(Path(page.__file__).with_name("coastlines.npz")) as file:
        assert "Natural Earth" in str(file["source"]) and "public domain" in str(file["source"])


@pytest.mark.parametrize("name", ["rotated", "polar", "date line"])
def test_a_map_keeps_areas_and_comes_back(name):
    grid = GRIDS[name]
    plane = Plane(grid)
    x, y = plane.place(grid.latitude, grid.longitude)
    latitude, longitude = plane.back(x, y)
    np.testing.assert_allclose(latitude, grid.latitude, atol=1e-6)
    np.testing.assert_allclose((longitude - grid.longitude + 180) % 360 - 180, 0, atol=1e-6)
    corners = plane.corners(grid)
    assert all(f.shape == (grid.shape[0] + 1, grid.shape[1] + 1) for f in corners)
    x, y = corners
    cells = np.abs(
        (x[1:, 1:] - x[:-1, :-1]) * (y[1:, :-1] - y[:-1, 1:]) - (x[1:, :-1] - x[:-1, 1:]) * (y[1:, 1:] - y[:-1, :-1])
    )
    np.testing.assert_allclose(cells / cells.mean(), grid.area(), rtol=5e-3)


def browser() -> str:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    return found or pytest.skip("no chromium is installed")


def test_a_browser_shows_the_page(tmp_path):
    program, output = browser(), write(on(tmp_path / "store", GRIDS["rotated"]).path)
    command = [program, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    size = ["--window-size=1300,900", f"--screenshot={tmp_path / 'page.png'}"]
    subprocess.run([*command, *size, output.as_uri()], check=True, capture_output=True, timeout=300)
    import matplotlib.image

    shown = matplotlib.image.imread(tmp_path / "page.png")[..., :3]
    assert shown.shape[:2] == (900, 1300)
    blue = np.abs(shown - np.array([0, 0x72, 0xB2]) / 255).max(-1) < 0.05
    assert blue[:300].sum() > 1000, "the line below the title"
    assert len(np.unique((shown * 15).astype(int).reshape(-1, 3), axis=0)) > 50, "the maps, with all their colours"


def test_the_command_writes_the_page(tiny_store, tmp_path):
    output = tmp_path / "page.html"
    result = CliRunner().invoke(main, ["data", "info", str(tiny_store), "--html", "-o", str(output)])
    assert result.exit_code == 0, result.output
    assert f"page: {output}" in result.output
    assert Store(tiny_store).fingerprint in result.output
    assert "<h1>tiny.zarr</h1>" in output.read_text()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["-o", "page.html"], "add --html"),
        (["--html", "-o", "store.nc"], "must end in .html"),
        (["--html", "-o", "/proc/none/page.html"], "page.html: cannot be written"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(tiny_store, options, says):
    result = CliRunner().invoke(main, ["data", "info", str(tiny_store), *options])
    assert result.exit_code == 2
    assert says in result.output


def test_no_store(tmp_path):
    with pytest.raises(UserError, match="no store there"):
        write(tmp_path / "none")
    assert not list(tmp_path.iterdir())


def test_reanalysis_against_observations(tmp_path, real_data):
    """Daily NCEP over Iberia fits E-OBS, whose sea is missing, on the same day."""
    recipe = Path(page.__file__).parents[2] / "ds_configs/recipes/ncep_eobs.json"
    prepare_from_options(recipe=recipe, root=real_data, output=tmp_path / "store")
    _, sample, found = seen(tmp_path / "store")
    assert list(found) == ["tas", "pr"]
    assert {name: m.lag_hours for name, m in found.items()} == {"tas": 0, "pr": 0}
    assert found["tas"].temporal_correlation == pytest.approx(0.84, abs=0.03)
    assert found["tas"].displacement == pytest.approx((0, 0), abs=0.25)
    assert sample.missing_high.mean() == pytest.approx(0.40, abs=0.01)
