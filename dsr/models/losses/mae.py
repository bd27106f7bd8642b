"""The mean absolute error."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dsr.models.losses import Loss

if TYPE_CHECKING:
    from torch import Tensor


class MAE(Loss):
    """The mean absolute error."""

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        return (output - target).abs()
