"""Rule `linear`: k times the rate for k times the batch (Goyal et al. 2017, arXiv:1706.02677)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dsr.scaling.rules import Rule, Scaled

if TYPE_CHECKING:
    from dsr.config import Experiment


class Linear(Rule):
    """N times the rate."""

    def scale(self, experiment: Experiment, k: int) -> Scaled:
        return Scaled(float(k))
