"""Which small NetCDF, HDF5 or Zarr archive stands for which shipped recipe, and where the recipe looks for it."""

from collections.abc import Callable
from pathlib import Path

from . import climate, models, observations, reanalyses, wrf
from .truth import Truth

ARCHIVES: dict[str, tuple[str, Callable[[Path], Truth]]] = {
    "wrf_nests": ("wrf", wrf.write),
    "cordex_x4": ("cordex", climate.cordex),
    "cmip6_x4": ("cmip6", climate.cmip6),
    "ukcp18_x4": ("ukcp18", climate.ukcp18),
    "era5_cds_x4": ("era5", reanalyses.era5_cds),
    "era5_cds_until_2024_x4": ("era5", reanalyses.era5_cds_until_2024),
    "era5_land_x4": ("era5_land", reanalyses.era5_land),
    "arco_era5_x4": ("arco", reanalyses.arco_era5),
    "hres_to_era5_weatherbench2": ("weatherbench2", reanalyses.weatherbench2),
    "era5_to_eobs": ("eobs", observations.eobs),
    "hyras_x4": ("hyras", observations.hyras),
    "imerg_x4": ("imerg", observations.imerg),
    "meps_x4": ("meps", models.meps),
    "hrrr_zarr_x4": ("hrrr", models.hrrr_zarr),
    "lambert_places_x4": ("lambert", models.places_only),
}


def written(root: Path, recipe: str) -> Truth:
    """The archive of a recipe, in the folder under `root` where it looks."""
    folder, write = ARCHIVES[recipe]
    return write(root / folder)
