"""The mean absolute error."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dsr.models.losses import Loss

if TYPE_CHECKING:
    from torch import Tensor


class MAE(Loss):
    """The mean absolute error over the target values that are there."""

    def __call__(self, output: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        return ((output - target) * mask).abs().sum() / mask.sum().clamp(min=1)
