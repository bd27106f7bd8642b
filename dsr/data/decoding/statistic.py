"""How a value stands for its interval: CF's cell_methods, or the GRIB step type that a converted file carries."""

import re
from typing import Any

STEP_TYPES = {"instant": "point", "accum": "sum", "avg": "mean", "max": "maximum", "min": "minimum"}
STATISTICS = ("point", "sum", "mean", "maximum", "minimum")
METHODS = {statistic: f"time: {statistic}" for statistic in STATISTICS if statistic != "point"}
METHOD = re.compile(r"(?:^|\s)(?:time|forecast_period|step|valid_time):\s*(?:\w+:\s*)*(\w+)")


def statistic(attributes: dict[str, Any]) -> str:
    """How values stand for their interval, as the attributes say: one of STATISTICS, or "" where they do not."""
    told = METHOD.findall(str(attributes.get("cell_methods", "")))
    if told and told[-1] in STATISTICS:
        return told[-1]
    return STEP_TYPES.get(str(attributes.get("GRIB_stepType", "")), "")
