"""A network with its two ends, as one module on its device: physical low fields in, physical high fields out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from dsr.data.features import SCALARS, Features
from dsr.data.interpolate import Window
from dsr.data.sun import solar_fields
from dsr.models.bicubic import bicubic, keep

if TYPE_CHECKING:
    from dsr.data.stream import Batch


@dataclass
class Example:
    """What one slot learns from: float32 on the network's device, normalised."""

    inputs: Tensor  # (n, channel, Y, X)
    target: Tensor  # (n, variable, Y, X): what the network's output should be, 0 where it does not count
    mask: Tensor  # (n, variable, Y, X): 1 where the target counts, elsewhere 0


class Downscaler(nn.Module):
    """What `features` describe, around `network`. Training, validation and prediction all run this.

    Fields are float32, and means are subtracted before anything else, so that no digit is lost on their size. What the
    network adds to, the base, is among its inputs: the interpolated low fields, in units of their standard deviation.
    """

    low_mean: Tensor  # (low variable, 1, 1) physical units, as are the others
    low_std: Tensor  # (low variable, and again where there is spread, 1, 1)
    base_channel: Tensor  # (high variable) int32: the input that shows it
    base_std: Tensor  # (high variable, 1, 1): of that input; 0 where the low data lack the variable
    base_mean: Tensor
    scale: Tensor
    lower: Tensor
    upper: Tensor
    places: Tensor  # (static and then sun, Y, X)

    def __init__(self, features: Features, network: nn.Module):
        super().__init__()
        self.features, self.network = features, network
        self.bicubic = bicubic(features.low_index, features.low_shape)
        low_std = features.statistic("low", features.low, "std")
        mean, std = (features.statistic("static", features.static, key)[:, None, None] for key in ("mean", "std"))
        places = np.nan_to_num((features.static_fields - mean) / std)
        if features.latitude is not None and features.longitude is not None:
            places = np.concatenate([places, solar_fields(features.latitude, features.longitude)])
        names = [v.name for v in features.low]
        shared = [names.index(v.name) if v.name in names else None for v in features.high]
        means = [
            features.statistics["high" if channel is None else "low"][v.name]["mean"]
            for v, channel in zip(features.high, shared, strict=True)
        ]
        per_variable = {
            "low_mean": features.statistic("low", features.low, "mean"),
            "low_std": np.tile(low_std, 2 if features.spread else 1),
            "base_std": np.array([0.0 if channel is None else low_std[channel] for channel in shared]),
            "base_mean": np.array(means),
            "scale": features.scale,
            "lower": np.array([-np.inf if v.lower is None else v.lower for v in features.high]),
            "upper": np.array([np.inf if v.upper is None else v.upper for v in features.high]),
        }
        keep(self, **{name: values[:, None, None] for name, values in per_variable.items()})
        keep(self, base_channel=np.array([channel or 0 for channel in shared]), places=places)

    def forward(self, low: Tensor, scalars: Tensor) -> tuple[Tensor, Tensor]:
        """The prediction of n samples, and its base: (n, variable, Y, X) float32, physical units, within bounds.

        low: (n, [member,] variable, y, x) and scalars: (n, scalar), float32, as `Features.arguments` gives them.
        """
        inputs = self.inputs(low, scalars)
        anomaly = self._anomaly(inputs)
        change = self.scale * self.network(inputs.to(next(self.network.parameters()).dtype)).float()
        return self._physical(anomaly + change), self._physical(anomaly)

    @torch.no_grad()
    def predict(self, low: np.ndarray, scalars: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same from and to NumPy's arrays, on this module's device."""
        prediction, base = self(*(torch.from_numpy(given).to(self.scale.device) for given in (low, scalars)))
        return prediction.cpu().numpy(), base.cpu().numpy()

    def inputs(self, low: Tensor, scalars: Tensor, windows: list[Window] | None = None) -> Tensor:
        """The network's inputs (n, channel, Y, X) float32, on the high grid or on one window of it for each sample."""
        fields = self._normalised(low)
        count, channels = fields.shape[:2]
        if windows is None:
            high = self.bicubic(fields.flatten(0, 1))
            high = high.view(count, channels, *high.shape[1:])
            places = self.places[None]
        else:
            high = torch.stack([self.bicubic(field, window) for field, window in zip(fields, windows, strict=True)])
            places = torch.stack([self.places[:, rows, columns] for rows, columns in windows])
        shape, static = high.shape[-2:], len(self.features.static)
        parts = [high, places[:, :static].expand(count, -1, -1, -1)]
        numbers = scalars[:, :, None, None]
        for extra in self.features.extras:
            own, numbers = numbers.tensor_split([SCALARS[extra]], 1)
            if extra == "solar_zenith":
                parts += [reduce(torch.add, (own * places[:, static:]).split(1, 1))]
            else:
                parts += [own.expand(-1, -1, *shape)]
        return torch.cat(parts, 1)

    def example(self, batch: Batch, noise: float = 0.0) -> Example:
        """A batch of training, on this module's device, with noise of this standard deviation on the low channels.

        The base stays as it is. Each sample's noise has a seed of its own: other samples and ranks change nothing.
        """
        device = self.scale.device
        given = batch.low, batch.scalars, batch.truth, batch.mask
        low, scalars, truth, mask = (torch.from_numpy(array).to(device) for array in given)
        inputs = self.inputs(low, scalars, batch.windows)
        target = truth.nan_to_num(0.0, 0.0, 0.0).sub_(self.base_mean).sub_(self._anomaly(inputs)).div_(self.scale)
        if batch.seeds:
            random = torch.Generator(device)
            for field, seed in zip(inputs[:, : self.features.static_channels.start], batch.seeds, strict=True):
                field += noise * torch.randn(field.shape, generator=random.manual_seed(seed), device=device)
        return Example(inputs, target.mul_(mask), mask)

    def _normalised(self, low: Tensor) -> Tensor:
        """(n, [member,] variable, y, x) -> (n, variable and spread, y, x); members are added in their order."""
        features, anomalies = self.features, low - self.low_mean
        if not features.ensemble:
            return anomalies / self.low_std
        members = anomalies.unbind(1)
        if features.members == "control":
            return members[0] / self.low_std
        mean = reduce(torch.add, members) / len(members)
        if not features.spread:
            return mean / self.low_std
        squares = (anomalies - mean[:, None]).square_().unbind(1)
        spread = (reduce(torch.add, squares) / (len(members) - 1)).sqrt_()
        return torch.cat([mean, spread], 1).div_(self.low_std)

    def _anomaly(self, inputs: Tensor) -> Tensor:
        """(n, variable, Y, X): how far the base is from its mean."""
        return inputs.index_select(1, self.base_channel) * self.base_std

    def _physical(self, anomaly: Tensor) -> Tensor:
        return torch.clamp(anomaly + self.base_mean, self.lower, self.upper)
