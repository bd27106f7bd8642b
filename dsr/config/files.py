"""Experiment files: read one, merge it over those that it extends, apply overrides."""

import json
from pathlib import Path
from typing import Any

from dsr.config.deepspeed import PARAMS
from dsr.config.schema import Experiment, validate
from dsr.errors import UserError
from dsr.models.losses import LOSSES
from dsr.models.networks import NETWORKS
from dsr.scaling.rules import RULES

FAMILIES = {family.key: family for family in (NETWORKS, LOSSES, RULES)}


def shipped(name: str) -> Path:
    """The path of a configuration that comes with dsr, such as "default.json"."""
    package = Path(__file__).parents[1]
    installed, checkout = package / "ds_configs" / name, package.parent / "ds_configs" / name
    return installed if installed.exists() else checkout


def load(path: Path | None = None, overrides: list[str] | tuple[str, ...] = (), *, named: bool = True) -> Experiment:
    """Read an experiment file (none: default.json), apply `extends` and KEY=VALUE overrides, validate.

    `named`: the user named the file, and so allows the components from outside dsr that it names. Raises UserError,
    naming the file and the key.
    """
    path = shipped("default.json") if path is None else Path(path)
    values = _read(path, ())
    for override in overrides:
        values = _override(values, override)
    return validate(values, str(path), named=named)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file. Raises UserError with the line where it is not JSON."""
    try:
        values = json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: not JSON, line {error.lineno}: {error.msg}") from None
    except (OSError, ValueError, RecursionError) as error:  # also no UTF-8, a number of thousands of digits
        raise UserError(f"{path}: cannot be read ({error})") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: must hold a JSON object")
    return values


def _read(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    """A file's values, merged over those of the file that it extends."""
    if path.resolve() in seen:
        chain = " -> ".join(p.name for p in (*seen, path))
        raise UserError(f"{path}: `extends` goes in a circle: {chain}")
    values = read_json(path)
    parent = values.pop("extends", None)
    if parent is None:
        return values
    if not isinstance(parent, str):
        raise UserError(f"{path}: extends must be the name of a file")
    return _merge(_read(path.parent / parent, (*seen, path.resolve())), values)


def _merge(base: dict[str, Any], change: dict[str, Any], place: str = "") -> dict[str, Any]:
    """Deep merge: objects are merged, everything else (lists too) is replaced.

    Three places are special. In `dsr.budget` epochs and updates exclude each other, and the newer one wins. Where a
    component becomes one of another name, such as another network, it inherits no settings. Where the
    optimizer or the scheduler becomes one of another type, parameters that this type lacks are not inherited.
    """
    merged = dict(base)
    for key, value in change.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value, f"{place}.{key}" if place else key) if both else value
    if place == "dsr.budget" and len(change) == 1:
        return dict(change)
    family = FAMILIES.get(place)
    if family and "name" in change and change["name"] != base.get("name", family.default):
        return dict(change)
    known = PARAMS.get(place, {}).get(str(change.get("type")))
    if known and base.get("type", change["type"]) != change["type"] and isinstance(merged.get("params"), dict):
        changed = change.get("params") or {}
        merged["params"] = {name: value for name, value in merged["params"].items() if name in known or name in changed}
    return merged


def _override(values: dict[str, Any], override: str) -> dict[str, Any]:
    """Merge one KEY=VALUE over the values, such as dsr.model.width=64; the value is JSON, or else text."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UserError(f"--set {override}: write it as KEY=VALUE, such as dsr.model.width=64")
    if key == "extends":
        raise UserError(f"--set {override}: extends is for files; give the file itself as the config")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = text
    for part in reversed(key.split(".")):
        value = {part: value}
    return _merge(values, value)
