"""Typed settings: how a section of a JSON file is checked, and what is said of its first mistake."""

import difflib
import json
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError


class Section(BaseModel):
    """A group of settings: unknown keys are refused, numbers are finite, and no type is converted to another."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


Positive = Annotated[int, Field(gt=0, lt=2**31)]
Names = Annotated[list[str], Field(min_length=1)]


def first_problem(error: ValidationError, model: type[BaseModel], prefix: str = "") -> str:
    """One line for the first problem that pydantic has with `model`: the key, what is wrong, what would be right.

    `prefix` is where the model stands in its file, such as "dsr".
    """
    first = error.errors()[0]
    location = [str(part) for part in first["loc"]]
    key = ".".join(part for part in [prefix, *location] if part)
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"unknown key {key}{nearest(location[-1], _names(model, location[:-1]))}"
    given = "" if first["type"] == "missing" else f" (given: {json.dumps(first['input'], default=str)[:60]})"
    return f"{key}: {first['msg'].removeprefix('Value error, ')}{given}"


def nearest(name: str, names: Iterable[str]) -> str:
    """The end of a message on an unknown name: the valid name nearest to it, or else all that are valid."""
    valid = sorted(names)
    near = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else f"; valid here: {', '.join(valid)[:160]}"


def _names(model: Any, location: list[str]) -> list[str]:
    """The field names valid at a location inside a nested model."""
    for part in location:
        field = getattr(model, "model_fields", {}).get(part)
        if field is None:
            continue  # a list index, or the name of a union's branch
        candidates = [field.annotation, *get_args(field.annotation)]
        nested = [c for c in candidates if isinstance(c, type) and (issubclass(c, BaseModel) or is_dataclass(c))]
        inner = [a for c in candidates if get_origin(c) in (list, dict, Union) for a in get_args(c)]
        nested += [c for c in inner if isinstance(c, type) and issubclass(c, BaseModel)]
        if nested:
            model = nested[0]
    if is_dataclass(model):
        return [field.name for field in fields(model)]
    return [f.alias or name for name, f in getattr(model, "model_fields", {}).items()]
