"""Rule `sqrt`: sqrt(k) times the rate (Krizhevsky 2014, arXiv:1404.5997; Hoffer et al. 2017, arXiv:1705.08741)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from dsr.scaling.rules import Rule, Scaled

if TYPE_CHECKING:
    from dsr.config import Experiment


class SquareRoot(Rule):
    """sqrt(N) times the rate."""

    def scale(self, experiment: Experiment, k: int) -> Scaled:
        return Scaled(math.sqrt(k))
