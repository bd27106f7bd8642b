"""A trained network over a whole domain: from the forecast that a user has to a CF file. Needs no deepspeed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dsr import models
from dsr.config import Model
from dsr.data.domain import Domain
from dsr.data.features import Features
from dsr.errors import UserError
from dsr.run import read_model

if TYPE_CHECKING:
    import torch

POINTS = 2**20  # high-resolution points that go through the network at once, so that memory is bounded


@dataclass(frozen=True)
class Network:
    """A trained network, from physical low-resolution fields to physical high-resolution fields."""

    module: torch.nn.Module
    features: Features
    domain: Domain
    description: dict[str, Any]  # model.json

    def __call__(self, low: np.ndarray, init_time: np.ndarray, lead_time: np.ndarray) -> np.ndarray:
        """Predict n samples, a few at a time.

        low: (n, [member,] variable, y, x) float32, physical units; init_time and lead_time: (n) int64 seconds.
        Returns (n, variable, Y, X) float32, physical units, clipped at the variables' bounds. Raises UserError where
        low values are missing and the features do not fill them.
        """
        import torch

        device = next(self.module.parameters()).device
        height, width = self.features.shape
        high = np.empty((len(low), len(self.features.high), height, width), np.float32)
        batch = max(1, POINTS // (height * width))
        for start in range(0, len(low), batch):
            some = slice(start, start + batch)
            inputs, base = self.features.inputs(low[some], init_time[some], lead_time[some])
            with torch.inference_mode():
                output = self.module(torch.from_numpy(inputs).to(device)).cpu().numpy()
            high[some] = self.features.physical(base, output)
        return high


def load(model_folder: Path) -> Network:
    """Read a network from a run's model folder, verified, onto the accelerator where there is one.

    Raises UserError where there is none, and `dsr.run.Damaged` where it is not what was written.
    """
    import torch

    if not (model_folder / "model.json").exists():
        raise UserError(f"{model_folder}: no trained network there; it is written at a run's first validation")
    parameters, tensors, description = read_model(model_folder)
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    features = Features.restore(description["features"], arrays)
    domain = Domain.restore(description["domain"], arrays)
    module = models.build(Model.model_validate(description["network"]), features)
    module.load_state_dict(parameters)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return Network(module.float().eval().to(device), features, domain, description)
