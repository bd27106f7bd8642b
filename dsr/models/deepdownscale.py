"""The network after DeepDownscale's idea (arXiv:1808.05264): a residual on the interpolated field.

The interpolated fields and the static ones lie on the high grid. Squares of fold x fold cells are folded into
channels (Shi et al. 2016, arXiv:1609.05158), so that convolutions run on a small grid and every cell of a square has
weights of its own; the last layer unfolds them. The last layer starts at zero: an untrained network is the base.
No layer keeps statistics of a batch.
"""

import torch
from torch import nn
from torch.nn import functional

from dsr.models import DeepDownscale as Settings


class Block(nn.Module):
    """x + convolution(gelu(convolution(gelu(x))))"""

    def __init__(self, width: int, dropout: float):
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1, padding_mode="replicate")
        self.second = nn.Conv2d(width, width, 3, padding=1, padding_mode="replicate")
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = self.dropout(functional.gelu(self.first(functional.gelu(x))))
        return x + self.second(inner)


class Network(nn.Module):
    """(n, inputs, Y, X) -> (n, outputs, Y, X); any Y and X, unless it learns places."""

    def __init__(self, settings: Settings, inputs: int, outputs: int, shape: tuple[int, int]):
        super().__init__()
        self.fold, width = settings.fold, settings.width
        self.head = nn.Conv2d(inputs * self.fold**2, width, 1)
        self.blocks = nn.ModuleList(Block(width, settings.dropout) for _ in range(settings.blocks))
        self.tail = nn.Conv2d(width, outputs * self.fold**2, 1)
        nn.init.zeros_(self.tail.weight)
        nn.init.zeros_(self.tail.bias)  # type: ignore[arg-type]
        self.place: nn.Parameter | None = None
        if settings.place:
            rows, columns = (-(-size // self.fold) for size in shape)
            self.place = nn.Parameter(torch.zeros(2, width, rows, columns))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        height, width = inputs.shape[-2:]
        padding = (0, -width % self.fold, 0, -height % self.fold)
        if any(padding):
            inputs = functional.pad(inputs, padding, mode="replicate")
        hidden = self.head(functional.pixel_unshuffle(inputs, self.fold))
        if self.place is not None:
            hidden = hidden * (1 + self.place[0]) + self.place[1]
        for block in self.blocks:
            hidden = block(hidden)
        return functional.pixel_shuffle(self.tail(functional.gelu(hidden)), self.fold)[..., :height, :width]


def build(settings: Settings, inputs: int, outputs: int, shape: tuple[int, int]) -> Network:
    """The network for `inputs` channels and `outputs` variables on a high grid of `shape` (Y, X)."""
    return Network(settings, inputs, outputs, shape)
