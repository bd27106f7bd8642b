"""The objective: per variable, one sum over the valid points of an update, divided by their number in the whole update.

A slot gives its part of that sum, and the parts of all slots and ranks are added as their gradients are: so neither the
loss nor its gradient depends on how the points lie in slots, and a slot without a point counts nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from dsr.errors import UserError
from dsr.train.reduce import gather_ordered

if TYPE_CHECKING:
    from dsr.models.losses import Loss


@dataclass
class Objective:
    """What one update minimises. The same on every rank."""

    loss: Loss
    factors: torch.Tensor  # (variable) float32: a variable's share of the loss, over the number of its valid points
    weights: list[float]  # by slot, their sum is 1: which share of the update's points it has, averaged over variables

    def of_slot(self, output: torch.Tensor, target: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """A slot's part of the update's loss, a scalar: all are (n, variable, Y, X) float32.

        Raises UserError where a user's own loss does not give the error of every point.
        """
        errors = self.loss(output, target)
        if errors.shape != target.shape:
            raise UserError(
                f"dsr.loss {self.loss.name} gives a tensor of {tuple(errors.shape)}: it must give the error of every "
                f"point, {tuple(target.shape)}"
            )
        return ((errors * mask).sum((0, 2, 3)) * self.factors).sum()


def objective(
    loss: Loss, shares: list[float], counts: np.ndarray, first: int, slots: int, device: torch.device
) -> Objective:
    """The objective of an update of so many slots, in which the variables have these shares.

    `counts` (slot, variable) int64 are the valid points of all slots, or of this rank's, which begin with slot `first`:
    then every rank must call this. A variable without a valid point adds nothing to the update's loss.
    """
    if len(counts) < slots:
        counts = gather_ordered(torch.from_numpy(counts).to(device), first, slots).cpu().numpy()
    totals = counts.sum(0)
    factors = np.where(totals > 0, shares / np.maximum(totals, 1), 0.0)
    weights = (counts * factors).sum(1)
    weights /= weights.sum() or 1.0  # below 1 where a variable has no point
    return Objective(loss, torch.from_numpy(factors.astype(np.float32)).to(device), weights.tolist())
