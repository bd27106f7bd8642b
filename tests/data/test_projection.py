"""Where projections put their points: Snyder's printed examples, formulas written out, and areas on the sphere.

Snyder: Map Projections, a Working Manual (1987), doi:10.3133/pp1395, whose appendix A works an example of each.
"""

import numpy as np
import pytest
from pyproj import CRS, Geod

from dsr.data import projection
from dsr.data.grid import Grid
from dsr.errors import UserError

R = 6371229.0
CLARKE = {"semi_major_axis": 6378206.4, "semi_minor_axis": 6356583.8}  # of 1866
INTERNATIONAL = {"semi_major_axis": 6378388.0, "inverse_flattening": 297.0}
SPHERE = {"earth_radius": R}


def mapping(name, shape, origin, central="projection_origin", **more):
    """CF attributes with an origin (latitude, longitude)."""
    names = ("latitude_of_projection_origin", f"longitude_of_{central}")
    return {"grid_mapping_name": name, **dict(zip(names, origin, strict=True)), **shape, **more}


def place(given, y, x):
    """Latitude and longitude of one point, as a grid has them."""
    grid = Grid(np.array([y, y + 1000]), np.array([x, x + 1000]), given)
    return grid.latitude[0, 0], grid.longitude[0, 0]


PRINTED = {  # attributes, latitude and longitude, x and y as Snyder's appendix A prints them (page)
    "Lambert conformal, two parallels (296)": (
        mapping("lambert_conformal_conic", CLARKE, (23, -96), "central_meridian", standard_parallel=[33.0, 45.0]),
        (35, -75),
        (1894410.9, 1564649.5),
    ),
    "Lambert azimuthal equal area (334)": (
        mapping("lambert_azimuthal_equal_area", CLARKE, (40, -100)),
        (30, -110),
        (-965932.1, -1056814.9),
    ),
    "transverse Mercator (269)": (
        mapping("transverse_mercator", CLARKE, (0, -75), "central_meridian", scale_factor_at_central_meridian=0.9996),
        (40.5, -73.5),
        (127106.5, 4484124.4),
    ),
    "Mercator (267)": (
        mapping("mercator", CLARKE, (0, -180), standard_parallel=0.0),
        (35, -75),
        (11688673.7, 4139145.6),
    ),
    "polar stereographic, true at 71 S (317)": (
        {
            "grid_mapping_name": "polar_stereographic",
            "straight_vertical_longitude_from_pole": -100.0,
            "latitude_of_projection_origin": -90.0,
            "standard_parallel": -71.0,
            **INTERNATIONAL,
        },
        (-75, 150),
        (-1540033.6, -560526.4),
    ),
}


@pytest.mark.parametrize("which", PRINTED)
def test_printed_examples(which):
    given, there, (x, y) = PRINTED[which]
    np.testing.assert_allclose(place(given, y, x), there, atol=2e-6)  # the print has decimetres
    np.testing.assert_allclose(projection.coordinates(given, *map(np.float64, there)), (y, x), atol=0.1)


# On the sphere, where the formulas are short


def lambert(parallels, origin, central):
    """Snyder's 15-1 to 15-4."""
    first, second, phi0 = np.radians([*parallels, origin])
    half = np.log(np.tan(np.pi / 4 + second / 2) / np.tan(np.pi / 4 + first / 2))
    n = np.sin(first) if first == second else np.log(np.cos(first) / np.cos(second)) / half
    f = np.cos(first) * np.tan(np.pi / 4 + first / 2) ** n / n

    def forward(phi, lam):
        rho, rho0 = (R * f / np.tan(np.pi / 4 + p / 2) ** n for p in (phi, phi0))
        theta = n * (lam - np.radians(central))
        return rho * np.sin(theta), rho0 - rho * np.cos(theta)

    return forward


def azimuthal(kind, origin, central):
    """Snyder's 22-4, 22-5, with k' of the stereographic (21-4), equal-area (24-2) or equidistant (25-2) projection."""
    phi1, lam0 = np.radians([origin, central])

    def forward(phi, lam):
        cosine = np.sin(phi1) * np.sin(phi) + np.cos(phi1) * np.cos(phi) * np.cos(lam - lam0)
        distance = np.arccos(cosine)
        k = {
            "stereographic": 2 / (1 + cosine),
            "lambert_azimuthal_equal_area": np.sqrt(2 / (1 + cosine)),
            "azimuthal_equidistant": distance / np.sin(distance),
        }[kind]
        x = R * k * np.cos(phi) * np.sin(lam - lam0)
        return x, R * k * (np.cos(phi1) * np.sin(phi) - np.sin(phi1) * np.cos(phi) * np.cos(lam - lam0))

    return forward


def polar(scale, central):
    """Snyder's 21-5, 21-6: `scale` at the north pole."""

    def forward(phi, lam):
        rho, theta = 2 * R * scale * np.tan(np.pi / 4 - phi / 2), lam - np.radians(central)
        return rho * np.sin(theta), -rho * np.cos(theta)

    return forward


def mercator(true, central):
    """Snyder's 7-1, 7-2, of a cylinder that is true at the latitude `true`."""

    def forward(phi, lam):
        radius = R * np.cos(np.radians(true))
        return radius * (lam - np.radians(central)), radius * np.log(np.tan(np.pi / 4 + phi / 2))

    return forward


def transverse(scale, origin, central):
    """Snyder's 8-1, 8-3."""

    def forward(phi, lam):
        apart = lam - np.radians(central)
        x = scale * R * np.arctanh(np.cos(phi) * np.sin(apart))
        return x, scale * R * (np.arctan2(np.tan(phi), np.cos(apart)) - np.radians(origin))

    return forward


POLAR = {"grid_mapping_name": "polar_stereographic", "latitude_of_projection_origin": 90.0, **SPHERE}
FORMULAS = {
    "Lambert, one parallel": (
        mapping("lambert_conformal_conic", SPHERE, (46.7, 2), "central_meridian", standard_parallel=46.7),
        lambert((46.7, 46.7), 46.7, 2),
    ),
    "Lambert, one parallel and an origin elsewhere": (
        mapping("lambert_conformal_conic", SPHERE, (40, 2), "central_meridian", standard_parallel=[38.5]),
        lambert((38.5, 38.5), 40, 2),
    ),
    "Lambert, two parallels": (
        mapping("lambert_conformal_conic", SPHERE, (40, 263), "central_meridian", standard_parallel=[30.0, 60.0]),
        lambert((30, 60), 40, -97),
    ),
    "polar stereographic, true at 60 N": (
        POLAR | {"straight_vertical_longitude_from_pole": 255.0, "standard_parallel": 60.0},
        polar((1 + np.sin(np.radians(60))) / 2, -105),
    ),
    "polar stereographic, scaled at the pole": (
        POLAR | {"longitude_of_projection_origin": -105.0, "scale_factor_at_projection_origin": 0.94},
        polar(0.94, -105),
    ),
    "stereographic": (
        mapping("stereographic", SPHERE, (52, 5), scale_factor_at_projection_origin=1.0),
        azimuthal("stereographic", 52, 5),
    ),
    "equal area": (
        mapping("lambert_azimuthal_equal_area", SPHERE, (54.9, -2.5)),
        azimuthal("lambert_azimuthal_equal_area", 54.9, -2.5),
    ),
    "equidistant": (
        mapping("azimuthal_equidistant", SPHERE, (53, 24)),
        azimuthal("azimuthal_equidistant", 53, 24),
    ),
    "Mercator": (mapping("mercator", SPHERE, (0, 100), standard_parallel=20.0), mercator(20, 100)),
    "transverse Mercator": (
        mapping("transverse_mercator", SPHERE, (49, -2), "central_meridian", scale_factor_at_central_meridian=0.9996),
        transverse(0.9996, 49, -2),
    ),
}
POINTS = np.array([[50.0, 3.0], [43.25, 10.5], [61.0, -8.0]])


@pytest.mark.parametrize("which", FORMULAS)
def test_formulas_on_the_sphere(which):
    given, forward = FORMULAS[which]
    for latitude, longitude in POINTS:
        x, y = forward(*np.radians([latitude, longitude]))
        found = place(given, y, x)
        np.testing.assert_allclose(found, (latitude, longitude), atol=1e-8)  # a millimetre: no datum is shifted
        np.testing.assert_allclose(projection.coordinates(given, *found), (y, x), atol=1e-3)


@pytest.mark.parametrize("grid_longitude_of_pole", [0.0, 30.0])
def test_a_rotated_pole_is_turned_back(grid_longitude_of_pole):
    """By two rotations of the sphere: the grid's north pole goes to 39.25 N 162 W."""
    given = {
        "grid_mapping_name": "rotated_latitude_longitude",
        "grid_north_pole_latitude": 39.25,
        "grid_north_pole_longitude": -162.0,
        "north_pole_grid_longitude": grid_longitude_of_pole,
    }
    grid = Grid(np.linspace(-20, 20, 5), np.linspace(-30, 30, 7), given)
    lam, phi = np.radians(np.meshgrid(grid.x - grid_longitude_of_pole, grid.y))
    x, y, z = np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)
    tilt = np.radians(90 - 39.25)  # about the axis through the grid's 90 E
    x, z = x * np.cos(tilt) - z * np.sin(tilt), x * np.sin(tilt) + z * np.cos(tilt)
    longitude = np.degrees(np.arctan2(y, x)) + 18  # the grid's meridian 0 lies opposite its pole
    np.testing.assert_allclose(grid.latitude, np.degrees(np.arcsin(z)), atol=1e-9)
    np.testing.assert_allclose(grid.longitude, (longitude + 180) % 360 - 180, atol=1e-9)


def test_the_centre_of_the_european_cordex_domain():
    given = {"grid_north_pole_latitude": 39.25, "grid_north_pole_longitude": -162.0}
    given["grid_mapping_name"] = "rotated_latitude_longitude"
    grid = Grid(np.array([0.0, 1.0]), np.array([0.0, 1.0]), given)
    np.testing.assert_allclose((grid.latitude[0, 0], grid.longitude[0, 0]), (50.75, 18), atol=1e-9)


# Areas: of polygons on the sphere, against the grid's


def polygon(latitude, longitude):
    """(y, x) solid angle of the cells between corners, each split in two triangles (van Oosterom, Strackee 1983)."""
    phi, lam = np.radians(latitude), np.radians(longitude)
    corners = np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)], -1)
    a, b, c, d = corners[:-1, :-1], corners[:-1, 1:], corners[1:, 1:], corners[1:, :-1]

    def triangle(p, q, r):
        below = 1 + (p * q).sum(-1) + (q * r).sum(-1) + (r * p).sum(-1)
        return 2 * np.arctan2(np.abs((p * np.cross(q, r)).sum(-1)), below)

    return triangle(a, b, c) + triangle(a, c, d)


AREAS = {
    "rotated pole": (
        {
            "grid_mapping_name": "rotated_latitude_longitude",
            "grid_north_pole_latitude": 39.25,
            "grid_north_pole_longitude": -162.0,
        },
        0.25,
        (-22, -28),
    ),
    "Lambert": (FORMULAS["Lambert, two parallels"][0], 25000.0, (-1e6, -2e6)),
    "over the pole": (FORMULAS["polar stereographic, true at 60 N"][0], 25000.0, (-1.0e6, -1.25e6)),
    "transverse Mercator": (FORMULAS["transverse Mercator"][0], 25000.0, (-4e5, -1e6)),
    "equidistant": (FORMULAS["equidistant"][0], 25000.0, (-2e6, -2e6)),
    "Mercator": (FORMULAS["Mercator"][0], 25000.0, (2e6, 0)),
}


@pytest.mark.parametrize("which", AREAS)
def test_areas_are_those_of_polygons_on_the_sphere(which):
    given, step, (y, x) = AREAS[which]
    rows, columns = 80, 100
    grid = Grid(y + step * np.arange(rows), x + step * np.arange(columns), given)
    corners = Grid(y + step * (np.arange(rows + 1) - 0.5), x + step * (np.arange(columns + 1) - 0.5), given)
    expected = polygon(corners.latitude, corners.longitude)
    np.testing.assert_allclose(grid.area(), expected / expected.mean(), rtol=2e-4)
    assert np.ptp(grid.area()) > 0.005


def test_areas_on_the_ellipsoid():
    grid = Grid(1e6 + 1e5 * np.arange(6), 1e5 * np.arange(6), PRINTED["Lambert azimuthal equal area (334)"][0])
    np.testing.assert_allclose(grid.area(), 1, atol=1e-6)
    given = PRINTED["Lambert conformal, two parallels (296)"][0]
    grid, corners = (Grid(1e6 + 1e5 * steps, 1e5 * steps, given) for steps in (np.arange(6), np.arange(7) - 0.5))
    geod = Geod(a=CLARKE["semi_major_axis"], b=CLARKE["semi_minor_axis"])

    def cell(i, j):
        path = [(i, j), (i, j + 1), (i + 1, j + 1), (i + 1, j)]
        longitude, latitude = zip(*((corners.longitude[p], corners.latitude[p]) for p in path), strict=True)
        return geod.polygon_area_perimeter(longitude, latitude)[0]

    expected = np.array([[cell(i, j) for j in range(6)] for i in range(6)])
    np.testing.assert_allclose(grid.area(), expected / expected.mean(), rtol=5e-4)


# Datums, units and what files say


@pytest.mark.parametrize("extra", ["", " +towgs84=0,0,0", " +nadgrids=@null"])
def test_a_models_sphere_is_never_shifted_to_wgs_84(extra):
    """Latitudes on WRF's sphere are used as they are; as geocentric ones they would lie 20 km off."""
    text = "+proj=lcc +lat_1=30 +lat_2=60 +lat_0=40 +lon_0=-97 +R=6370000" + extra
    x, y = (value * 6370000 / R for value in lambert((30, 60), 40, -97)(*np.radians([48.0, -90.0])))
    for given in (projection.mapping_of(text), {**projection.mapping_of(text), "horizontal_datum_name": "WGS84"}):
        np.testing.assert_allclose(place(given, y, x), (48, -90), atol=1e-8)
        np.testing.assert_allclose(place({**given, "crs_wkt": ""}, y, x), (48, -90), atol=1e-8)


def test_national_datums_and_meridians_come_to_greenwich_and_wgs_84():
    """The origins of Lambert II étendu (NTF, 52 and 0 grads from Paris) and of Swiss coordinates (Bern)."""
    a, b, phi, lam = 6378249.2, 6356515.0, np.radians(46.8), np.radians(2.5969213 * 0.9)
    n = a**2 / np.hypot(a * np.cos(phi), b * np.sin(phi))
    x, y, z = n * np.cos(phi) * np.cos(lam), n * np.cos(phi) * np.sin(lam), n * (b / a) ** 2 * np.sin(phi)
    x, y, z = x - 168, y - 60, z + 320  # the translation from NTF to WGS 84
    squared = 1 - (1 - 1 / 298.257223563) ** 2
    for _ in range(10):
        n = 6378137 / np.sqrt(1 - squared * np.sin(phi) ** 2)
        phi = np.arctan2(z + squared * n * np.sin(phi), np.hypot(x, y))
    found = place(projection.mapping_of("EPSG:27572"), 2200000, 600000)
    np.testing.assert_allclose(found, np.degrees([phi, np.arctan2(y, x)]), atol=1e-8)
    found = place(projection.mapping_of("EPSG:2056"), 1200000, 2600000)
    np.testing.assert_allclose(found, (46.951083, 7.438632), atol=2e-6)  # of swisstopo


def test_units_of_a_crs_and_of_its_false_easting():
    near = place(projection.mapping_of("+proj=stere +lat_0=90 +lat_ts=60 +lon_0=10 +R=6371229"), -1e6, 2e6)
    far = place(projection.mapping_of("+proj=stere +lat_0=90 +lat_ts=60 +lon_0=10 +R=6371229 +units=km"), -1e6, 2e6)
    np.testing.assert_allclose(near, far)
    shifted = {**FORMULAS["equal area"][0], "false_easting": 4321.0, "false_northing": 3210.0}  # of a file in km
    found = place(projection.in_metres(shifted, 1000.0), 3210e3, 4321e3)
    np.testing.assert_allclose(found, (54.9, -2.5), atol=1e-9)


def test_attributes_take_precedence_over_a_text_that_says_otherwise():
    given = FORMULAS["equal area"][0]
    text = CRS.from_cf(mapping("lambert_azimuthal_equal_area", SPHERE, (10, 20))).to_wkt()
    np.testing.assert_allclose(place({**given, "crs_wkt": text}, 0, 0), (54.9, -2.5), atol=1e-9)
    np.testing.assert_allclose(place({"grid_mapping_name": "unknown", "crs_wkt": text}, 0, 0), (10, 20), atol=1e-9)


def test_latitudes_and_longitudes_need_no_projection():
    paris = {"grid_mapping_name": "latitude_longitude", "longitude_of_prime_meridian": 2.5, "earth_radius": R}
    grid = Grid(np.arange(3.0), np.arange(4.0), paris)
    assert grid.mapping is None
    np.testing.assert_allclose(grid.longitude[0], [2.5, 3.5, 4.5, 5.5])


BAD = {
    "lacks latitude_of_projection_origin": {
        "grid_mapping_name": "lambert_conformal_conic",
        "standard_parallel": 30.0,
        "longitude_of_central_meridian": 0.0,
    },
    "lacks straight_vertical_longitude_from_pole": POLAR,
    "PROJ cannot use": {"grid_mapping_name": "crooked"},
}


@pytest.mark.parametrize("message", BAD)
def test_a_projection_that_says_too_little_is_refused(message):
    with pytest.raises(UserError, match=message):
        _ = Grid(np.arange(2.0), np.arange(2.0), BAD[message]).latitude


def test_points_off_the_earth_are_refused():
    given = mapping("lambert_azimuthal_equal_area", SPHERE, (50, 10))
    with pytest.raises(UserError, match="not on the earth"):
        _ = Grid(np.array([0.0, 1.5e7]), np.array([0.0, 1.0]), given).latitude


def test_a_crs_that_a_recipe_misspells_is_refused():
    with pytest.raises(UserError, match="crs: 'EPGS:3413' is not a CRS"):
        projection.mapping_of("EPGS:3413")
