"""What a recipe says about one variable of an archive, and the series that this selects."""

from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from dsr.data.series import Series
from dsr.errors import UserError


@dataclass(frozen=True)
class Choice:
    """A variable's keys in a recipe."""

    source: str = ""  # its name in the archive, if different
    units: str = ""  # what to convert to; if the archive has no units, what they are
    accumulated: bool | Literal["run", "00 UTC"] | None = None  # when sums start; None: as the file says
    source_units: str = ""  # the actual unit of the values, whatever the file says
    select: dict[str, str | float | list[str | float]] = field(default_factory=dict)
    # ^ among series with the same name: {"isobaricInhPa": 850}; of a list, the first value that is not missing
    hours: float | None = None  # the length of the interval that a value covers
    missing: tuple[float, ...] = ()  # values that mean "missing"
    valid_range: tuple[float, float] | None = None  # values outside of it are missing
    clip: bool = False  # values beyond the physical bounds are set to the bound, and counted
    standard_name: str = ""
    long_name: str = ""

    __pydantic_config__: ClassVar = {"extra": "forbid"}  # for recipes, which contain choices


def by_name(series: list[Series]) -> dict[str, list[Series]]:
    """{name: the series of one variable at one level, with one statistic}.

    Series with the same name are renamed by what differs: the level ("t_850"; "q_isobaricInhPa_100" if kinds of level
    differ too), the statistic unless it is an instant ("t2m_maximum"), and other labels such as expver.
    """
    same_name: dict[str, list[Series]] = defaultdict(list)
    for s in series:
        same_name[s.name].append(s)
    result: dict[str, list[Series]] = {}
    for name, group in same_name.items():
        kinds = len({s.level and s.level[0] for s in group}) > 1
        levels = len({s.level for s in group}) > 1
        statistics = len({s.statistic for s in group}) > 1
        differing = [k for k in group[0].labels if len({s.labels.get(k) for s in group}) > 1]
        for s in group:
            parts = [name]
            if levels and s.level:
                parts += [*([s.level[0]] if kinds else []), f"{s.level[1]:g}"]
            if statistics and s.statistic not in ("point", ""):
                parts.append(s.statistic)
            parts += [str(s.labels.get(key, "")) for key in differing]
            result.setdefault("_".join(parts), []).append(s)
    return result


def choose(
    series: list[Series], key: str, choice: Choice, archive: str, accept_key_as_name: bool = False
) -> list[Series]:
    """The series that a choice selects. Raises UserError if there is none, or the choice is ambiguous."""
    named = by_name(series)
    present = {s.name for s in series}
    source = choice.source or key
    if accept_key_as_name and source not in named and source not in present:
        source = key
    matching = [s for s in series if s.name == source and _is_selected(s, choice)]
    if not matching and source in named:
        matching = [s for s in named[source] if _is_selected(s, choice)]
    if not matching:
        if source in present or source in named:
            selection = ", ".join(f"{key} {value}" for key, value in choice.select.items())
            raise UserError(f"{archive}: {source}: nothing has {selection}; it has {_summary(series, source)}")
        raise UserError(f"{archive}: no variable {source}; there are: {', '.join(sorted(named))}")
    matching.sort(key=lambda s: _rank(s, choice))
    kinds = by_name([_without_lists(s, choice) for s in matching])
    if len(kinds) > 1 and not _are_consecutive(matching):
        raise UserError(
            f'{archive}: {source} exists as {_summary(matching, source)}: choose with "select" in a recipe, or by one '
            f"of the names {', '.join(sorted(kinds))}"
        )
    return matching


def _rank(series: Series, choice: Choice) -> list[int]:
    """The position of a series in the lists of values that a choice gives."""
    lists = [(key, values) for key, values in choice.select.items() if isinstance(values, list)]
    return [next(i for i, value in enumerate(values) if _has(series, key, value)) for key, values in lists]


def _without_lists(series: Series, choice: Choice) -> Series:
    """A series without the labels for which a choice gives a list of values."""
    lists = [key for key, value in choice.select.items() if isinstance(value, list)]
    return replace(series, labels={key: value for key, value in series.labels.items() if key not in lists})


def _are_consecutive(series: list[Series]) -> bool:
    """Whether series differ only in a label and never hold the same frame: one continues where another ends."""
    spans = [span for s in series for span in s.keys]
    kinds = {(s.name, s.level, s.statistic) for s in series}
    return len(kinds) == 1 and len(spans) == len(set(spans))


def _is_selected(series: Series, choice: Choice) -> bool:
    return all(_has(series, key, value) for key, value in choice.select.items())


def _has(series: Series, key: str, value: str | float | list[str | float]) -> bool:
    if isinstance(value, list):
        return any(_has(series, key, v) for v in value)
    if key == "statistic":
        return series.statistic == value
    if series.level and key in (series.level[0], "level"):
        return float(value) == series.level[1]
    label = series.labels.get(key)
    try:
        return label is not None and float(label) == float(value)  # "0001" is 1
    except ValueError:
        return str(label) == str(value)


def _summary(series: list[Series], source: str) -> str:
    """What distinguishes the series of a name, for messages."""
    same_name = [s for s in series if s.name == source] or series
    kinds = []
    for s in same_name:
        words = [f"{s.level[0]} {s.level[1]:g}"] if s.level else []
        words += [s.statistic] if s.statistic else []
        kinds.append(" ".join([*words, *(f"{k} {v}" for k, v in s.labels.items())]) or "one without labels")
    return "; ".join(dict.fromkeys(kinds))
