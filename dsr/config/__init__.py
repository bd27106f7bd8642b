"""An experiment file: its schema, DeepSpeed's own keys, and how files are read. Never imports deepspeed."""

from dsr.config.files import load, read_json, shipped
from dsr.config.schema import (
    Budget,
    Data,
    Dsr,
    Experiment,
    Optimizer,
    json_schema,
    validate,
)

__all__ = [
    "Budget",
    "Data",
    "Dsr",
    "Experiment",
    "Optimizer",
    "json_schema",
    "load",
    "read_json",
    "shipped",
    "validate",
]
