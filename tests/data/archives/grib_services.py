"""Small GRIB archives as the services write them: their grids' keys (fewer points), packings, file names, intervals."""

import bz2
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .grib import encoded, scanning

DAYS = [20240501 + i for i in range(8)]
START = int(np.datetime64("2024-05-01", "s").astype(int))
HOUR, DAY = 3600, 86400
Fields = dict[tuple[int, int], np.ndarray]  # {(initial time, lead), in seconds: ([member,] y, x)}


@dataclass
class Archive:
    """What was written: a file whose first message lies on the grid, and the true fields by the recipe's variables."""

    file: Path
    fields: dict[str, Fields] = field(default_factory=dict)


@dataclass
class Messages:
    """Writes the messages of one service, each into the file it names, and remembers the truth."""

    folder: Path
    seed: int
    shape: tuple[int, int]
    common: dict[str, Any]

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)
        self.files: dict[Path, bytes] = {}
        self.sample = encoded(**self.common)

    def rain(self) -> np.ndarray:
        """An amount of a step, in mm."""
        return self.random.gamma(0.5, 2.0, self.shape)

    def temperature(self) -> np.ndarray:
        return 285 + self.random.normal(size=self.shape).cumsum(1)

    def add(self, name: str, values: np.ndarray, **keys: Any) -> None:
        path = self.folder / name
        self.files[path] = self.files.get(path, b"") + encoded(self.sample, values, **keys)

    def written(self, **fields: Fields) -> Archive:
        for path, content in self.files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bz2.compress(content) if path.suffix == ".bz2" else content)
        return Archive(next(iter(self.files)), fields)


def runs(hours: tuple[int, ...] = (0,)) -> list[tuple[int, int, int]]:
    """(date, hour, initial time in seconds) of the runs of all days."""
    return [(day, hour, START + i * DAY + hour * HOUR) for i, day in enumerate(DAYS) for hour in hours]


def total(end: int, start: int = 0, unit: int = 1, **keys: int) -> dict[str, Any]:
    """The keys of an accumulation between two steps, in hours (minutes where the unit is 0)."""
    return {
        "productDefinitionTemplateNumber": keys.pop("template", 8),
        **keys,
        "parameterCategory": 1,
        "parameterNumber": 8,
        "typeOfFirstFixedSurface": 1,
        "typeOfStatisticalProcessing": 1,
        "indicatorOfUnitOfTimeRange": unit,
        "forecastTime": start,
        "indicatorOfUnitForTimeRange": unit,
        "lengthOfTimeRange": end - start,
    }


def above_ground(height: int, category: int, number: int) -> dict[str, Any]:
    return {
        "parameterCategory": category,
        "parameterNumber": number,
        "typeOfFirstFixedSurface": 103,
        "scaleFactorOfFirstFixedSurface": 0,
        "scaledValueOfFirstFixedSurface": height,
    }


def regular(shape: tuple[int, int], first: tuple[float, float], step: float, northward: bool) -> dict[str, Any]:
    """A grid of latitudes and longitudes from its first point (latitude, longitude) on, columns running to the east."""
    last = first[0] + (step if northward else -step) * (shape[0] - 1), first[1] + step * (shape[1] - 1)
    return {
        "gridType": "regular_ll",
        "Ni": shape[1],
        "Nj": shape[0],
        "latitudeOfFirstGridPointInDegrees": first[0],
        "longitudeOfFirstGridPointInDegrees": first[1] % 360,
        "latitudeOfLastGridPointInDegrees": last[0],
        "longitudeOfLastGridPointInDegrees": last[1] % 360,
        "iDirectionIncrementInDegrees": step,
        "jDirectionIncrementInDegrees": step,
        **scanning(64 if northward else 0),
    }


def lambert(
    shape: tuple[int, int], first: tuple[float, float], origin: tuple[float, float], step: int
) -> dict[str, Any]:
    return {
        "gridType": "lambert",
        "Nx": shape[1],
        "Ny": shape[0],
        "latitudeOfFirstGridPointInDegrees": first[0],
        "longitudeOfFirstGridPointInDegrees": first[1],
        "LaDInDegrees": origin[0],
        "LoVInDegrees": origin[1],
        "Latin1InDegrees": origin[0],
        "Latin2InDegrees": origin[0],
        "DxInMetres": step,
        "DyInMetres": step,
        "shapeOfTheEarth": 6,
        **scanning(64),
    }


def hrrr(folder: Path) -> Archive:
    """NOAA's HRRR: 3 km, Lambert; from hour 2 on both the last hour's rain and the total; winds along the grid."""
    grid = lambert((16, 24), (21.138123, 237.280472), (38.5, 262.5), 3000) | {"uvRelativeToGrid": 1}
    out = Messages(folder, 1, (16, 24), {"centre": "kwbc", **grid, "bitsPerValue": 24})
    tp, t2m, wind = {}, {}, {}
    for date, hour, init in runs():
        so_far = np.zeros(out.shape)
        for lead in (1, 2, 3):
            name = f"hrrr/hrrr.{date}/conus/hrrr.t{hour:02}z.wrfsfcf{lead:02}.grib2"
            when = {"dataDate": date, "dataTime": 100 * hour}
            t2m[init, lead * HOUR], amount, u = out.temperature(), out.rain(), out.temperature() - 280
            out.add(name, t2m[init, lead * HOUR], **when, forecastTime=lead, **above_ground(2, 0, 0))
            out.add(name, u, **when, forecastTime=lead, **above_ground(10, 2, 2))
            out.add(name, u * 0 + 3, **when, forecastTime=lead, **above_ground(10, 2, 3))
            so_far = so_far + amount
            out.add(name, so_far, **when, **total(lead))
            if lead > 1:
                out.add(name, amount, **when, **total(lead, lead - 1))
            tp[init, lead * HOUR] = amount
            wind[init, lead * HOUR] = np.hypot(u, 3)
    return out.written(t2m=t2m, tp=tp, speed=wind)


def arome(folder: Path) -> Archive:
    """Meteo-France's AROME on its own Lambert grid, 1.3 km: totals since the start of the run, one file a lead."""
    grid = lambert((16, 24), (37.5, 352.0), (46.7, 2.0), 1300) | {"gridType": "lambert_lam", "Nux": 24, "Nuy": 16}
    out = Messages(folder, 2, (16, 24), {"centre": "lfpw", **grid, "bitsPerValue": 24})
    tp, t2m = {}, {}
    for date, hour, init in runs():
        so_far = np.zeros(out.shape)
        for lead in range(4):
            name = f"arome/{date}{hour:02}/AROME_LAMBERT_SP1_{lead:02}H.grib2"
            when = {"dataDate": date, "dataTime": 100 * hour}
            temperature, amount = out.temperature(), out.rain()
            out.add(name, temperature, **when, forecastTime=lead, **above_ground(2, 0, 0))
            if lead:
                so_far = so_far + amount
                out.add(name, so_far, **when, **(total(lead) | {"parameterNumber": 52}))
                tp[init, lead * HOUR], t2m[init, lead * HOUR] = amount, temperature
    return out.written(t2m=t2m, tp=tp)


def cosmo_rea6(folder: Path) -> Archive:
    """DWD's COSMO-REA6: GRIB 1 on a rotated pole, 0.055 degrees, a month a file; rain of the hour before."""
    shape = (16, 24)
    grid = regular(shape, (-3.375, -8.375), 0.055, northward=True) | {"gridType": "rotated_ll"}
    grid |= {"latitudeOfSouthernPoleInDegrees": -39.25, "longitudeOfSouthernPoleInDegrees": 18.0}
    sample = {"sample": "rotated_ll_sfc_grib1", "centre": "edzw", "table2Version": 2}
    out = Messages(folder, 3, shape, {**sample, **grid, "bitsPerValue": 24})
    tp, t2m = {}, {}
    for date, hour, init in runs(tuple(range(24))):
        temperature, amount = out.temperature(), out.rain()
        when = {"dataDate": date, "dataTime": 100 * hour}
        at_2m = {
            "indicatorOfParameter": 11,
            "indicatorOfTypeOfLevel": 105,
            "level": 2,
            "timeRangeIndicator": 0,
            "P1": 0,
        }
        out.add("cosmo_rea6/T_2M.2D.202405.grb", temperature, **when, **at_2m)
        sum_of_hour = {"indicatorOfParameter": 61, "timeRangeIndicator": 4, "P1": 0, "P2": 1}
        out.add("cosmo_rea6/TOT_PREC.2D.202405.grb", amount, **when, **sum_of_hour)
        t2m[init, 0], tp[init, HOUR] = temperature, amount
    return out.written(t2m=t2m, tp=tp)


def stage_iv(folder: Path) -> Archive:
    """NCEP's Stage IV: GRIB 1 (GRIB 2 since 2020), polar stereographic, rain of one hour, missing beyond the radars."""
    shape = (16, 24)
    grid = {
        "Nx": shape[1],
        "Ny": shape[0],
        "latitudeOfFirstGridPointInDegrees": 23.117,
        "longitudeOfFirstGridPointInDegrees": -119.023,
        "orientationOfTheGridInDegrees": -105.0,
        "DxInMetres": 4763,
        "DyInMetres": 4763,
        "uvRelativeToGrid": 1,
        **scanning(64),
    }
    kind = {"sample": "polar_stereographic_sfc_grib1", "centre": "kwbc", "table2Version": 2, "indicatorOfParameter": 61}
    kind |= {"indicatorOfTypeOfLevel": 1, "level": 0, "timeRangeIndicator": 4, "P1": 0, "P2": 1}
    out = Messages(folder, 4, shape, {**kind, **grid, "decimalPrecision": 2, "bitsPerValue": 20})
    tp = {}
    for date, hour, init in runs(tuple(range(24))):
        amount = out.rain()
        amount[0, :5] = np.nan
        valid = init + HOUR
        stamp = np.datetime64(valid, "s").astype("datetime64[h]").item()
        out.add(f"stage4/ST4.{stamp:%Y%m%d%H}.01h", amount, dataDate=date, dataTime=100 * hour)
        tp[init, HOUR] = amount
    return out.written(rain=tp)


def mrms(folder: Path) -> Archive:
    """NOAA's MRMS: rain of the past hour under a number of a local table; -3 where no radar sees, PNG packing."""
    shape = (16, 24)
    grid = regular(shape, (54.995, -129.995), 0.01, northward=False) | {"shapeOfTheEarth": 2}
    kind = {"centre": 161, "discipline": 209, "parameterCategory": 6, "parameterNumber": 37}
    kind |= {"typeOfFirstFixedSurface": 102, "scaledValueOfFirstFixedSurface": 0, "scaleFactorOfFirstFixedSurface": 0}
    packing = {"packingType": "grid_png", "decimalScaleFactor": 1, "bitsPerValue": 16}
    out = Messages(folder, 5, shape, {**kind, **grid, **packing})
    rain = {}
    for date, hour, init in runs(tuple(range(24))):
        amount = np.round(out.rain(), 1)
        amount[:2, :2] = -3
        name = f"mrms/MRMS_MultiSensor_QPE_01H_Pass2_00.00_{date}-{hour:02}0000.grib2"
        out.add(name, amount, dataDate=date, dataTime=100 * hour)
        rain[init, 0] = np.where(amount < 0, np.nan, amount)
    return out.written(rain=rain)


def era5(folder: Path) -> Archive:
    """ERA5 from the CDS: GRIB 1; analyses hourly, rain of each hour in metres, from the runs at 06 and 18 UTC."""
    shape = (12, 14)
    grid = regular(shape, (52.0, 4.0), 0.25, northward=False)
    out = Messages(folder, 6, shape, {**ecmwf_1(1), **grid, "bitsPerValue": 16})
    tp, t2m = {}, {}
    for date, hour, init in runs(tuple(range(24))):
        t2m[init, 0] = out.temperature()
        out.add("era5/t2m.grib", t2m[init, 0], indicatorOfParameter=167, dataDate=date, dataTime=100 * hour)
    for date, hour, init in runs((6, 18)):
        for lead in range(1, 13):
            tp[init, lead * HOUR] = out.rain()
            when = {"dataDate": date, "dataTime": 100 * hour, "timeRangeIndicator": 4, "P1": lead - 1, "P2": lead}
            out.add("era5/tp.grib", 1e-3 * tp[init, lead * HOUR], indicatorOfParameter=228, **when)
    return out.written(t2m=t2m, tp=tp)


def era5_land(folder: Path) -> Archive:
    """ERA5-Land from the CDS: GRIB 1, 0.1 degrees, missing at sea; steps 1 to 24, rain since 00 UTC in metres."""
    shape = (20, 24)
    grid = regular(shape, (51.5, 4.5), 0.1, northward=False)
    out = Messages(folder, 7, shape, {**ecmwf_1(15), **grid, "bitsPerValue": 16})
    tp, t2m = {}, {}
    sea = np.zeros(shape, bool)
    sea[:3, :4] = True
    for date, _, init in runs():
        so_far = np.where(sea, np.nan, 0.0)
        for lead in range(1, 25):
            amount, temperature = out.rain(), np.where(sea, np.nan, out.temperature())
            so_far = so_far + amount
            when = {"dataDate": date, "dataTime": 0}
            out.add("era5_land/2024_05.grib", temperature, indicatorOfParameter=167, **when, P1=lead)
            keys = {"timeRangeIndicator": 4, "P1": 0, "P2": lead}
            out.add("era5_land/2024_05.grib", 1e-3 * so_far, indicatorOfParameter=228, **when, **keys)
            tp[init, lead * HOUR], t2m[init, lead * HOUR] = np.where(sea, np.nan, amount), temperature
    return out.written(t2m=t2m, tp=tp)


def ecmwf_1(kind: int) -> dict[str, Any]:
    """The keys of ECMWF's GRIB 1 with its own section (experiment, class)."""
    return {
        "sample": "regular_ll_sfc_grib1",
        "centre": "ecmf",
        "table2Version": 128,
        "indicatorOfTypeOfLevel": 1,
        "level": 0,
        "setLocalDefinition": 1,
        "localDefinitionNumber": 1,
        "marsClass": "ea" if kind == 1 else "l5",
        "expver": "0001",
    }


def ecmwf_open_data(folder: Path) -> Archive:
    """ECMWF's open data: GRIB 2, CCSDS, all the globe from 180 E on; rain in metres since the start of the run."""
    shape = (91, 180)  # of 2 degrees here, of 0.25 degrees there
    grid = regular(shape, (90.0, 180.0), 2.0, northward=False) | {"shapeOfTheEarth": 6}
    out = Messages(folder, 8, shape, {"centre": "ecmf", "packingType": "grid_ccsds", **grid, "bitsPerValue": 16})
    tp, t2m = {}, {}
    for date, hour, init in runs():
        so_far = np.zeros(shape)
        for lead in (3, 6):
            name = f"ecmwf/{date}/{hour:02}z/ifs/0p25/oper/{date}{hour:02}0000-{lead}h-oper-fc.grib2"
            when = {"dataDate": date, "dataTime": 100 * hour}
            t2m[init, lead * HOUR], tp[init, lead * HOUR] = out.temperature(), out.rain()
            so_far = so_far + tp[init, lead * HOUR]
            out.add(name, t2m[init, lead * HOUR], **when, forecastTime=lead, **above_ground(2, 0, 0))
            in_metres = total(lead) | {"parameterNumber": 193, "localTablesVersion": 1}
            out.add(name, 1e-3 * so_far, **when, **in_metres)
    return out.written(t2m=t2m, tp=tp)


def icon_d2(folder: Path) -> Archive:
    """DWD's ICON-D2: one field a file, bzip2, rows to the north; rain since the start, four times a file."""
    shape = (30, 40)
    grid = regular(shape, (50.0, 8.0), 0.1, northward=True) | {"shapeOfTheEarth": 6}  # of 0.02 degrees there
    out = Messages(folder, 9, shape, {"centre": "edzw", **grid, "bitsPerValue": 24})
    tp, t2m = {}, {}
    for date, hour, init in runs():
        so_far = np.zeros(shape)
        for lead in range(7):
            stem = f"icon_d2/{hour:02}/{{0}}/icon-d2_germany_regular-lat-lon_single-level_{date}{hour:02}_{lead:03}"
            when = {"dataDate": date, "dataTime": 100 * hour}
            temperature = out.temperature()
            out.add(
                f"{stem.format('t_2m')}_2d_t_2m.grib2.bz2",
                temperature,
                **when,
                forecastTime=lead,
                **above_ground(2, 0, 0),
            )
            for minute in range(60 * lead, 60 * lead + 60, 15):
                keys = total(minute, unit=0) | {"parameterNumber": 52}
                out.add(f"{stem.format('tot_prec')}_2d_tot_prec.grib2.bz2", so_far, **when, **keys)
                if minute % 180 == 0 and minute:
                    tp[init, minute * 60], t2m[init, lead * HOUR] = so_far, temperature
                so_far = so_far + out.rain() / 4
    thirds = {(init, lead): field - tp.get((init, lead - 3 * HOUR), 0) for (init, lead), field in tp.items()}
    return out.written(t2m=t2m, tp=thirds)


def gfs(folder: Path) -> Archive:
    """NCEP's GFS: buckets that start anew every six hours, and the total since the start, in one file."""
    shape = (16, 24)
    grid = regular(shape, (52.0, 4.0), 0.25, northward=False) | {"shapeOfTheEarth": 6}
    out = Messages(folder, 10, shape, {"centre": "kwbc", **grid, "bitsPerValue": 24})
    tp, t2m = {}, {}
    for date, hour, init in runs():
        so_far, bucket = np.zeros(shape), np.zeros(shape)
        for lead in range(3, 25, 3):
            name = f"gfs/gfs.{date}/{hour:02}/atmos/gfs.t{hour:02}z.pgrb2.0p25.f{lead:03}"
            when, amount = {"dataDate": date, "dataTime": 100 * hour}, out.rain()
            t2m[init, lead * HOUR], tp[init, lead * HOUR] = out.temperature(), amount
            so_far, bucket = so_far + amount, amount if lead % 6 == 3 else bucket + amount
            out.add(name, t2m[init, lead * HOUR], **when, forecastTime=lead, **above_ground(2, 0, 0))
            out.add(name, bucket, **when, **total(lead, (lead - 1) // 6 * 6))
            days = total(lead // 24, unit=2) if lead % 24 == 0 else total(lead)
            out.add(name, so_far, **when, **days)
    return out.written(t2m=t2m, tp=tp)


def gefs(folder: Path) -> Archive:
    """NCEP's GEFS: a file for each member and lead, buckets that start anew every six hours."""
    shape = (12, 16)
    grid = regular(shape, (53.0, 2.5), 0.5, northward=False) | {"shapeOfTheEarth": 6}
    out = Messages(folder, 11, shape, {"centre": "kwbc", **grid, "bitsPerValue": 24})
    tp: Fields = {}
    t2m: Fields = {}
    for date, hour, init in runs():
        for member in range(3):
            bucket = np.zeros(shape)
            kind = {"typeOfEnsembleForecast": 3 if member else 1, "perturbationNumber": member}
            kind |= {"numberOfForecastsInEnsemble": 30}
            for lead in range(3, 25, 3):
                who = f"gep{member:02}" if member else "gec00"
                name = f"gefs/gefs.{date}/{hour:02}/atmos/pgrb2ap5/{who}.t{hour:02}z.pgrb2a.0p50.f{lead:03}"
                when, amount, temperature = {"dataDate": date, "dataTime": 100 * hour}, out.rain(), out.temperature()
                bucket = amount if lead % 6 == 3 else bucket + amount
                single = {"productDefinitionTemplateNumber": 1, **kind, "forecastTime": lead}
                out.add(name, temperature, **when, **single, **above_ground(2, 0, 0))
                out.add(name, bucket, **when, **total(lead, (lead - 1) // 6 * 6, template=11, **kind))
                for truth, values in ((tp, amount), (t2m, temperature)):
                    held = truth.setdefault((init, lead * HOUR), np.empty((0, *shape)))
                    truth[init, lead * HOUR] = np.concatenate([held, values[None]])
    return out.written(t2m=t2m, tp=tp)
