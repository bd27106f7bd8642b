"""The table of networks, and what each of them is. To add one, write its file and add its line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dsr.components import Component, Family

if TYPE_CHECKING:
    import torch

    from dsr.data.features import Features


class Network(Component):
    """A network's settings, and how it is built. A file imports torch only in `build`."""

    @property
    def is_local(self) -> bool:
        """Whether it learns values for each place: it then needs whole fields, and serves no other domain."""
        return False

    def build(self, features: Features) -> torch.nn.Module:
        """A fresh module: (n, channel, Y, X) float32 -> (n, variable, Y, X) float32, both normalised.

        The channels are `features.channels`, those of `features.static_channels` the static fields; the variables are
        `features.high`; (Y, X) is `features.shape`, or a patch's. The output is added to the interpolated field: an
        output of zero is the interpolation. The same bits on any number of GPUs need a layer to keep nothing of one
        batch for the next: no batch normalisation.
        """
        raise NotImplementedError


NETWORKS = Family(
    "network",
    "dsr.model",
    Network,
    {"deepdownscale": "dsr.models.networks.deepdownscale:DeepDownscale"},
    default="deepdownscale",
)
