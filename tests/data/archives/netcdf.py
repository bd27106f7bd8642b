"""Which small NetCDF, HDF5 or Zarr archive stands for which shipped recipe."""

from collections.abc import Callable
from pathlib import Path

from . import climate, models, observations, reanalyses, wrf
from .truth import Truth

ARCHIVES: dict[str, Callable[[Path], Truth]] = {
    "wrf": wrf.write,
    "cordex": climate.cordex,
    "cmip6": climate.cmip6,
    "ukcp18": climate.ukcp18,
    "era5_cds": reanalyses.era5_cds,
    "era5_cds_until_2024": reanalyses.era5_cds_until_2024,
    "era5_land": reanalyses.era5_land,
    "arco_era5": reanalyses.arco_era5,
    "weatherbench2": reanalyses.weatherbench2,
    "eobs": observations.eobs,
    "hyras": observations.hyras,
    "imerg": observations.imerg,
    "meps": models.meps,
    "hrrr_zarr": models.hrrr_zarr,
    "lambert_places": models.places_only,
}
FOLDERS = {  # where the recipe looks, where it is not called like the recipe
    "era5_cds": "era5",
    "era5_cds_until_2024": "era5",
    "arco_era5": "arco",
    "hrrr_zarr": "hrrr",
    "lambert_places": "lambert",
}


def written(root: Path, recipe: str) -> Truth:
    """The archive of a recipe, under `root`, where it looks for it."""
    return ARCHIVES[recipe](root / FOLDERS.get(recipe, recipe))
