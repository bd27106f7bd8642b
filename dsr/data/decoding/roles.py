"""What each coordinate of a dataset is: rows, columns, member, initial time, lead, valid time."""

from typing import Any

# CF standard names, then other usual names.
ROLES = {
    "y": (
        ("latitude", "projection_y_coordinate", "grid_latitude"),
        ("lat", "y", "rlat", "yc", "nj", "south_north"),
    ),
    "x": (
        ("longitude", "projection_x_coordinate", "grid_longitude"),
        ("lon", "x", "rlon", "xc", "ni", "west_east"),
    ),
    "member": (
        ("realization",),
        ("member", "members", "number", "realisation", "ens", "ensemble", "ensemble_member", "member_id"),
    ),
    "init": (
        ("forecast_reference_time",),
        ("init_time", "init", "reference_time", "analysis_time", "initial_time"),
    ),
    "lead": (
        ("forecast_period",),
        ("lead_time", "lead", "leadtime", "step", "prediction_timedelta", "forecast_hour"),
    ),
    "time": (("time",), ("valid_time", "valid", "date")),
}


def role(name: str, variable: Any) -> str | None:
    """A key of ROLES, by the variable's CF standard name, or else by its name; None for anything else."""
    standard_name = variable.attrs.get("standard_name")
    for key, (standard_names, _) in ROLES.items():
        if standard_name in standard_names:
            return key
    return next((key for key, names in ROLES.items() if name.lower() in (*names[0], *names[1])), None)
