"""Weather data: simulated or prepared, stored, streamed, and written.

pyproj must be loaded before eccodes (which xarray loads whenever it opens a file): eccodes brings a PROJ of its own,
and a pyproj that is imported after it binds to that one and fails, or crashes (pyproj 3.7.2 with eccodes 2.50).
"""

import pyproj  # noqa: F401
