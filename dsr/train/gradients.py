"""How an update's gradients become one sum: through the slot tree, exactly, or by DeepSpeed's own reduction."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist

from dsr.train.reduce import SlotSum, gather_ordered, norm

BUCKET = 2**18  # elements, the least in a bucket: gradients are summed and sent in buckets
MEASURED = 4  # one slot in this many has the norm of its gradient measured, which costs a pass over the gradient


@dataclass
class Totals:
    """What an update's reduction yields beside the gradients, the same on every rank."""

    losses: list[float]  # by slot: its part of the update's loss, which is their sum
    gradient_norm: float | None  # before clipping; None where a rank has only shards of the gradient
    stop: bool  # some rank was asked to stop
    slot_squares: dict[int, float] = field(default_factory=dict)  # squared norms of the measured slots' gradients


class ExactReduction:
    """Gradients, the losses and norms of the slots, and the request to stop go through the slot tree.

    Parameters are dealt to buckets from the last to the first, as backward reaches them; all buckets but the last are
    taken while backward is still running. The last one carries the notes: losses and squared norms by slot, and whether
    to stop.
    """

    def __init__(self, engine: Any, parameters: list[torch.nn.Parameter], slots: int, clipping: float):
        self.engine, self.clipping, self.parameters = engine, clipping, parameters
        # in float32 autograd adds the second slot of a pair to the first as the tree would, and in place
        self.pairs = all(parameter.dtype == torch.float32 for parameter in parameters)
        self.buckets: list[list[torch.nn.Parameter]] = [[]]
        for parameter in reversed(parameters):
            if sum(p.numel() for p in self.buckets[-1]) >= BUCKET:
                self.buckets.append([])
            self.buckets[-1].append(parameter)
        self.resize(slots)
        for number, bucket in enumerate(self.buckets[:-1]):
            for parameter in bucket:
                parameter.register_post_accumulate_grad_hook(lambda _, number=number: self._is_ready(number))

    def resize(self, slots: int) -> None:
        """Set the number of slots for the next update and those after it."""
        sizes = [[p.numel() for p in bucket] for bucket in self.buckets]
        self.sum = SlotSum(sizes, slots, 2 * slots + 1, self.parameters[0].device)
        self.slots, self.tree = slots, self.sum.trees[0]
        self._begin_update()
        self._begin_slot()

    def note(self, slot: int, loss: torch.Tensor, stop: bool) -> torch.Tensor:
        """Remember what travels with the slot's gradients, and return what to call backward on."""
        self.slot = slot
        self.losses.append(loss.detach())
        self.stop |= stop
        return loss

    @torch.no_grad()
    def reduce(self, bucket_size: int | None = None) -> None:
        """Take the remaining buckets of a slot; at the accumulation boundary replace the gradients by their sum."""
        while self.next < len(self.buckets):
            self._take()
        self._begin_slot()
        if not self.engine.is_gradient_accumulation_boundary():
            return
        sums, notes = self.sum.finish()
        gradients = [gradient for bucket in sums for gradient in bucket]
        total = norm(gradients).item()
        if 0 < self.clipping < total:
            torch._foreach_mul_(gradients, self.clipping / (total + 1e-6))
        for bucket, parts in zip(self.buckets, sums, strict=True):
            for parameter, part in zip(bucket, parts, strict=True):
                parameter.grad = part.view_as(parameter).to(parameter.dtype)  # rounded once
        values = notes.tolist()
        measured = range(0, self.slots if self.slots > 1 else 0, MEASURED)
        squares = {slot: values[self.slots + slot] for slot in measured}
        self.totals = Totals(values[: self.slots], total, values[-1] > 0, squares)
        self._begin_update()

    def finish(self) -> Totals:
        """The update's totals, after its last backward and before the optimizer."""
        return self.totals

    def zero_grad(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    def _begin_update(self) -> None:
        self.losses: list[torch.Tensor] = []
        self.squares: dict[int, torch.Tensor] = {}  # of the measured slots' norms
        self.stop: bool = False

    def _begin_slot(self) -> None:
        self.next, self.waiting = 0, [len(bucket) for bucket in self.buckets]

    @torch.no_grad()
    def _is_ready(self, bucket: int) -> None:
        """Backward calls this for each parameter outside the last bucket. All ranks take buckets in the same order."""
        self.waiting[bucket] -= 1
        while self.next < len(self.buckets) - 1 and self.waiting[self.next] == 0:
            self._take()

    def _take(self) -> None:
        """Take the next bucket of this slot, unless it waits in place for the second slot of its pair."""
        bucket, number = self.buckets[self.next], self.next
        self.next += 1
        measured, waits = self.slots > 1 and self.slot % MEASURED == 0, self._waits(self.slot)
        if waits and not measured:
            return
        gradients = []
        for parameter in bucket:
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            gradients.append(gradient.float().contiguous())  # the tree adds in float32
        if measured:
            self.squares[self.slot] = self.squares.get(self.slot, 0.0) + norm(gradients).square()
        if waits:
            return
        for parameter in bucket:
            parameter.grad = None
        if self.slot == self.tree.last - 1 and number == len(self.buckets) - 1:
            self.sum.notes = self._notes()
        self.sum.push(number, gradients, 2 if self._waits(self.slot - 1) else 1)

    def _waits(self, slot: int) -> bool:
        """Whether a slot's gradients stay in place for the next slot's, which they do unless that one is measured."""
        return self.pairs and self.tree.is_first_of_pair(slot) and (slot + 1) % MEASURED != 0

    def _notes(self) -> torch.Tensor:
        """(2 slots + 1) float32: losses, squared norms and whether to stop; 0 for the slots of other ranks."""
        notes = torch.zeros(2 * self.slots + 1, device=self.losses[0].device)
        notes[self.tree.first : self.tree.last] = torch.stack(self.losses)
        for slot, square in self.squares.items():
            notes[self.slots + slot] = square
        notes[-1] = float(self.stop)
        return notes


@dataclass
class StockReduction:
    """DeepSpeed's own reduction; the losses and the request to stop are gathered separately."""

    engine: Any
    slots: int
    notes: list[torch.Tensor] = field(default_factory=list)

    def resize(self, slots: int) -> None:
        """Set the number of slots for the next update and those after it."""
        self.slots = slots

    def note(self, slot: int, loss: torch.Tensor, stop: bool) -> torch.Tensor:
        """Remember a slot's loss and whether this rank was asked to stop, and return what to call backward on.

        DeepSpeed divides the sum over the ranks by their number.
        """
        self.notes.append(torch.stack([loss.detach().float(), loss.new_tensor(float(stop), dtype=torch.float32)]))
        return loss * dist.get_world_size()

    def finish(self) -> Totals:
        """The update's totals, after its last backward and before the optimizer."""
        rows = torch.stack(self.notes)
        self.notes = []
        whole = gather_ordered(rows, dist.get_rank() * len(rows), self.slots)
        total = None
        if self.engine.zero_optimization_stage() == 0:
            gradients = [p.grad for p in self.engine.module.parameters() if p.grad is not None]
            total = norm(gradients).item()
        return Totals(whole[:, 0].tolist(), total, bool(whole[:, 1].any()))


Reduction = ExactReduction | StockReduction
