"""Networks for tests, and what a network is built from, without a store."""

from types import SimpleNamespace
from typing import Any

from dsr.models.networks import Network


class Normalised(Network):
    """A network with batch normalisation: it has buffers that training changes."""

    def build(self, features: Any) -> Any:
        import torch

        first = torch.nn.Conv2d(len(features.channels), 4, 3, padding=1)
        return torch.nn.Sequential(first, torch.nn.BatchNorm2d(4), torch.nn.Conv2d(4, len(features.high), 1))


def features(
    channels: int,
    static: range = range(0),
    variables: int = 1,
    shape: tuple[int, int] = (16, 16),
    periodic: bool = False,
) -> Any:
    """What a network asks of `dsr.data.features.Features`."""
    return SimpleNamespace(
        channels=[f"channel {i}" for i in range(channels)],
        static_channels=static,
        high=[f"variable {i}" for i in range(variables)],
        shape=shape,
        periodic=periodic,
    )
