"""The frames of a dataset: initial time, lead and interval of every step, however the file writes them."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from dsr.data.decoding import time as times
from dsr.data.series import Span
from dsr.errors import UserError


class Frames:
    """Initial time, lead, and the leads at which an interval starts and ends, over the same dimensions."""

    def __init__(self, dataset: Any, roles: dict[str, str | None]):
        """Raises UserError where a time cannot be told; a dataset without any has `self.timeless`."""
        import xarray as xr

        self.calendar = "proleptic_gregorian"
        self.found: dict[str, Any] = {}
        for name, role in roles.items():
            if role in ("init", "lead", "time") and name in dataset.variables and role not in self.found:
                variable = dataset.variables[name]
                try:
                    if role == "lead":
                        seconds = times.durations(variable, variable.attrs)
                    else:
                        seconds, self.calendar = times.points(variable, variable.attrs)
                except UserError as error:
                    raise UserError(f"its coordinate {name} {error}") from None
                self.found[role] = xr.Variable(variable.dims, seconds)
        self.timeless = not self.found
        init, lead = self._reference()
        self.init, self.lead = init, init * 0 + lead
        self.bounds = None if self.timeless else self._bounds(dataset, roles)

    def _reference(self) -> tuple[Any, Any]:
        import xarray as xr

        init, lead, time = (self.found.get(role) for role in ("init", "lead", "time"))
        if init is None and lead is not None and time is not None:
            # Two dimensions of their own: `time` is when the run started (WeatherBench 2); else it is the valid time.
            apart = lead.dims and time.dims and not set(lead.dims) & set(time.dims)
            init = time if apart else time - lead
        elif init is None:
            init = time if time is not None else xr.Variable((), 0)
        if lead is None:
            lead = time - init if time is not None else init * 0
        return init + lead * 0, lead

    def _bounds(self, dataset: Any, roles: dict[str, str | None]) -> tuple[Any, Any] | None:
        """Start and end of each step's interval as leads, from the bounds of the valid time or of the lead."""
        import xarray as xr

        for name, role in roles.items():
            if role not in ("time", "lead") or name not in dataset.variables:
                continue
            variable = dataset.variables[name]
            if "climatology" in variable.attrs:
                raise UserError(f"its coordinate {name} is of a climatology; dsr takes fields at times")
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
            # Of a falling axis, they may stand the other way round.
            start, end = (xr.Variable(edges.dims[:-1], edge) for edge in (seconds.min(axis=-1), seconds.max(axis=-1)))
            if role == "lead":
                return self.lead * 0 + start, self.lead * 0 + end
            return start - self.init, end - self.init
        return None

    def spans(self, dims: tuple[str, ...], statistic: str) -> Iterator[tuple[Span, tuple[int, ...]]]:
        """(span, index along `dims`) of every step. Values at an instant have no interval, whatever the bounds are."""
        keep = [list(self.init.dims).index(dim) for dim in dims]
        init, lead = self.init.values, self.lead.values
        edges = None
        if self.bounds is not None and statistic not in ("point", ""):
            edges = [(self.lead * 0 + edge).transpose(*self.init.dims).values for edge in self.bounds]
        for index in np.ndindex(init.shape):
            at = int(lead[index])
            start, end = (int(e[index]) for e in edges) if edges else (at if statistic == "point" else None, at)
            yield Span(int(init[index]), start, end, at if end != at else None), tuple(index[k] for k in keep)
