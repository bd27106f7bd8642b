"""CF standard names: of variables whose file lacks them, and of variables whose units are changed."""

STANDARD_NAMES = {
    # short names of GRIB
    "t2m": "air_temperature",
    "2t": "air_temperature",
    "d2m": "dew_point_temperature",
    "msl": "air_pressure_at_mean_sea_level",
    "prmsl": "air_pressure_at_mean_sea_level",
    "mslma": "air_pressure_at_mean_sea_level",
    "sp": "surface_air_pressure",
    "pres": "air_pressure",
    "u10": "eastward_wind",
    "v10": "northward_wind",
    "ws": "wind_speed",
    "si10": "wind_speed",
    "wdir": "wind_from_direction",
    "wdir10": "wind_from_direction",
    "fg10": "wind_speed_of_gust",
    "i10fg": "wind_speed_of_gust",
    "z": "geopotential",
    "orog": "surface_altitude",
    "h": "surface_altitude",
    "lsm": "land_binary_mask",
    # of CMIP, CORDEX and E-OBS
    "tas": "air_temperature",
    "tasmax": "air_temperature",
    "tasmin": "air_temperature",
    "tg": "air_temperature",
    "tx": "air_temperature",
    "tn": "air_temperature",
    "psl": "air_pressure_at_mean_sea_level",
    "ps": "surface_air_pressure",
    "huss": "specific_humidity",
    "hurs": "relative_humidity",
    "uas": "eastward_wind",
    "vas": "northward_wind",
    "sfcWind": "wind_speed",
}
PRECIPITATION = ("tp", "pr", "rr", "apcp", "precip", "precipitation", "tot_prec", "total_precipitation", "RAINNC")
ALONG_GRID = 'is the wind along the axes of the grid, not towards east and north ("rotate_winds" rotates it)'  # a note
GRAVITY = 9.80665  # m s-2: geopotential is this times height


def standard_name(given: str, short_name: str, units: str) -> str:
    """The CF standard name: as the file gives it, or else from the short name; "" if unknown."""
    if given or short_name not in PRECIPITATION:
        return given or STANDARD_NAMES.get(short_name, "")
    rate = units.endswith(("s-1", "/s", "/hr", "/h", "/day", "hr-1", "h-1", "d-1", "day-1"))
    if units.startswith("kg"):
        return "precipitation_flux" if rate else "precipitation_amount"
    return "lwe_precipitation_rate" if rate else "lwe_thickness_of_precipitation_amount"


def in_units(name: str, units: str) -> str:
    """The standard name of a quantity in new units: a depth of water becomes a mass, a rate an amount."""
    if units.startswith("kg m-2"):
        name = name.replace("lwe_thickness_of_", "").replace("lwe_precipitation_rate", "precipitation_flux")
        if units == "kg m-2":
            return name.replace("precipitation_flux", "precipitation_amount").replace("fall_flux", "fall_amount")
    if units == "kg m-2 s-1":
        return name.replace("precipitation_amount", "precipitation_flux").replace("fall_amount", "fall_flux")
    return name


def direction(name: str, standard: str, long_name: str) -> bool:
    """Whether it is a direction, whose mean over cells or members is meaningless."""
    return standard.endswith(("from_direction", "to_direction")) or (
        "direction" in long_name.lower() and "wind" in long_name.lower()
    )
