"""The formats that archives come in: a table, one file each, that sniff a file and open it as series."""

from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from multiprocessing import get_context
from os import cpu_count
from pathlib import Path
from typing import Any

from dsr.data.files import File
from dsr.data.series import Series
from dsr.errors import UserError, first_line

# Asked in this order; each has sniff(path, first bytes) -> bool and open_file(file, crs=...) -> [Series].
# GRIB comes last: its mark stands in NetCDF files too, in the names of attributes that a converter left.
OPENERS = ("zarr", "wrf", "netcdf", "grib")
MANY = 24  # files: from so many on they are opened by several processes


def open_files(files: list[File], crs: Any = None) -> list[Series]:
    """The series of all files, in the order of the files. Raises UserError, naming the file that cannot be opened."""
    workers = min(4, cpu_count() or 1)
    if len(files) < MANY or workers == 1:
        return [series for file in files for series in open_one(file, crs)]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        opened = pool.map(open_one, files, [crs] * len(files), chunksize=max(1, len(files) // (4 * workers)))
        return [series for several in opened for series in several]


def open_one(file: File, crs: Any = None) -> list[Series]:
    """The series of one file. Raises UserError: of no known format, damaged, or where and when cannot be told."""
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
    raise UserError(f"{file.name}: neither NetCDF, GRIB nor Zarr")
