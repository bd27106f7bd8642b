"""dsr: deep downscaling of weather forecasts, with strong scaling that is exact to the bit."""

from dsr import proj  # noqa: F401  (before anything that loads pyproj)

__version__ = "0.1.0"
