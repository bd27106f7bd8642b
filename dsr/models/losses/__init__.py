"""The table of losses, and what each of them is. To add one, write its file and add its line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from dsr.components import Component, Family
from dsr.errors import UserError
from dsr.settings import nearest

if TYPE_CHECKING:
    from torch import Tensor


class Loss(Component):
    """What training makes small, per point. A file needs no import of torch: tensors have the methods.

    The loss of an update is, per variable, the mean over all its points that have a target, and over the variables the
    mean with the `weights`.
    """

    weights: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict, description="what variables count, beside 1 for those that are not named"
    )

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """The error of every point: all are (n, variable, Y, X) float32, and normalised.

        Where there is no target it is 0, and the error must be finite, but does not count.
        """
        raise NotImplementedError

    def shares(self, variables: list[str]) -> list[float]:
        """The weights of these variables, so that their sum is 1. Raises UserError for a weight of another one."""
        for name in self.weights:
            if name not in variables:
                raise UserError(f"dsr.loss.weights: {name} is not learnt here{nearest(name, variables)}")
        weights = [self.weights.get(name, 1.0) for name in variables]
        return [weight / sum(weights) for weight in weights]


LOSSES = Family(
    "loss", "dsr.loss", Loss, {"mse": "dsr.models.losses.mse:MSE", "mae": "dsr.models.losses.mae:MAE"}, default="mse"
)
