"""The network after DeepDownscale's idea (arXiv:1808.05264): a residual on the interpolated field.

The inputs, interpolated and static fields, lie on the high grid. Squares of fold x fold cells are folded into channels
(Shi et al. 2016, arXiv:1609.05158), so that the trunk's convolutions run on a small grid and every cell of a square has
weights of its own. Two tails add up to the output: one unfolds the trunk; the other multiplies coefficients, one for
each square, with patterns on the high grid that are made from the static fields (as a lapse rate multiplies height, or
wind a slope) and, with `place`, are learned for each place. Both tails start at zero: an untrained network is the
base. No layer keeps statistics of a batch. Beyond an edge its last cells are repeated, but columns that go round the
earth go on at the other side.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from pydantic import Field

from dsr.models.networks import Network

if TYPE_CHECKING:
    import torch

    from dsr.data.features import Features


class DeepDownscale(Network):
    """Settings of the network `deepdownscale`."""

    width: int = Field(48, gt=0, description="channels of the hidden layers")
    blocks: int = Field(3, ge=0, description="residual blocks of two 3 x 3 convolutions")
    fold: int = Field(4, gt=0, description="high cells along each side that are folded into one hidden cell")
    patterns: int = Field(16, ge=0, description="patterns on the high grid, made from the static fields")
    place: bool = Field(False, description="learn as many patterns for every place: binds the network to its domain")
    dropout: float = Field(0.0, ge=0, lt=1)

    @property
    def is_local(self) -> bool:
        return self.place

    def build(self, features: Features) -> torch.nn.Module:
        return _module()(self, features)


@cache
def _module() -> Any:
    """The module's class, made when it is first needed, so that settings are read without torch."""
    import torch
    from torch import nn
    from torch.nn import functional

    def zero(layer: nn.Conv2d) -> nn.Conv2d:
        nn.init.zeros_(layer.weight)
        assert layer.bias is not None
        nn.init.zeros_(layer.bias)
        return layer

    class Convolution(nn.Conv2d):
        """3 x 3; beyond the edges, rows are repeated, and columns too unless they go round."""

        def __init__(self, inputs: int, outputs: int):
            super().__init__(inputs, outputs, 3, padding=1, padding_mode="replicate")

        def forward(self, x: torch.Tensor, wraps: bool = False) -> torch.Tensor:
            if not wraps:
                return super().forward(x)
            x = functional.pad(functional.pad(x, (1, 1, 0, 0), mode="circular"), (0, 0, 1, 1), mode="replicate")
            return functional.conv2d(x, self.weight, self.bias)

    class Block(nn.Module):
        """x + convolution(gelu(convolution(gelu(x))))"""

        def __init__(self, width: int, dropout: float):
            super().__init__()
            self.first = Convolution(width, width)
            self.second = Convolution(width, width)
            self.dropout = nn.Dropout(dropout)

        def forward(self, x: torch.Tensor, wraps: bool) -> torch.Tensor:
            inner = self.dropout(functional.gelu(self.first(functional.gelu(x), wraps)))
            return x + self.second(inner, wraps)

    class Module(nn.Module):
        """(n, inputs, Y, X) -> (n, outputs, Y, X), for any Y and X unless it learns values for each place.

        `static` are the numbers of the static fields among the inputs. Fields of `period` columns go round
        the earth; those of other widths, such as patches, do not.
        """

        period: int | None

        def __init__(self, settings: DeepDownscale, features: Features):
            super().__init__()
            self.period = features.shape[1] if features.periodic else None
            self.fold, self.static, self.outputs = settings.fold, features.static_channels, len(features.high)
            width, outputs = settings.width, self.outputs
            self.head = nn.Conv2d(len(features.channels) * self.fold**2, width, 1)
            self.blocks = nn.ModuleList(Block(width, settings.dropout) for _ in range(settings.blocks))
            self.tail = zero(nn.Conv2d(width, outputs * self.fold**2, 1))
            patterns = settings.patterns if self.static else 0
            self.terrain = None
            if patterns:
                self.terrain = nn.Sequential(Convolution(len(self.static), 16), nn.GELU(), Convolution(16, patterns))
            self.place = None
            if settings.place:
                rows, columns = (-(-size // self.fold) * self.fold for size in features.shape)
                self.place = nn.Parameter(0.1 * torch.randn(settings.patterns, rows, columns))
                patterns += settings.patterns
            self.coefficients = zero(nn.Conv2d(width, outputs * patterns, 1)) if patterns else None

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            height, width = inputs.shape[-2:]
            wraps = width == self.period
            if wraps and width % self.fold:
                inputs = functional.pad(inputs, (0, -width % self.fold, 0, 0), mode="circular")
            padding = (0, -inputs.shape[-1] % self.fold, 0, -height % self.fold)
            if any(padding):
                inputs = functional.pad(inputs, padding, mode="replicate")
            hidden = self.head(functional.pixel_unshuffle(inputs, self.fold))
            for block in self.blocks:
                hidden = block(hidden, wraps)
            hidden = functional.gelu(hidden)
            output = self.tail(hidden)
            if self.coefficients is not None:
                output = output + self._patterned(self.coefficients(hidden), inputs, wraps).to(output.dtype)
            return functional.pixel_shuffle(output, self.fold)[..., :height, :width]

        def _patterned(self, coefficients: torch.Tensor, inputs: torch.Tensor, wraps: bool) -> torch.Tensor:
            """The sum over patterns of coefficient x pattern, folded like the tail's output."""
            parts = []
            if self.terrain is not None:
                first, activation, second = self.terrain
                fields = inputs[:, self.static.start : self.static.stop]
                parts.append(second(activation(first(fields, wraps)), wraps))
            if self.place is not None:
                parts.append(self.place.expand(len(inputs), -1, -1, -1))
            patterns = functional.pixel_unshuffle(torch.cat(parts, 1), self.fold)
            folded = patterns.unflatten(1, (-1, self.fold**2))  # (n, pattern, cell of the square, y, x)
            each = coefficients.unflatten(1, (self.outputs, -1))  # (n, output, pattern, y, x)
            # einsum takes 4 times as long
            sums = [(each[:, output, :, None] * folded).sum(1) for output in range(self.outputs)]
            return torch.cat(sums, 1)

    return Module
