"""The loader: which samples a slot holds, and their arrays, read ahead of training."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import cycle, tee
from typing import TYPE_CHECKING

import numpy as np

from dsr.data.buffers import Buffers
from dsr.data.counts import count_rows, count_values
from dsr.data.interpolate import Interpolation, Window
from dsr.data.order import order
from dsr.errors import UserError

if TYPE_CHECKING:
    from dsr.config import Data
    from dsr.data.features import Features
    from dsr.data.store import Store

AHEAD, BYTES = 8, 2**28  # limits of reading ahead: batches, and bytes of low and truth
BLOCK = 4096  # samples whose order is computed at once


@dataclass
class Batch:
    """What is read of a few samples; the rest is made of it where the network runs (`dsr.models.downscaler`)."""

    samples: np.ndarray  # (n) int64: their numbers in the split
    low: np.ndarray  # (n, [member,] variable, y, x) float32, physical units, without gaps
    scalars: np.ndarray  # (n, scalar) float32, see `Features.scalars`
    truth: np.ndarray  # (n, variable, Y, X) float32, physical units
    mask: np.ndarray  # (n, variable, Y, X) float32: 1 where the truth counts, 0 where it is missing or of another split
    windows: list[Window] | None  # where on the high grid the truths lie, if they are patches
    seeds: list[int] | None  # of each sample's noise, where there is any


def training_fields(store: Store, data: Data) -> np.ndarray:
    """(n) int64: the low samples of the training split, or of the `data.samples` of it that are to be used.

    Runs stay whole, so that it is the most runs, evenly spread in time, that hold no more samples. Raises UserError
    where the split has fewer, or a run alone holds more.
    """
    rows = store.samples("train")
    if data.samples is None:
        return rows
    if data.samples > len(rows):
        raise UserError(f"dsr.data.samples {data.samples}: the training split has {len(rows)}")
    runs, run = np.unique(store.low_init_time[rows], return_inverse=True)
    for count in range(len(runs) * data.samples // len(rows) + 1, 0, -1):
        chosen = rows[np.isin(run, np.arange(count) * len(runs) // count)]
        if len(chosen) <= data.samples:
            return chosen
    raise UserError(f"dsr.data.samples {data.samples}: a run of the training split has more, and runs stay whole")


def training_samples(store: Store, data: Data) -> int:
    """How many samples there are to train on: the training fields, or with patches the patches that they hold."""
    fields = len(training_fields(store, data))
    if data.patch is None:
        return fields
    _origins(store.mask("train"), data.patch)
    return fields * max(1, int(store.mask("train").sum()) // data.patch**2)


class Stream:
    """The samples of one split as batches.

    Memory: a batch of n samples with v values each (low and truth) takes 4 n v bytes. There are
    a + 2 such batches, of which a = min(AHEAD, max(1, floor(BYTES / (4 n v)))) are read ahead.
    """

    def __init__(
        self,
        store: Store,
        features: Features,
        data: Data,
        split: str,
        seed: int,
        beat: Callable[[], None] = lambda: None,  # called now and then by what takes long
    ):
        self.store, self.features, self.seed, self.beat = store, features, seed, beat
        self.patch, self.noise = (data.patch, data.noise) if split == "train" else (None, 0.0)
        self.rows = training_fields(store, data) if split == "train" else store.samples(split)
        self.inside = store.mask(split)
        if self.patch is None:
            self.count = len(self.rows)
        else:
            self.count = training_samples(store, data)
            self.origins = _origins(self.inside, self.patch)
        names = [v.name for v in store.low_variables], [v.name for v in store.high_variables]
        self.low_variables = [names[0].index(v.name) for v in features.low]
        self.high_variables = [names[1].index(v.name) for v in features.high]
        self.init_time, self.lead_time = store.low_init_time, store.low_lead_time

    def slots(
        self, first: int, updates: int, slots: int, micro_batch: int, mine: range, origin: tuple[int, int] = (0, 0)
    ) -> Iterator[tuple[int, np.ndarray, Iterator[Batch]]]:
        """Yield (update, counts, the batches of this rank's slots), for updates first..updates-1.

        Slot k of update u holds the same samples whichever rank plays it; the tail of an epoch is dropped. `origin`:
        the update and the epoch from which on an update has so many slots. The counts, (slot, variable) int64, are the
        numbers of values that the slots' targets have: of all slots where they are known beforehand, otherwise of this
        rank's, whose masks are read one update ahead. The arrays of a batch are reused when the next batch but one is
        requested.
        """
        batch = slots * micro_batch
        per_epoch = self.count // batch

        def shuffled() -> Iterator[tuple[int, np.ndarray]]:
            """The epoch and the samples (slot, micro_batch) of each update."""
            update = first
            while update < updates:
                epoch, step = divmod(update - origin[0], per_epoch)
                end = min(step + max(1, BLOCK // batch), per_epoch, step + updates - update)
                samples = order(self.seed, epoch + origin[1], self.count, np.arange(step * batch, end * batch))
                for each in samples.reshape(-1, slots, micro_batch):
                    yield epoch + origin[1], each
                update += end - step

        to_count, to_read = tee(shuffled())
        with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as counter:
            ahead: deque[Future[Batch]] = deque()
            counts: deque[Future[np.ndarray]] = deque()
            coming = ((epoch, samples[slot]) for epoch, samples in to_read for slot in mine)
            most = self.ahead(micro_batch)
            buffers = cycle([Buffers() for _ in range(most + 2)])

            def fill() -> None:
                while len(ahead) < most and (request := next(coming, None)):
                    ahead.append(reader.submit(self.read, *request, next(buffers)))

            def count_next() -> None:
                if update := next(to_count, None):
                    epoch, samples = update
                    counts.append(counter.submit(self.counted, epoch, samples if self.knows_counts else samples[mine]))

            def play() -> Iterator[Batch]:
                for _ in mine:
                    fill()
                    batch = ahead.popleft().result()
                    fill()
                    yield batch

            try:
                count_next()
                for update in range(first, updates):
                    counted = counts.popleft().result()
                    count_next()
                    yield update, counted, play()
            finally:
                reader.shutdown(wait=False, cancel_futures=True)
                counter.shutdown(wait=False, cancel_futures=True)

    def ahead(self, micro_batch: int) -> int:
        """The number of batches that are read ahead."""
        low, high = self.store.low.shape[1:], self.store.high.shape[1:]
        area = self.patch**2 if self.patch else math.prod(high[1:])
        values = math.prod(low) // low[-3] * len(self.low_variables) + len(self.high_variables) * area
        return min(AHEAD, max(1, BYTES // (4 * micro_batch * values)))

    def read(self, epoch: int, samples: np.ndarray, buffers: Buffers | None = None) -> Batch:
        """Read samples by their numbers in the split; crops and noise are keyed on (seed, epoch, sample)."""
        per_field = self.count // len(self.rows)
        rows = self.rows[samples // per_field]
        buffers = buffers or Buffers()
        windows = [self._window(epoch, sample) for sample in samples.tolist()] if self.patch else None
        low = buffers.read(self.store.low, rows, self.low_variables, None)
        low, scalars = self.features.arguments(low, self.init_time[rows], self.lead_time[rows])
        truth = buffers.read(self.store.high, self.store.high_index[rows], self.high_variables, windows)
        inside, seeds = self.inside, None
        if windows is not None:
            inside = np.stack([self.inside[window] for window in windows])[:, None]
        if self.noise:
            seeds = [int(self._random(epoch, sample, 2).integers(2**63)) for sample in samples.tolist()]
        mask = (np.isfinite(truth) & inside).astype(np.float32)
        return Batch(samples, low, scalars, truth, mask, windows, seeds)

    @cached_property
    def counts(self) -> np.ndarray:
        """(field, variable) int64: how many values the truths of the training fields have."""
        return count_rows(self.store, self.store.high_index[self.rows], self.beat)[:, self.high_variables]

    @cached_property
    def complete(self) -> np.ndarray:
        """(field) bool: whether the truth of a training field lacks no value."""
        return (self.counts == np.count_nonzero(self.inside)).all(1)

    @cached_property
    def knows_counts(self) -> bool:
        """Whether the counts of any samples are known without their masks."""
        return bool(self.complete.all()) or self.patch is None

    def counted(self, epoch: int, samples: np.ndarray) -> np.ndarray:
        """(slot, variable) int64: how many values the targets of training samples (slot, n) have."""
        numbers = samples // (self.count // len(self.rows))
        if self.patch is None:
            return self.counts[numbers].sum(1)
        result = np.full((*samples.shape, len(self.high_variables)), self.patch**2)
        for place in zip(*np.nonzero(~self.complete[numbers]), strict=True):
            truth = self.store.high[self.store.high_index[self.rows[numbers[place]]]][self.high_variables]
            window = self._window(epoch, int(samples[place]))
            result[place] = count_values(truth[:, *window], self.inside[window])
        return result.sum(1)

    def nearest(self, sample: int) -> dict[str, np.ndarray]:
        """The low fields of a sample as they are, each high point showing its nearest low cell: (Y, X) by name."""
        features = self.features
        low = self.store.low[self.rows[sample : sample + 1]][..., self.low_variables, :, :]
        nearest = Interpolation(features.low_index, features.low_shape, "nearest")
        fields = nearest(features.combine(low)[0])[0]
        return {variable.name: field for variable, field in zip(features.low, fields, strict=True)}

    def _random(self, epoch: int, sample: int, purpose: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(key=[self.seed, epoch], counter=[0, 0, purpose, sample]))

    def _window(self, epoch: int, sample: int) -> Window:
        assert self.patch is not None
        y, x = self.origins[self._random(epoch, sample, 1).integers(len(self.origins))]
        return slice(y, y + self.patch), slice(x, x + self.patch)


def _origins(inside: np.ndarray, patch: int) -> np.ndarray:
    """(n, 2) int64: the upper corners of all patches that lie wholly inside the training region."""
    if patch > min(inside.shape):
        raise UserError(f"dsr.data.patch {patch} is larger than the high grid of {inside.shape[0]} x {inside.shape[1]}")
    total = np.pad(inside.astype(np.int64), ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    counted = total[patch:, patch:] - total[:-patch, patch:] - total[patch:, :-patch] + total[:-patch, :-patch]
    origins = np.argwhere(counted == patch**2)
    if not len(origins):
        raise UserError(f"dsr.data.patch {patch}: no such square lies inside the training region; choose a smaller one")
    return origins
