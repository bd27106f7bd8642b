"""The mean squared error."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dsr.models.losses import Loss

if TYPE_CHECKING:
    from torch import Tensor


class MSE(Loss):
    """The mean squared error over the target values that are there."""

    def __call__(self, output: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        return ((output - target) * mask).square().sum() / mask.sum().clamp(min=1)
