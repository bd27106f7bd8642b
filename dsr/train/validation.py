"""Skill on the validation split during training, in physical units, the same bits on any number of ranks."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.distributed as dist

from dsr.data.store import Store, Variable
from dsr.data.stream import Batch, Stream
from dsr.errors import UserError
from dsr.models.downscaler import Downscaler
from dsr.scaling.tree import shares
from dsr.train import watch
from dsr.train.reduce import gather_ordered
from dsr.verify.metrics.rmse import RMSE
from dsr.verify.scoring import Pair, Truth, pooled

if TYPE_CHECKING:
    from dsr.config import Data


@dataclass
class Skill:
    """The scores of one validation."""

    rmse: dict[str, float]  # per variable, physical units
    bicubic: dict[str, float]  # the same of bicubic interpolation, for the variables that the low data have
    score: float  # mean over variables of RMSE / scale: the smaller the better

    @property
    def skill(self) -> dict[str, float]:
        """1 - RMSE / RMSE of bicubic, per variable."""
        return {name: 1 - self.rmse[name] / self.bicubic[name] for name in self.bicubic if self.bicubic[name] > 0}


class Validation:
    """The validation split in batches that are fixed by the sample's number, dealt to the ranks in blocks."""

    def __init__(self, store: Store, downscaler: Downscaler, data: "Data", batch: int, weights: np.ndarray):
        self.downscaler, self.features, self.batch = downscaler, downscaler.features, batch
        self.stream = Stream(store, self.features, data, "validation", seed=0)
        self.weights = weights.astype(np.float64)  # (Y, X): the cells' areas
        self.metric = RMSE()

    def measure(self, device: torch.device) -> Skill:
        """Run the network over the split; every rank must call it. Sums are taken in sample order in float64."""
        count = self.stream.count
        starts = list(range(0, count, self.batch))
        mine = shares(len(starts), dist.get_world_size())[dist.get_rank()]
        rows = []
        for start in (starts[i] for i in mine):
            samples = np.arange(start, min(start + self.batch, count))
            rows.append(self._errors(samples))
            watch.beat()
        variables = len(self.features.high)
        own = np.concatenate(rows) if rows else np.zeros((0, variables, 3))
        tensor = torch.from_numpy(own).to(device)
        first = starts[mine.start] if len(mine) else 0
        whole = gather_ordered(tensor, first, count).cpu().numpy()
        names = [v.name for v in self.features.high]
        present = whole[..., 2].any(0)
        if not present.all():
            raise UserError(f"the validation split has no value of {names[int(np.argmin(present))]} to score")
        rmse, bicubic = (pooled(self.metric, whole[..., [i]], whole[..., 2]) for i in (0, 1))
        seen = {v.name for v in self.features.low}
        return Skill(
            rmse=dict(zip(names, rmse.tolist(), strict=True)),
            bicubic={name: value for name, value in zip(names, bicubic.tolist(), strict=True) if name in seen},
            score=float(np.mean(rmse / self.features.scale)),
        )

    def first_sample(self) -> Iterator[tuple[Variable, dict[str, np.ndarray]]]:
        """Each variable with its fields (Y, X) of the first sample: low, bicubic, network and truth, by name."""
        batch, *predicted = self._predict(np.zeros(1, np.int64))
        truth = np.where(batch.mask > 0, batch.truth, np.nan)
        nearest = self.stream.nearest(0)
        for i, variable in enumerate(self.features.high):
            panels = {"low": nearest[variable.name]} if variable.name in nearest else {}
            panels |= {name: fields[0, i] for name, fields in zip(("network", "bicubic"), predicted, strict=True)}
            yield variable, panels | {"truth": truth[0, i]}

    def _predict(self, samples: np.ndarray) -> tuple[Batch, np.ndarray, np.ndarray]:
        """The samples' batch, and what the network and interpolation make of it, both (n, variable, Y, X)."""
        batch = self.stream.read(0, samples)
        self.downscaler.network.eval()  # training takes it back at its next update
        return batch, *self.downscaler.predict(batch.low, batch.scalars)

    def _errors(self, samples: np.ndarray) -> np.ndarray:
        """(n, variable, 3) float64: what RMSE sums for the network and for the base, and the weights."""
        batch, *predictions = self._predict(samples)
        truth = Truth(batch.truth, batch.mask * self.weights)
        sums = [self.metric.sums(Pair(prediction, truth)) for prediction in predictions]
        return np.concatenate([*sums, truth.total_weight[..., None]], -1)
