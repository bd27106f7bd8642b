"""The table of learning-rate rules, and what each of them is. To add one, write its file and add its line."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from dsr.components import Component, Family

if TYPE_CHECKING:
    from dsr.config import Experiment
    from dsr.scaling.noise import Noise


@dataclass(frozen=True)
class Scaled:
    """What a rule changes for a larger batch."""

    factor: float  # multiplies the learning rate
    optimizer: dict[str, Any] = field(default_factory=dict)  # other optimizer parameters, with their new values
    worth: float | None = None  # sequential updates that one update replaces; None: the budget alone decides


class Rule(Component):
    """How the learning rate follows from a batch that is k times as large."""

    gradual_warmup: ClassVar[bool] = True  # linear from the sequential rate to the rule's (arXiv:1706.02677)
    measures_gain: ClassVar[bool] = False  # see `gain`

    def scale(self, experiment: Experiment, k: int) -> Scaled:
        """What changes for a batch that is k times the config's. Raises UserError where the rule does not apply."""
        raise NotImplementedError

    def gain(self, noise: Noise, batch: int, k: int) -> float:
        """How many sequential updates the coming update replaces, from the gradient noise measured so far.

        Only where `measures_gain`: the gain multiplies the learning rate, and the sum of all gains is the run's
        progress in sequential updates, at which the schedule is read and the run ends. `batch` is the sequential run's.
        """
        raise NotImplementedError


RULES = Family(
    "learning-rate rule",
    "dsr.scaling.rule",
    Rule,
    {
        "none": "dsr.scaling.rules.none:Unscaled",
        "linear": "dsr.scaling.rules.linear:Linear",
        "sqrt": "dsr.scaling.rules.sqrt:SquareRoot",
        "adascale": "dsr.scaling.rules.adascale:AdaScale",
        "adam-sde": "dsr.scaling.rules.adam_sde:AdamSDE",
    },
    default="linear",
)


def rule_of(experiment: Experiment, slots: int, auto: dict[str, Any] | None) -> Rule:
    """The rule of a run: `none` if its slots are the config's own, in mode auto `noise-scale`, else the config's."""
    from dsr.scaling.rules.noise_scale import NoiseScale

    if slots == experiment.accumulation:
        return RULES.make("none")
    return NoiseScale(noise_scale=auto["noise_scale"]) if auto else experiment.dsr.scaling.rule
