"""dsr: deep downscaling of weather forecasts, with strong scaling that is exact to the bit."""

__version__ = "0.1.0"
