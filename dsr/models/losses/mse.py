"""The mean squared error."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dsr.models.losses import Loss

if TYPE_CHECKING:
    from torch import Tensor


class MSE(Loss):
    """The mean squared error."""

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        return (output - target).square()
