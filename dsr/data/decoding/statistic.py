"""The statistic of a value over its interval: from CF's cell_methods, or the GRIB step type in a converted file."""

import re
from typing import Any

STEP_TYPES = {"instant": "point", "accum": "sum", "avg": "mean", "max": "maximum", "min": "minimum"}
STATISTICS = ("point", "sum", "mean", "maximum", "minimum")
METHODS = {statistic: f"time: {statistic}" for statistic in STATISTICS if statistic != "point"}
METHOD = re.compile(r"(?:^|\s)(?:time|forecast_period|step|valid_time):\s*(?:\w+:\s*)*(\w+)")


def statistic(attributes: dict[str, Any]) -> str:
    """The statistic of values over their interval, by the attributes: one of STATISTICS, or "" if they do not say."""
    methods = METHOD.findall(str(attributes.get("cell_methods", "")))
    if methods and methods[-1] in STATISTICS:
        return methods[-1]
    return STEP_TYPES.get(str(attributes.get("GRIB_stepType", "")), "")
