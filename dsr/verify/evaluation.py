"""The record of an evaluation: scores of every method by variable and lead time, and its JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any

from dsr.verify.intervals import Difference

Scores = dict[str, dict[str, float | None]]  # {metric: {method: value}}; None if it is not finite


@dataclass(frozen=True)
class Skill:
    """Scores of one variable over some samples.

    `difference` holds, for each baseline with an RMSE, the network's RMSE minus the baseline's. `decided` says whether
    the network differs from the best baseline, by a false discovery rate over the whole evaluation; None if there is
    no p-value.
    """

    scores: Scores
    winner: str | None  # the method with the lowest RMSE
    difference: dict[str, Difference]
    decided: bool | None

    @property
    def rmse(self) -> dict[str, float]:
        """{method: RMSE} in the variable's units, of the methods that have one."""
        return {method: value for method, value in self.scores["rmse"].items() if value is not None}

    @property
    def best_baseline(self) -> str | None:
        """The baseline with the lowest RMSE."""
        rmse = self.rmse
        return min((method for method in rmse if method != "network"), key=lambda method: rmse[method], default=None)


@dataclass(frozen=True)
class LeadSkill(Skill):
    """Scores over the samples of one lead time (in seconds)."""

    lead_time: int
    samples: int


@dataclass(frozen=True)
class Spectrum:
    """Mean variance of a mode, {method or "truth": [power]} in units squared, at decreasing wavelengths."""

    wavelength_km: list[float]
    power: dict[str, list[float | None]]


@dataclass(frozen=True)
class VariableSkill(Skill):
    """Scores over all samples, and over those of each lead time if there are several."""

    units: str
    long_name: str
    leads: list[LeadSkill]
    spectrum: Spectrum


@dataclass(frozen=True)
class RidgeFit:
    """How many predictors the ridge regression has, and its penalties (band of tiles, variable)."""

    predictors: int
    penalties: list[list[float]]


@dataclass(frozen=True)
class Evaluation:
    """The skill of a network and of every baseline on one split of a store."""

    split: str
    times: int  # distinct valid times
    samples: int
    runs: int  # distinct init times
    independent_blocks: int  # days of init times, which count as independent cases
    methods: dict[str, str]  # {method: label}
    omitted: dict[str, str]  # {baseline: why the store does not allow it}
    ridge: RidgeFit
    lapse_rates: dict[str, float]  # {variable: units per m}
    notes: list[str]
    variables: dict[str, VariableSkill]

    def skills(self) -> Iterator[Skill]:
        """The skill of every variable, each followed by those of its lead times."""
        for variable in self.variables.values():
            yield variable
            yield from variable.leads

    def to_json(self) -> dict[str, Any]:
        """The contents of evaluation.json: as the record, but with the metrics of a skill beside its other keys."""
        values = asdict(self)
        for name, variable in values["variables"].items():
            leads = [_flat(lead) for lead in variable["leads"]]
            values["variables"][name] = {**_flat(variable), "leads": leads}
        return values

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Evaluation:
        """The record that `to_json` wrote."""
        variables = {
            name: _skill(
                VariableSkill,
                {
                    **variable,
                    "leads": [_skill(LeadSkill, lead) for lead in variable["leads"]],
                    "spectrum": Spectrum(**variable["spectrum"]),
                },
            )
            for name, variable in values["variables"].items()
        }
        return cls(**{**values, "ridge": RidgeFit(**values["ridge"]), "variables": variables})


def _flat(skill: dict[str, Any]) -> dict[str, Any]:
    return {**skill["scores"], **{key: value for key, value in skill.items() if key != "scores"}}


def _skill(kind: type[Any], values: dict[str, Any]) -> Any:
    """A `kind` of Skill; every key that is not one of its fields is a metric."""
    names = {field.name for field in fields(kind)}
    known = {key: value for key, value in values.items() if key in names}
    known["difference"] = {
        method: Difference(d["rmse"], d["interval"] and tuple(d["interval"]), d["p"])
        for method, d in values["difference"].items()
    }
    return kind(scores={key: value for key, value in values.items() if key not in names}, **known)
