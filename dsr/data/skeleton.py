"""All of a store except the values of its fields, as a Zarr v3 tree that xarray opens."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from dsr.data.calendar import EPOCH
from dsr.data.fields import CODECS
from dsr.data.manifest import FORMAT
from dsr.data.store import ALONG, Layout, Variable


def write_skeleton(folder: Path, layout: Layout) -> None:
    """Write groups, coordinates, static fields and attributes into a new folder."""
    import xarray as xr
    import zarr

    high_grid = layout.high_grid.to_dataset()
    high = high_grid.assign_coords(_along_variable(layout.high_variables))
    high = high.assign_coords(
        time=("time", layout.time, {"units": EPOCH, "calendar": layout.calendar, "standard_name": "time"}),
        low_row=(("y", "x"), layout.low_index[0], {"long_name": "fractional row of this point on the low grid"}),
        low_column=(("y", "x"), layout.low_index[1], {"long_name": "fractional column on the low grid"}),
    )
    if layout.init_time is not None:
        high = high.assign_coords(_reference(layout.init_time, layout.lead_time, "time", layout.calendar))
    if layout.region is not None:
        high = high.assign_coords(region=(("y", "x"), layout.region.astype(np.int8), _split_flags()))
    low = layout.low_grid.to_dataset().assign_coords(_along_variable(layout.low_variables))
    low = low.assign_coords(
        **_reference(layout.low_init_time, layout.low_lead_time, "sample", layout.calendar),
        time=("sample", layout.low_time, {"units": EPOCH, "calendar": layout.calendar, "standard_name": "time"}),
        high_index=("sample", layout.high_index.astype(np.int64), {"long_name": "row of the truth in high"}),
        split=("sample", layout.split.astype(np.int8), _split_flags()),
    )
    static = high_grid.assign_coords(_along_variable(layout.static_variables))
    names = [variable.name for variable in layout.static_variables]
    static["field"] = (("variable", "y", "x"), _stack(layout.static, names, layout.high_shape[-2:]))
    if layout.low_static:
        low = low.assign({f"static_{name}": (("y", "x"), layout.low_static[name]) for name in layout.low_static})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # consolidated metadata and strings are not yet in the Zarr v3 specification
        groups = {"/high": high, "/low": low, "/static": static}
        tree = xr.DataTree.from_dict({name: _without_encoding(ds) for name, ds in groups.items()})
        tree.to_zarr(folder, zarr_format=3, consolidated=False)
        group = zarr.open_group(folder, mode="r+", zarr_format=3)
    member = ["member"] if layout.members else []
    _create_field(group["high"], layout.high_shape, ("time", "variable", "y", "x"), high)
    _create_field(group["low"], layout.low_shape, ("sample", *member, "variable", "y", "x"), low)
    group.attrs.update(dsr_store=FORMAT, factor=layout.factor, pairing=layout.pairing, splits=layout.splits)


def write_counts(folder: Path, counts: np.ndarray) -> None:
    """Write how many values the training truths have: (time, variable) int64."""
    import zarr

    zarr.open_group(folder / "high", mode="r+", zarr_format=3).create_array(
        "count",
        data=counts,
        dimension_names=("time", "variable"),
        attributes={"long_name": "values in the training region, -1 where it is no truth of training"},
    )


def finish_skeleton(folder: Path, **attributes: Any) -> None:
    """Add the attributes that are known only at the end, and consolidate all metadata in one file."""
    import zarr

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # consolidated metadata are not yet in the Zarr v3 specification
        zarr.open_group(folder, mode="r+", zarr_format=3).attrs.update(attributes)
        zarr.consolidate_metadata(folder, zarr_format=3)


def _along_variable(variables: list[Variable]) -> dict[str, Any]:
    coordinates: dict[str, Any] = {"variable": ("variable", np.array([v.name for v in variables], dtype=object))}
    for key in ALONG[:4]:
        coordinates[key] = ("variable", np.array([getattr(v, key) for v in variables], dtype=object))
    for key in ALONG[4:]:
        values = [np.nan if getattr(v, key) is None else getattr(v, key) for v in variables]
        coordinates[key] = ("variable", np.array(values, dtype=np.float64))
    return coordinates


def _reference(init: Any, lead: Any, dimension: str, calendar: str) -> dict[str, Any]:
    reference = {"units": EPOCH, "calendar": calendar, "standard_name": "forecast_reference_time"}
    return {
        "init_time": (dimension, np.asarray(init, np.int64), reference),
        "lead_time": (dimension, np.asarray(lead, np.int64), {"units": "s", "standard_name": "forecast_period"}),
    }


def _split_flags() -> dict[str, Any]:
    return {"flag_values": [-1, 0, 1, 2], "flag_meanings": "gap train validation test"}


def _stack(fields: dict[str, np.ndarray], names: list[str], shape: tuple[int, ...]) -> np.ndarray:
    return np.stack([fields[name] for name in names]).astype(np.float32) if names else np.zeros((0, *shape), np.float32)


def _without_encoding(dataset: Any) -> Any:
    """A copy without encoding: chunk sizes and fill values of the source do not apply."""
    dataset = dataset.copy()
    for variable in dataset.variables.values():
        variable.encoding = {}
    return dataset


def _create_field(group: Any, shape: tuple[int, ...], dimensions: tuple[str, ...], coordinates: Any) -> None:
    named = [str(key) for key in coordinates.coords if key not in dimensions]
    group.create_array(
        "field",
        shape=shape,
        chunks=(1, *shape[1:]),
        dtype="float32",
        fill_value=float("nan"),
        dimension_names=dimensions,
        serializer=CODECS[0],
        compressors=CODECS[1:],
        attributes={"coordinates": " ".join(named)},
    )
