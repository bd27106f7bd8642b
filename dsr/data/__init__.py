"""Weather data: simulated or prepared, stored, streamed, and written."""

from pathlib import Path
from typing import Any


def open(store: Path | str) -> Any:
    """Open a store as an xarray DataTree of ordinary CF variables: nodes /high, /low and /static.

    Raises UserError if it is not a store.
    """
    from dsr.data.store import open as open_store

    return open_store(store)
