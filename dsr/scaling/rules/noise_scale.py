"""Rule `noise-scale` of mode auto: rate and updates by the noise scale (McCandlish et al. 2018, arXiv:1812.06162)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from dsr.scaling.rules import Rule, Scaled

if TYPE_CHECKING:
    from dsr.config import Experiment


class NoiseScale(Rule):
    """The rate by the worth of an update (`updates_worth`) with SGD and LARS, by its square root with all others.

    SGD's best rate is proportional to 1 / (1 + B_noise/B), and so to the worth; Adam's to a power of it between 1/2 and
    1, of which the cautious 1/2 is used.
    """

    gradual_warmup = False
    name: str = "noise-scale"
    noise_scale: float | None  # in samples; None: not measured

    def scale(self, experiment: Experiment, k: int) -> Scaled:
        batch = experiment.accumulation * experiment.micro_batch
        worth = updates_worth(self.noise_scale, batch, k * batch)
        plain = experiment.deepspeed["optimizer"]["type"] == "SGD"  # of LARS too
        return Scaled(worth if plain else math.sqrt(worth), worth=worth)


def updates_worth(noise_scale: float | None, config_batch: int, batch: int) -> float:
    """How many updates of `config_batch` samples one of `batch` samples, at least as many, replaces.

    (1 + B_noise/config_batch) / (1 + B_noise/batch), since a target takes S = S_min (1 + B_noise/B) updates: a number
    in [1, batch/config_batch]. It is AdaScale's gain with a noise scale that is measured once. None, not measured: 1.
    """
    return 1.0 if noise_scale is None else (1 + noise_scale / config_batch) / (1 + noise_scale / batch)
