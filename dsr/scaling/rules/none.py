"""Rule `none`: the rate as written, the control."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dsr.scaling.rules import Rule, Scaled

if TYPE_CHECKING:
    from dsr.config import Experiment


class Unscaled(Rule):
    """The rate as written: the control."""

    gradual_warmup = False

    def scale(self, experiment: Experiment, k: int) -> Scaled:
        return Scaled(1.0)
