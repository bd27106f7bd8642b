"""Weather data: simulated or prepared, stored, streamed, and written.

pyproj must be loaded before eccodes (which xarray loads whenever it opens a file): eccodes brings a PROJ of its own,
and a pyproj that is imported after it binds to that one and fails, or crashes (pyproj 3.7.2 with eccodes 2.50).
"""

from pathlib import Path
from typing import Any

import pyproj  # noqa: F401


def open(store: Path | str) -> Any:
    """Open a store as an xarray DataTree of ordinary CF variables: nodes /high, /low and /static.

    Raises UserError if it is not a store.
    """
    from dsr.data.store import open as open_store

    return open_store(store)
