"""A recipe: which archives make a store, and how, as a JSON file whose keys are all checked."""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveInt, ValidationError, field_validator

from dsr.config import read_json
from dsr.data.calendar import check_form
from dsr.data.choice import Choice
from dsr.errors import UserError


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _names_to_choices(value: Any) -> Any:
    """A plain list of names selects those variables unchanged."""
    return {name: {} for name in value} if isinstance(value, list) else value


class Files(_Part):
    """An archive: its files, and what is used from them."""

    files: list[str] = Field(
        min_length=1, description="paths, globs or URLs; relative paths start at the recipe's folder"
    )
    variables: Annotated[dict[str, Choice] | None, BeforeValidator(_names_to_choices)] = Field(
        None, description="names, or {name: settings}; null selects all"
    )
    members: list[int | str] | None = Field(None, description="only these members")
    offset_hours: float = Field(0, description="added to every time: some daily data are stamped at 00, others at 12")
    crs: dict[str, Any] | str | None = Field(
        None, description="the projection if the files lack it: CF grid-mapping attributes, PROJ string or EPSG code"
    )
    rotate_winds: bool = Field(False, description="rotate winds along the axes of the grid to east and north")


class ByTime(_Part):
    """Splits by initial time: three shares in this order, or three ranges [first, last] of initial times.

    Dates are in the calendar of the data; a last date without a time includes the whole day.
    """

    by: Literal["time"] = "time"
    train: float | tuple[str, str] = 0.7
    validation: float | tuple[str, str] = 0.15
    test: float | tuple[str, str] = 0.15
    gap_hours: float = Field(0, ge=0, description="left out between splits, in addition to the longest lead time")

    @field_validator("train", "validation", "test")
    @classmethod
    def _dates(cls, share: float | tuple[str, str]) -> float | tuple[str, str]:
        return share if isinstance(share, float) else (check_form(share[0]), check_form(share[1]))


class ByRegion(_Part):
    """Splits by region: boxes [first row, last row, first column, last column] on the high grid; the rest is training.

    Without boxes, strips across the longer side: 70 % training, then validation, then test.
    """

    by: Literal["region"]
    validation: tuple[int, int, int, int] | None = None
    test: tuple[int, int, int, int] | None = None
    gap: PositiveInt | None = Field(
        None, description="high points left out around each box; null: 4 low cells, fewer on small grids"
    )


class Recipe(_Part):
    """All settings of `dsr data prepare`."""

    about: list[str] = Field(default_factory=list, description="comments: what this is, and what to change")
    origin: str | None = Field(None, description="one line: where the data can be obtained")
    high: Files
    low: Files | list[Files] | None = Field(
        None,
        description="if there are several archives, the first gives the grid and the others are interpolated onto it",
    )
    static: Files | None = None
    factor: PositiveInt | None = Field(None, description="coarsen by this: the high archive, or the low one if given")
    pairing: Literal["same-run", "valid-time"] | None = Field(None, description="needed only if both are possible")
    splits: ByTime | ByRegion = Field(ByTime(), discriminator="by")
    citation: str = Field("", description="where the data come from, and their licence")
    root: Path | None = Field(None, exclude=True, description="set by `load`: relative files are relative to this")

    @classmethod
    def from_options(
        cls,
        high: Sequence[str],
        low: Sequence[str] = (),
        static: Sequence[str] = (),
        factor: int | None = None,
        gap_hours: float = 0,
        pairing: str | None = None,
        split: str = "time",
        root: Path | None = None,
    ) -> "Recipe":
        """The recipe that corresponds to command-line options."""
        value: dict[str, Any] = {"high": {"files": list(high)}, "factor": factor, "pairing": pairing, "root": root}
        value |= {name: {"files": list(files)} for name, files in (("low", low), ("static", static)) if files}
        value["splits"] = {"by": "time", "gap_hours": gap_hours} if split == "time" else {"by": split}
        return _validated(value, "the options")


def load(path: Path, root: Path | None = None, gap_hours: float | None = None) -> Recipe:
    """Read a recipe. Relative paths in it start at `root`, by default the recipe's folder.

    Raises UserError: no such file, not JSON, an unknown key (with the nearest valid one), a value of the wrong type.
    """
    value = read_json(path)
    splits = value.get("splits", {})
    if isinstance(splits, dict):
        gap = {} if gap_hours is None else {"gap_hours": gap_hours}
        value["splits"] = {"by": "time", **splits, **gap}
    return _validated(value, str(path)).model_copy(update={"root": root if root is not None else path.parent})


def _validated(value: dict[str, Any], where: str) -> Recipe:
    try:
        return Recipe.model_validate(value)
    except ValidationError as error:
        raise UserError(f"{where}: {_first_problem(error)}") from None


def _first_problem(error: ValidationError) -> str:
    """The first problem on one line: the key's path, what is wrong, and for an unknown key the nearest valid name."""
    first = next((e for e in error.errors() if e["type"] in _UNKNOWN), error.errors()[0])
    path = [str(part) for part in first["loc"] if part not in ("time", "region") and "[" not in str(part)]
    text = first["msg"].removeprefix("Value error, ")
    if first["type"] not in _UNKNOWN:
        return f"{'.'.join(path)}: {text[0].lower()}{text[1:]}"
    keys = {key for model in (Files, ByTime, ByRegion, Recipe) for key in model.model_fields} | set(
        Choice.__dataclass_fields__
    )
    near = difflib.get_close_matches(path[-1], sorted(keys), 1)
    return f'unknown key "{".".join(path)}"' + (f'; did you mean "{near[0]}"?' if near else "")


_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
