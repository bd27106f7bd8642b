"""Rule `adascale`: a gain measured in every update multiplies the rate (Johnson et al. 2020, arXiv:2007.05105)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dsr.errors import UserError
from dsr.scaling.rules import Rule, Scaled

if TYPE_CHECKING:
    from dsr.config import Experiment
    from dsr.scaling.noise import Noise


class AdaScale(Rule):
    """SGD only: 1 to N times the rate, by the gradients' measured noise."""

    gradual_warmup = False
    measures_gain = True

    def scale(self, experiment: Experiment, k: int) -> Scaled:
        if experiment.optimizer_type != "SGD":
            raise UserError(
                f"dsr.scaling.rule adascale is for SGD, not for {experiment.optimizer_type}: choose another rule or "
                "optimizer"
            )
        if not experiment.exact:
            raise UserError(
                f"dsr.scaling.rule adascale measures every slot's gradient, and cannot here: {experiment.inexact}"
            )
        return Scaled(1.0)

    def gain(self, noise: Noise, batch: int, k: int) -> float:
        """(sigma^2 + mu^2) / (sigma^2 / k + mu^2), algorithm 1 of the paper; in [1, k].

        sigma^2 = tr(Sigma) / batch is the variance of the sequential run's gradient, and mu^2 = |G|^2; `Noise` defines
        both so that they hold where slots have different weights, and tr(Sigma) is of a sample with as many values as
        there are on average: with k times the samples the variance is sigma^2 / k here too. A negative
        average counts as 0; where both are 0 the gain is 1. The paper averages with a decay of 1 - k/1000, starting
        from the first update's values; here the averages of `Noise` serve.
        """
        variance, square = max(noise.variance, 0.0) / batch, max(noise.square, 0.0)
        whole = variance + square
        return whole / (variance / k + square) if whole > 0 else 1.0
