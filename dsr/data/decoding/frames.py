"""The frames of a dataset: initial time, lead time and interval of every step, in whatever form the file has them."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from dsr.data.decoding import time as times
from dsr.data.series import Span
from dsr.errors import UserError


class Frames:
    """Initial time, lead, and the leads at which an interval starts and ends, over the same dimensions."""

    def __init__(self, dataset: Any, roles: dict[str, str | None]):
        """Raises UserError if a time cannot be determined; `self.timeless` if the dataset has none."""
        import xarray as xr

        self.calendar = "proleptic_gregorian"
        self.times_by_role: dict[str, Any] = {}
        for name, role in roles.items():
            if role in ("init", "lead", "time") and name in dataset.variables and role not in self.times_by_role:
                variable = dataset.variables[name]
                try:
                    if role == "lead":
                        seconds = times.durations(variable, variable.attrs)
                    else:
                        seconds, self.calendar = times.points(variable, variable.attrs)
                except UserError as error:
                    raise UserError(f"its coordinate {name} {error}") from None
                self.times_by_role[role] = xr.Variable(variable.dims, seconds)
        self.timeless = not self.times_by_role
        init, lead = self._reference()
        self.init, self.lead = init, init * 0 + lead
        self.bounds = None if self.timeless else self._bounds(dataset, roles)

    def _reference(self) -> tuple[Any, Any]:
        import xarray as xr

        init, lead, time = (self.times_by_role.get(role) for role in ("init", "lead", "time"))
        if init is None and lead is not None and time is not None:
            # On separate dimensions, `time` is the start of the run (WeatherBench 2); otherwise the valid time.
            independent = lead.dims and time.dims and not set(lead.dims) & set(time.dims)
            init = time if independent else time - lead
        elif init is None:
            init = time if time is not None else xr.Variable((), 0)
        if lead is None:
            lead = time - init if time is not None else init * 0
        return init + lead * 0, lead

    def _bounds(self, dataset: Any, roles: dict[str, str | None]) -> tuple[Any, Any] | None:
        """Start and end of each step's interval as lead times, from the bounds of valid time or lead time."""
        import xarray as xr

        for name, role in roles.items():
            if role not in ("time", "lead") or name not in dataset.variables:
                continue
            variable = dataset.variables[name]
            if "climatology" in variable.attrs:
                raise UserError(f"its coordinate {name} belongs to a climatology; dsr needs fields at times")
            bounds = str(variable.attrs.get("bounds", variable.encoding.get("bounds", "")))
            if bounds not in dataset.variables:
                continue
            edges = dataset.variables[bounds]
            attributes = {**variable.attrs, **edges.attrs}
            try:
                if role == "lead":
                    seconds = times.durations(edges, attributes)
                else:
                    seconds, _ = times.points(edges, attributes)
            except UserError as error:
                raise UserError(f"its bounds {bounds} {error}") from None
            # Bounds of a decreasing axis may be reversed.
            start, end = (xr.Variable(edges.dims[:-1], edge) for edge in (seconds.min(axis=-1), seconds.max(axis=-1)))
            if role == "lead":
                return self.lead * 0 + start, self.lead * 0 + end
            return start - self.init, end - self.init
        return None

    def spans(self, dims: tuple[str, ...], statistic: str) -> Iterator[tuple[Span, tuple[int, ...]]]:
        """(span, index along `dims`) of every step. Instantaneous values have no interval, whatever the bounds."""
        keep = [list(self.init.dims).index(dim) for dim in dims]
        init, lead = self.init.values, self.lead.values
        edges = None
        if self.bounds is not None and statistic not in ("point", ""):
            edges = [(self.lead * 0 + edge).transpose(*self.init.dims).values for edge in self.bounds]
        for index in np.ndindex(init.shape):
            at = int(lead[index])
            start, end = (int(e[index]) for e in edges) if edges else (at if statistic == "point" else None, at)
            yield Span(int(init[index]), start, end, at if end != at else None), tuple(index[k] for k in keep)
