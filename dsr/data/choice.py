"""How one variable is taken from an archive, as a recipe says it, and which series it means."""

from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from dsr.data.series import Series
from dsr.errors import UserError


@dataclass(frozen=True)
class Choice:
    """A variable's keys in a recipe."""

    source: str = ""  # its name in the archive, where that is another
    units: str = ""  # what to convert to; where the archive does not know its units, what they are
    accumulated: bool | Literal["run", "00 UTC"] | None = None  # what sums are since; None: as the file says
    source_units: str = ""  # the unit that the values truly have, whatever the file says
    select: dict[str, str | float | list[str | float]] = field(default_factory=dict)
    # ^ among series of one name: {"isobaricInhPa": 850}; of a list of values, the first that is not missing
    hours: float | None = None  # the length of the interval that a value covers
    missing: tuple[float, ...] = ()  # values that stand for a missing one
    valid_range: tuple[float, float] | None = None  # outside of it, a value is missing
    clip: bool = False  # values beyond the physical bounds are set to the bound, and counted
    standard_name: str = ""
    long_name: str = ""

    __pydantic_config__: ClassVar = {"extra": "forbid"}  # for recipes, which hold choices


def by_name(series: list[Series]) -> dict[str, list[Series]]:
    """{name: the series of one variable at one level, of one statistic}.

    A name that stands for several is told apart by what differs: levels ("t_850"; "q_isobaricInhPa_100" where their
    kinds differ too), statistics other than at an instant ("t2m_maximum"), and other labels such as expver.
    """
    names: dict[str, list[Series]] = defaultdict(list)
    for one in series:
        names[one.name].append(one)
    result: dict[str, list[Series]] = {}
    for name, several in names.items():
        kinds = len({one.level and one.level[0] for one in several}) > 1
        levels = len({one.level for one in several}) > 1
        statistics = len({one.statistic for one in several}) > 1
        differing = [k for k in several[0].labels if len({one.labels.get(k) for one in several}) > 1]
        for one in several:
            parts = [name]
            if levels and one.level:
                parts += [*([one.level[0]] if kinds else []), f"{one.level[1]:g}"]
            if statistics and one.statistic not in ("point", ""):
                parts.append(one.statistic)
            parts += [str(one.labels.get(key, "")) for key in differing]
            result.setdefault("_".join(parts), []).append(one)
    return result


def choose(series: list[Series], key: str, choice: Choice, archive: str, own_names: bool = False) -> list[Series]:
    """The series that a choice means. Raises UserError where there is none, or where it means several."""
    named = by_name(series)
    present = {one.name for one in series}
    source = choice.source or key
    if own_names and source not in named and source not in present:
        source = key
    matching = [one for one in series if one.name == source and _selected(one, choice)]
    if not matching and source in named:
        matching = [one for one in named[source] if _selected(one, choice)]
    if not matching:
        if source in present or source in named:
            raise UserError(f"{archive}: {source}: nothing is {_said(choice)}; there is {_told(series, source)}")
        raise UserError(f"{archive}: no variable {source}; there are: {', '.join(sorted(named))}")
    matching.sort(key=lambda one: _order(one, choice))
    kinds = by_name([_without(one, choice) for one in matching])
    if len(kinds) > 1 and not _in_turn(matching):
        raise UserError(
            f'{archive}: {source} stands there as {_told(matching, source)}: choose by "select" in a recipe, or one of '
            f"the names {', '.join(sorted(kinds))}"
        )
    return matching


def _order(series: Series, choice: Choice) -> list[int]:
    """Where a series stands in the lists of values that a choice gives."""
    lists = [(key, value) for key, value in choice.select.items() if isinstance(value, list)]
    return [next(i for i, one in enumerate(value) if _has(series, key, one)) for key, value in lists]


def _without(series: Series, choice: Choice) -> Series:
    """A series without the labels of which a choice takes several values."""
    lists = [key for key, value in choice.select.items() if isinstance(value, list)]
    return replace(series, labels={key: value for key, value in series.labels.items() if key not in lists})


def _in_turn(series: list[Series]) -> bool:
    """Whether series differ in no more than a label, and never hold the same frame: one goes on where another ends."""
    spans = [span for one in series for span in one.keys]
    alike = {(one.name, one.level, one.statistic) for one in series}
    return len(alike) == 1 and len(spans) == len(set(spans))


def _selected(series: Series, choice: Choice) -> bool:
    return all(_has(series, key, value) for key, value in choice.select.items())


def _has(series: Series, key: str, value: str | float | list[str | float]) -> bool:
    if isinstance(value, list):
        return any(_has(series, key, one) for one in value)
    if key == "statistic":
        return series.statistic == value
    if series.level and key in (series.level[0], "level"):
        return float(value) == series.level[1]
    held = series.labels.get(key)
    try:
        return held is not None and float(held) == float(value)  # "0001" is 1
    except ValueError:
        return str(held) == str(value)


def _told(series: list[Series], source: str) -> str:
    """What tells the series of a name apart, for people."""
    several = [one for one in series if one.name == source] or series
    kinds = []
    for one in several:
        told = [f"{one.level[0]} {one.level[1]:g}"] if one.level else []
        told += [one.statistic] if one.statistic else []
        kinds.append(" ".join([*told, *(f"{k} {v}" for k, v in one.labels.items())]) or "one without labels")
    return "; ".join(dict.fromkeys(kinds))


def _said(choice: Choice) -> str:
    return ", ".join(f"{key} {value}" for key, value in choice.select.items())
