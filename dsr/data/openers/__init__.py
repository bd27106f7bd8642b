"""The file formats of archives: one module each, which recognises a file and opens it as series."""

from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from multiprocessing import get_context
from os import cpu_count
from pathlib import Path
from typing import Any

from dsr.data.files import File
from dsr.data.series import Series
from dsr.errors import UserError, first_line

# Tried in this order; each has sniff(path, first bytes) -> bool and open_file(file, crs=...) -> [Series].
# GRIB comes last: its magic bytes also occur in NetCDF files, in the names of attributes from converters.
OPENERS = ("zarr", "wrf", "netcdf", "grib")
MANY = 24  # files: this many or more are opened by several processes


def open_files(files: list[File], crs: Any = None) -> list[Series]:
    """The series of all files, in the order of the files. Raises UserError, naming the file that cannot be opened."""
    workers = min(4, cpu_count() or 1)
    if len(files) < MANY or workers == 1:
        return [series for file in files for series in open_one(file, crs)]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        opened = pool.map(open_one, files, [crs] * len(files), chunksize=max(1, len(files) // (4 * workers)))
        return [series for of_file in opened for series in of_file]


def open_one(file: File, crs: Any = None) -> list[Series]:
    """The series of one file. Raises UserError: unknown format, damaged, or without positions or times."""
    start = b""
    if Path(file.path).is_file():
        with Path(file.path).open("rb") as stream:
            start = stream.read(512)
    for name in OPENERS:
        opener = import_module(f"dsr.data.openers.{name}")
        try:
            if opener.sniff(file.path, start):
                return opener.open_file(file, crs)
        except UserError:
            raise
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            raise UserError(f"{file.name}: cannot be read ({first_line(error)}): is the file whole?") from error
    raise UserError(f"{file.name}: is not NetCDF, GRIB or Zarr")
