"""Families of components, such as networks and losses: a name leads to the one file that holds a component.

A family's table maps each name to "package.module:Class", and a user's own component is named in the same form. Files
are imported when a component is asked for, and importing one imports neither torch nor deepspeed.

Code from outside dsr is imported only if its package is allowed in this process: by the config that the user names, or
by --allow-code. What a run's folder, a model, a store or a checkpoint says never allows anything.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module, machinery, metadata, util
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError, ValidationInfo
from pydantic_core import core_schema

from dsr.errors import UserError, first_line
from dsr.settings import Section, first_problem

ALLOWED = "DSR_ALLOW_CODE"  # the environment variable by which a launch tells its ranks which packages are allowed
_allowed: set[str] = set()  # packages outside dsr whose components this process may import


class Component(Section):
    """A component's settings, as fields; its methods say what it does."""

    name: str = ""

    @property
    def package(self) -> str:
        """The package outside dsr that it comes from; "" for dsr's own."""
        return _package(self.name)

    def to_json(self) -> str | dict[str, Any]:
        """What a config says of it: its name, and the settings that were given."""
        given = self.model_dump(mode="json", exclude_unset=True)
        return {"name": self.name, **given} if given.keys() - {"name"} else self.name


C = TypeVar("C", bound=Component)


@dataclass(frozen=True, eq=False)
class Family(Generic[C]):
    """One kind of component. In a pydantic model, `Annotated[Base, FAMILY]` is a field that holds one of them."""

    kind: str  # for people: "network"
    key: str  # where a config names it: "dsr.model"
    base: type[C]
    table: dict[str, str]  # name -> "module:Class"
    default: str = ""  # the name that settings without a name belong to

    def find(self, name: str) -> type[C]:
        """The class of a component. Raises UserError for an unknown name, or code that is not allowed or not one."""
        if name in self.table:
            module, _, attribute = self.table[name].partition(":")
            return getattr(import_module(module), attribute)
        if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*", name):
            shipped = f"{self.key} {name!r} is not one of {', '.join(self.table)}"
            raise UserError(f"{shipped}; one of your own is written package.module:Class")
        if _package(name) not in _allowed:
            raise UserError(
                f"{self.key} {name} is code from outside dsr, which is imported only if you say so: "
                f"--allow-code {_package(name)}"
            )
        module, _, attribute = name.partition(":")
        try:
            found = getattr(import_module(module), attribute, None)
        except Exception as error:  # whatever a user's file may raise
            raise UserError(
                f"{self.key} {name}: {module} cannot be imported ({type(error).__name__}: {first_line(error)}); "
                "it must be installed, or its folder be on PYTHONPATH"
            ) from error
        if not (isinstance(found, type) and issubclass(found, self.base)):
            raise UserError(f"{self.key} {name} is not a {self.kind}: a class that extends {_name(self.base)}")
        return found

    def include(self, name: str) -> None:
        """Have the table hold a user's own component too, in this process: the user named it on the command line."""
        allow(filter(None, [_package(name)]))
        self.find(name)
        self.table.setdefault(name, name)

    def make(self, value: Any) -> C:
        """A component from its name, or from {"name": ..., settings}. Raises UserError, naming the setting."""
        if isinstance(value, self.base):
            return value
        given = {"name": value} if isinstance(value, str) else value
        if not isinstance(given, dict) or not isinstance(given.get("name", self.default), str):
            raise UserError(f'{self.key} must be a name, or {{"name": ..., settings}}')
        name = given.get("name") or self.default
        kind = self.find(name)
        try:
            return kind.model_validate({**given, "name": name})
        except ValidationError as error:
            raise UserError(f"{self.key} ({name}): {first_problem(error, kind)}") from None

    def field(self) -> Any:
        """The field of a pydantic model that is the default component where none is given."""
        return Field({"name": self.default}, validate_default=True)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        to_json = core_schema.plain_serializer_function_ser_schema(Component.to_json)
        return core_schema.with_info_plain_validator_function(self._validated, serialization=to_json)

    def _validated(self, value: Any, info: ValidationInfo) -> C:
        """`make`, where the validation's context may say that the config is one that the user "named"."""
        name = value.get("name") if isinstance(value, dict) else value
        if (info.context or {}).get("named") and isinstance(name, str) and _package(name):
            allow([_package(name)])
        return self.make(value)

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """A name alone, or the settings of each component of the table, or one of the user's own."""
        own = {"type": "string", "pattern": ":", "description": f"your own {self.kind}: package.module:Class"}
        branches = [{"enum": list(self.table)}, own]
        for name in self.table:
            reference = handler(self.find(name).__pydantic_core_schema__)
            settings = handler.resolve_ref_schema(reference)
            settings["properties"]["name"] = {"const": name}
            if name != self.default:
                settings["required"] = sorted({"name", *settings.get("required", [])})
            branches.append(reference)
        branches.append({"type": "object", "properties": {"name": own}, "required": ["name"]})
        return {"anyOf": branches}


def allow(packages: Iterable[str]) -> None:
    """Let this process import components from these packages."""
    _allowed.update(packages)


def packages(section: BaseModel) -> list[str]:
    """The packages outside dsr that the components in a section come from, at any depth."""
    names = set()
    for _, value in section:
        if isinstance(value, Component):
            names.add(value.package)
        if isinstance(value, BaseModel):
            names.update(packages(value))
    return sorted(names - {""})


def source(package: str) -> dict[str, str | None]:
    """{"version": of the package if it is installed, "sha256": of all that can be imported from it}.

    The SHA-256 is over the names and bytes of its source files and compiled modules, in the order of their paths. The
    package is not imported.
    """
    distributions = metadata.packages_distributions().get(package)
    version = metadata.version(distributions[0]) if distributions else None
    found = util.find_spec(package)
    if found is None:
        return {"version": version, "sha256": None}
    digest = hashlib.sha256()
    folders = [Path(place) for place in found.submodule_search_locations or []]
    suffixes = (*machinery.SOURCE_SUFFIXES, *machinery.EXTENSION_SUFFIXES)
    files = [(file, folder) for folder in folders for file in sorted(folder.rglob("*"))]
    if not folders and found.origin:
        files = [(Path(found.origin), Path(found.origin).parent)]
    for file, folder in files:
        if file.name.endswith(suffixes) and file.is_file():
            digest.update(f"{file.relative_to(folder)}\0".encode() + file.read_bytes() + b"\0")
    return {"version": version, "sha256": digest.hexdigest()}


def _package(name: str) -> str:
    """The top package of "package.module:Class"; "" for a name in a table."""
    return name.partition(".")[0].partition(":")[0] if ":" in name else ""


def _name(base: type) -> str:
    return f"{base.__module__}.{base.__name__}"
