"""WRF's own output: wrfout files of a run in two nests, with truth known on the inner one."""

from pathlib import Path
from typing import Any

import numpy as np

from .truth import SPHERE, Field, Truth, degrees, files, hours_after, rain, temperature

# MAP_PROJ and what wrfout says beside it, and PROJ's own words for it.
LAMBERT: dict[str, Any] = {"MAP_PROJ": 1, "MOAD_CEN_LAT": 45.0, "STAND_LON": 10.0, "TRUELAT1": 30.0, "TRUELAT2": 60.0}
POLAR: dict[str, Any] = {"MAP_PROJ": 2, "MOAD_CEN_LAT": 72.0, "STAND_LON": 20.0, "TRUELAT1": 60.0, "TRUELAT2": 60.0}
SOUTH: dict[str, Any] = {"MAP_PROJ": 2, "MOAD_CEN_LAT": -75.0, "STAND_LON": 170.0, "TRUELAT1": -71.0, "TRUELAT2": -71.0}
MERCATOR: dict[str, Any] = {"MAP_PROJ": 3, "MOAD_CEN_LAT": 12.0, "STAND_LON": -60.0, "TRUELAT1": 12.0, "TRUELAT2": 0.0}
ROTATED: dict[str, Any] = {
    **{"MAP_PROJ": 6, "MOAD_CEN_LAT": 48.0, "STAND_LON": -9.0, "TRUELAT1": 0.0, "TRUELAT2": 0.0},
    **{"POLE_LAT": 42.0, "POLE_LON": 180.0},
}
PROJ = {
    1: "+proj=lcc +lat_0={MOAD_CEN_LAT} +lon_0={STAND_LON} +lat_1={TRUELAT1} +lat_2={TRUELAT2} +R={R}",
    2: "+proj=stere +lat_0={pole} +lat_ts={TRUELAT1} +lon_0={STAND_LON} +R={R}",
    3: "+proj=merc +lat_ts={TRUELAT1} +lon_0={STAND_LON} +R={R}",
}
BUCKET = 0.05  # mm: what a rain bucket holds before it is emptied and counted; in earnest 100
PARENT_SHAPE, PARENT_STEP = (13, 15), 30_000.0  # points, m; the point in the middle lies at the projection's centre


def position(projection: dict[str, Any], y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(latitude, longitude), both (y, x), of metres from the projection's origin, as WRF's pre-processor has them."""
    if projection["MAP_PROJ"] == 6:
        per_degree = np.deg2rad(SPHERE)
        return unrotated(projection, *np.meshgrid(y / per_degree, x / per_degree + 180, indexing="ij"))
    pole = np.copysign(90.0, projection["TRUELAT1"])
    return degrees(PROJ[projection["MAP_PROJ"]].format(**projection, R=SPHERE, pole=pole), y, x)


def unrotated(projection: dict[str, Any], latitude: np.ndarray, longitude: np.ndarray) -> tuple[Any, Any]:
    """Rotated degrees -> degrees, by the formulas of WPS (`rotate_coords` in module_map_utils.F)."""
    pole, turn = np.deg2rad(projection["POLE_LAT"]), projection["POLE_LON"]
    latitude, longitude = np.deg2rad(latitude), np.deg2rad(longitude - turn)
    sine = np.cos(pole) * np.cos(latitude) * np.cos(longitude) + np.sin(pole) * np.sin(latitude)
    along = np.sin(pole) * np.cos(latitude) * np.cos(longitude) - np.cos(pole) * np.sin(latitude)
    across = np.cos(latitude) * np.sin(longitude)
    east = np.rad2deg(np.arctan2(across, along)) - projection["STAND_LON"]
    return np.rad2deg(np.arcsin(sine)), (east + 180) % 360 - 180


def centre(projection: dict[str, Any]) -> tuple[float, float]:
    """(y, x) in metres of the outer domain's centre."""
    if projection["MAP_PROJ"] in (1, 6):
        return 0.0, 0.0
    from pyproj import Proj

    pole = np.copysign(90.0, projection["TRUELAT1"])
    there = Proj(PROJ[projection["MAP_PROJ"]].format(**projection, R=SPHERE, pole=pole))
    x, y = there(projection["STAND_LON"], projection["MOAD_CEN_LAT"])
    return y, x


def write(
    folder: Path,
    projection: dict[str, Any] = LAMBERT,
    ratio: int = 3,
    start: tuple[int, int] = (5, 6),
    runs: int = 12,
    leads: tuple[int, ...] = (0, 1, 2, 3),
) -> Truth:
    """`folder`/wrfout_d01_* and wrfout_d02_*, a file a run; the truth of the inner domain, whose south-west cell lies
    in the corner of the outer one's cell `start` (row, column, counted from 1), where an hour's rain is had at leads
    from 1 on."""
    from pyproj import CRS  # noqa: F401  before netCDF4: their copies of PROJ's libraries meet

    files(folder)
    rows, columns = PARENT_SHAPE
    north, east = centre(projection)
    y = north + (np.arange(rows) - (rows - 1) / 2) * PARENT_STEP
    x = east + (np.arange(columns) - (columns - 1) / 2) * PARENT_STEP
    inner = [
        edge[0] + (first - 1.5 + (np.arange(4 * ratio) + 0.5) / ratio) * PARENT_STEP
        for edge, first in zip((y, x), start, strict=True)
    ]
    nests = {
        1: (y, x, {"PARENT_ID": 0, "PARENT_GRID_RATIO": 1, "I_PARENT_START": 1, "J_PARENT_START": 1}),
        2: (
            *inner,
            {"PARENT_ID": 1, "PARENT_GRID_RATIO": ratio, "I_PARENT_START": start[1], "J_PARENT_START": start[0]},
        ),
    }
    days = np.datetime64("2020-01-01", "s") + np.arange(runs) * np.timedelta64(1, "D")
    for grid, (rows_m, columns_m, nest) in nests.items():
        step = PARENT_STEP / nest["PARENT_GRID_RATIO"]
        for run, day in enumerate(days):
            name = f"wrfout_d{grid:02d}_{np.datetime_as_string(day, 's').replace('T', '_')}"
            _write_one(
                folder / name, projection, rows_m, columns_m, day, 24 * run, leads, nest | {"GRID_ID": grid}, step
            )
    latitude, longitude = position(projection, *inner)
    steps = np.array([24 * run + lead for run in range(runs) for lead in leads[1:]])
    hour = np.concatenate([rain(latitude, longitude, 24 * run + np.array(leads[1:])) for run in range(runs)])
    wind = np.broadcast_to(np.array([8.0, -3.0])[:, None, None, None], (2, len(steps), *latitude.shape))
    return Truth(
        latitude,
        longitude,
        hours_after("2020-01-01", steps),
        {
            "T2": Field(temperature(latitude, longitude, steps), "K"),
            "U10": Field(wind[0], "m s-1"),
            "V10": Field(wind[1], "m s-1"),
            "RAIN": Field(hour, "kg m-2", "sum", (-1, 0)),
        },
    )


def _write_one(
    path: Path,
    projection: dict[str, Any],
    y: np.ndarray,
    x: np.ndarray,
    start: np.datetime64,
    first: int,
    leads: tuple[int, ...],
    nest: dict[str, int],
    step: float,
) -> None:
    import netCDF4

    latitude, longitude = position(projection, y, x)
    beyond = position(projection, y, np.append(x, x[-1] + step))[0]  # one column more, for the staggered one
    steps = first + np.array(leads)
    began = np.datetime_as_string(start, "s").replace("T", "_")
    with netCDF4.Dataset(path, "w", format="NETCDF4") as file:
        for name, size in {
            **{"Time": None, "DateStrLen": 19, "bottom_top": 2, "soil_layers_stag": 2},
            **{
                "south_north": len(y),
                "west_east": len(x),
                "south_north_stag": len(y) + 1,
                "west_east_stag": len(x) + 1,
            },
        }.items():
            file.createDimension(name, size)
        file.setncatts({
            **{"TITLE": " OUTPUT FROM WRF V4.3.3 MODEL", "START_DATE": began, "SIMULATION_START_DATE": began},
            **{"WEST-EAST_GRID_DIMENSION": np.int32(len(x) + 1), "SOUTH-NORTH_GRID_DIMENSION": np.int32(len(y) + 1)},
            **{"BOTTOM-TOP_GRID_DIMENSION": np.int32(3), "GRIDTYPE": "C", "DX": np.float32(step)},
            **{"DY": np.float32(step)},
            **{"POLE_LAT": 90.0, "POLE_LON": 0.0},
            **{key: np.float32(value) if key != "MAP_PROJ" else np.int32(value) for key, value in projection.items()},
            **{"CEN_LAT": np.float32(_middle(latitude)), "CEN_LON": np.float32(_middle(longitude))},
            **{key: np.int32(value) for key, value in nest.items()},
            **{"BUCKET_MM": np.float32(BUCKET), "BUCKET_J": np.float32(-1.0)},
        })  # fmt: skip
        times = file.createVariable("Times", "S1", ("Time", "DateStrLen"))
        stamps = np.datetime_as_string(start + np.array(leads) * np.timedelta64(1, "h"), "s")
        times[:] = np.array([list(stamp.replace("T", "_")) for stamp in stamps], "S1")

        def put(
            name: str, values: np.ndarray, units: str, text: str, dims: str = "south_north west_east", kind: str = "f4"
        ):
            variable = file.createVariable(name, kind, ("Time", *dims.split()))
            order = "XYZ"[: len(dims.split())] + " "
            stagger = "X" if "west_east_stag" in dims else ""
            variable.setncatts({"FieldType": np.int32(106 if kind == "i4" else 104), "MemoryOrder": order})
            variable.setncatts({"description": text, "units": units, "stagger": stagger})
            if not name.startswith("X"):
                variable.coordinates = "XLONG XLAT XTIME"
            variable[:] = values

        minutes = f"minutes since {began.replace('_', ' ')}"
        xtime = file.createVariable("XTIME", "f4", ("Time",))
        xtime.setncatts({"FieldType": np.int32(104), "MemoryOrder": "0  ", "description": minutes, "units": minutes})
        xtime[:] = 60 * np.array(leads)
        every = np.ones((len(leads), 1, 1))
        put("XLAT", latitude * every, "degree_north", "LATITUDE, SOUTH IS NEGATIVE")
        put("XLONG", longitude * every, "degree_east", "LONGITUDE, WEST IS NEGATIVE")
        put("T2", temperature(latitude, longitude, steps), "K", "TEMP at 2 M")
        sine, cosine = _turn(projection, y, x)
        put("SINALPHA", sine * every, "", "Local sine of map rotation")
        put("COSALPHA", cosine * every, "", "Local cosine of map rotation")
        put("U10", (8 * cosine - 3 * sine) * every, "m s-1", "U at 10 M")
        put("V10", (-3 * cosine - 8 * sine) * every, "m s-1", "V at 10 M")
        put("LANDMASK", every + 0 * latitude, "", "LAND MASK (1 FOR LAND, 0 FOR WATER)")
        put("HGT", (100 + 3 * np.arange(len(x)) + 5 * np.arange(len(y))[:, None]) * every, "m", "Terrain Height")
        staggered = np.arange(len(x) + 1) + 10 * np.arange(2)[:, None, None] + np.zeros((len(leads), 1, len(y), 1))
        put("U", staggered, "m s-1", "x-wind component", "bottom_top south_north west_east_stag")
        put("XLAT_U", beyond * every, "degree_north", "LATITUDE, SOUTH IS NEGATIVE", "south_north west_east_stag")
        total = np.cumsum(rain(latitude, longitude, steps) * (np.array(leads) > 0)[:, None, None], axis=0)
        full = np.floor(0.75 * total / BUCKET)
        put("RAINC", 0.25 * total, "mm", "ACCUMULATED TOTAL CUMULUS PRECIPITATION")
        put("RAINNC", 0.75 * total - BUCKET * full, "mm", "ACCUMULATED TOTAL GRID SCALE PRECIPITATION")
        put("I_RAINC", 0 * full, "", "BUCKET FOR CUMULUS PRECIPITATION", kind="i4")
        put("I_RAINNC", full, "", "BUCKET FOR GRID SCALE PRECIPITATION", kind="i4")


def _middle(values: np.ndarray) -> float:
    rows, columns = values.shape
    return float(values[(rows - 1) // 2 : rows // 2 + 1, (columns - 1) // 2 : columns // 2 + 1].mean())


def _turn(projection: dict[str, Any], y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sine and cosine of the angle from the grid's north to true north, clockwise, by small steps along its columns."""
    up, here = (position(projection, y + d, x) for d in (50.0, -50.0))
    mean = np.deg2rad((up[0] + here[0]) / 2)
    east = (up[1] - here[1] + 180) % 360 - 180
    angle = np.arctan2(east * np.cos(mean), up[0] - here[0])  # of the grid's north from true north, to the east
    return -np.sin(angle), np.cos(angle)
