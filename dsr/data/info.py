"""A store as text: grids, times, pairing, splits, statistics, fingerprint, problems."""

from pathlib import Path
from typing import Any

import numpy as np

from dsr.data.calendar import label
from dsr.data.store import SPLITS, Store, Variable


def describe(path: Path | str) -> str:
    """The store at `path` as plain text. Raises UserError if there is none."""
    store = Store(path)
    provenance: dict[str, Any] = store.attributes.get("provenance", {})  # type: ignore[assignment]
    sections = {
        "grids": grids(store),
        "times": times(store),
        "splits": splits(store),
        "variables (statistics of the training split)": _statistics(store),
        "fingerprint": [store.fingerprint],
        "where it came from": origin(provenance),
        "problems": provenance.get("problems") or ["none known"],
    }
    lines = [str(path)]
    for title, content in sections.items():
        lines += ["", title, *(f"  {line}" for line in content)]
    return "\n".join(lines)


def grids(store: Store) -> list[str]:
    step = " x ".join(f"{np.median(np.abs(np.diff(i, axis=axis))):.4g}" for axis, i in enumerate(store.low_index))
    rows, columns = (f"{i.min():.4g} to {i.max():.4g}" for i in store.low_index)
    nodes = all(np.isclose(i[0, 0], np.round(i[0, 0]), atol=1e-3) for i in store.low_index)
    registered = "node-registered" if nodes else "cell-registered"
    return [
        f"high  {store.grid('high').describe()}",
        f"low   {store.grid('low').describe()}",
        f"factor {store.attributes['factor']}, {registered}: a high step is {step} low cells",
        f"high points lie in low rows {rows}, columns {columns}",
    ]


def times(store: Store) -> list[str]:
    leads = np.unique(store.low_lead_time) / 3600
    hours = ", ".join(f"{h:g}" for h in leads) if len(leads) <= 12 else f"{len(leads)}, {leads[0]:g} to {leads[-1]:g}"
    runs = np.unique(store.low_init_time)
    repeated = len(store.high_index) - len(np.unique(store.high_index))
    calendar = "" if store.calendar in ("standard", "proleptic_gregorian") else f" in the {store.calendar} calendar"
    return [
        f"{len(store.time)} truths, {_span(store, store.time)}{calendar}",
        f"{len(store.high_index)} samples, {len(runs)} initial times, {_span(store, runs)}",
        f"leads {hours} h" + (f"; {store.members} members" if store.members else ""),
        f"paired by {store.attributes['pairing']}" + (f"; {repeated} samples share their truth" if repeated else ""),
    ]


def splits(store: Store) -> list[str]:
    lines = []
    for name in SPLITS:
        chosen = store.samples(name)
        if store.region is not None:
            rows, columns = np.nonzero(store.mask(name))
            box = f" in rows {rows.min()}..{rows.max()}, columns {columns.min()}..{columns.max()}" if len(rows) else ""
            lines.append(f"{name:10} {len(rows)} high points{box}, all {len(chosen)} samples")
        else:
            lines.append(f"{name:10} {len(chosen)} samples, {_span(store, store.low_init_time[chosen])}")
    if store.region is not None:
        return [*lines, f"gap        {(store.region < 0).sum()} high points between them; split by region"]
    left = len(store.high_index) - sum(len(store.samples(name)) for name in SPLITS)
    return [*lines, f"gap        {left} samples between them; split by initial time"]


def _statistics(store: Store) -> list[str]:
    groups: dict[str, list[Variable]] = {
        "high": store.high_variables,
        "residual": store.high_variables,
        "low": store.low_variables,
        "static": store.static_variables,
    }
    lines = [f"{'':9} {'':18} {'units':10} {'mean':>11} {'std':>11} {'minimum':>11} {'maximum':>11}"]
    for group, variables in groups.items():
        for variable in variables:
            numbers = store.statistics[group].get(variable.name)
            if numbers is not None:
                values = " ".join(f"{numbers[key]:11.5g}" for key in ("mean", "std", "minimum", "maximum"))
                lines.append(f"{group:9} {variable.name:18} {variable.units:10} {values}")
    return lines


def origin(provenance: dict[str, Any]) -> list[str]:
    files = provenance.get("files", [])
    lines = [f"{key}: {provenance[key]}" for key in ("citation", "made_by", "made") if provenance.get(key)]
    return lines + ([f"{len(files)} files: {', '.join(files[:6])}{' ...' if len(files) > 6 else ''}"] if files else [])


def _span(store: Store, seconds: np.ndarray) -> str:
    if not len(seconds):
        return "none"
    return " to ".join(label(t, store.calendar) for t in (seconds.min(), seconds.max()))
