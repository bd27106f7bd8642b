"""What a network is built from, without a store."""

from types import SimpleNamespace
from typing import Any


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
