"""The average of the weights over the last updates, which is validated and saved in their place."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


class Average:
    """An exponential moving average of a network's trained parameters, in float32.

    After update t, counted from 1, it moves by 1 - d of its distance to the weights, with d = min(decay, 1 - 1/t): it
    is the mean over all updates at first, and never holds the weights that training began with. Plain elementwise
    operations on weights that are the same on every rank: so is it. Memory: a float32 copy of the weights.
    """

    def __init__(self, network: torch.nn.Module, decay: float, values: dict[str, Tensor] | None = None):
        self.decay = decay
        self.weights = {name: each for name, each in network.named_parameters() if each.requires_grad}
        given = values or self.weights
        self.values = {
            name: given[name].detach().to(each.device, torch.float32, copy=True) for name, each in self.weights.items()
        }

    @torch.no_grad()
    def update(self, updates: int) -> None:
        """Take in the weights after this number of updates."""
        weights = [each.float() for each in self.weights.values()]
        torch._foreach_lerp_(list(self.values.values()), weights, 1 - min(self.decay, 1 - 1 / updates))

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """The network has the average for its weights inside, and afterwards its own, bit by bit."""
        own = {name: each.detach().clone() for name, each in self.weights.items()}
        self._set(self.values)
        try:
            yield
        finally:
            self._set(own)

    @torch.no_grad()
    def _set(self, values: dict[str, Tensor]) -> None:
        for name, each in self.weights.items():
            each.copy_(values[name])
