"""The table of losses, and what each of them is. To add one, write its file and add its line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dsr.components import Component, Family

if TYPE_CHECKING:
    from torch import Tensor


class Loss(Component):
    """What training makes small. A file needs no import of torch: tensors have the methods."""

    def __call__(self, output: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """The loss of one slot, a scalar.

        All are (n, variable, Y, X) float32 and normalised; the mask is 1 where the target has a value and else 0, where
        the target is 0 too. A slot without any value must give 0. An update's loss is the mean over its slots.
        """
        raise NotImplementedError


LOSSES = Family(
    "loss", "dsr.loss", Loss, {"mse": "dsr.models.losses.mse:MSE", "mae": "dsr.models.losses.mae:MAE"}, default="mse"
)
