"""The slot tree: gradients are summed in one binary tree over an update's slots, whatever the number of ranks.

The tree over slots [a, b) splits at the largest power of two below b - a. Floating-point addition is commutative but
not associative, so the shape of the tree decides the bits, and which rank adds does not. A rank owns a contiguous block
of slots and adds what lies wholly inside its block; the rest is exchanged. Small sums travel whole, level by level:
every rank that holds one child gets the other from a partner, and at the root every rank holds the sum. Large sums,
where slots and ranks are powers of two, travel by halves (Rabenseifner's recursive halving and doubling): at every
level each of the two partners adds one half, so that a rank sends no more than in a ring all-reduce, in the order of
the same tree. This file uses torch.distributed only, not deepspeed.
"""

import itertools
import time
from collections.abc import Iterable, Sequence

import torch
import torch.distributed as dist

from dsr.scaling.tree import Node, by_halves, exchanges, parents, split


class SlotTree:
    """Takes the slots of this rank's block one by one, in order, and keeps the sums of the largest subtrees.

    Each slot is a list of contiguous float32 tensors, which the tree then owns and adds in place. Memory:
    at most log2(block) + 1 copies of them where the block is a subtree (any power of two), and twice as many where it
    is not.
    """

    def __init__(self, slots: int, rank: int, ranks: int):
        block = slots // ranks
        self.slots, self.first, self.last = slots, rank * block, (rank + 1) * block
        self.stack: list[tuple[Node, list[torch.Tensor]]] = []
        self.next = self.first

    def is_first_of_pair(self, slot: int) -> bool:
        """Whether this slot and the next one form a node of the tree, and both belong to this rank."""
        return slot % 2 == 0 and self.first <= slot and slot + 1 < self.last

    def push(self, tensors: list[torch.Tensor], count: int = 1) -> bool:
        """Take the next slot, or the sum of a pair (`count` 2); True when the block is complete."""
        above = parents(self.slots)
        node = (self.next, self.next + count)
        self.next += count
        while self.stack and above.get(self.stack[-1][0]) == above.get(node, ()):
            left, total = self.stack.pop()
            torch._foreach_add_(total, tensors)
            node, tensors = (left[0], node[1]), total
        self.stack.append((node, tensors))
        return self.next == self.last

    def take(self) -> dict[Node, list[torch.Tensor]]:
        """The sums of a complete block by node; the tree is empty again."""
        if self.next != self.last:
            raise RuntimeError(f"{self.next - self.first} of {self.last - self.first} slots were given")
        self.next, stack, self.stack = self.first, self.stack, []
        return dict(stack)


class SlotSum:
    """The sum over all slots of a few buckets of tensors, the same bits on every rank and for any number of ranks.

    Every rank pushes the slots of its block in order, and within a slot the buckets in order; `sizes` are the tensors'
    elements by bucket. A large bucket's exchange begins when its last slot is in, while the others are still computed.
    `notes` numbers travel with the last bucket. Each of them is 0 on all ranks but one (or a count), so that they add
    exactly in any order. Memory beside the trees, with more than one rank: a flat copy of all buckets, and by halves
    half a copy more, otherwise a copy of one bucket for every subtree that the rank holds or receives.
    """

    def __init__(self, sizes: list[list[int]], slots: int, notes: int = 0, device: torch.device | None = None):
        self.rank, self.ranks = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        self.sizes, self.slots, self.notes = [*sizes[:-1], [*sizes[-1], notes]], slots, torch.zeros(notes)
        self.trees = [SlotTree(slots, self.rank, self.ranks) for _ in sizes]
        lengths = [sum(bucket) for bucket in self.sizes]
        self.halves = by_halves(slots, self.ranks, sum(lengths))
        if self.ranks > 1:
            self.flat = [torch.empty(length, device=device) for length in lengths]
        if self.halves:
            self.spare = [torch.empty((length + 1) // 2, device=device) for length in lengths]
        self.begun: list[list[dist.Work]] = []

    def push(self, bucket: int, tensors: list[torch.Tensor], count: int = 1) -> None:
        """Take a bucket's tensors of the next slot, or of a pair of slots that is summed already (`count` 2).

        They are contiguous and float32, and the sum owns them from now on. `notes` must be set before the last push.
        """
        if self.trees[bucket].push(tensors, count) and self.halves:
            (tensors,) = self.trees[bucket].take().values()
            self._flatten(bucket, tensors)
            self.begun.append(self._trade(bucket, self._step(bucket, 0)))

    def finish(self) -> tuple[list[list[torch.Tensor]], torch.Tensor]:
        """After the last slot: the sums by bucket, and the notes.

        With more than one rank they are 1-dimensional, and mostly views of memory that the next update overwrites.
        """
        if self.ranks == 1:
            return [tree.take()[0, self.slots] for tree in self.trees], self.notes
        if self.halves:
            self._finish_halves()
        else:
            for bucket, tree in enumerate(self.trees):
                self._exchange_whole(bucket, tree.take())
        sums = [list(flat.split(sizes)) for flat, sizes in zip(self.flat, self.sizes, strict=True)]
        if self.flat[0].is_cuda:  # norms add in another order where a tensor is not aligned to 16 bytes
            sums = [[part.clone() if part.data_ptr() % 16 else part for part in bucket] for bucket in sums]
        return sums, sums[-1].pop()

    def _flatten(self, bucket: int, tensors: list[torch.Tensor]) -> None:
        if bucket == len(self.trees) - 1:
            tensors, self.notes = [*tensors, self.notes], torch.zeros_like(self.notes)  # they travel once
        torch.cat([tensor.reshape(-1) for tensor in tensors], out=self.flat[bucket])

    # by halves

    def _step(self, bucket: int, level: int) -> tuple[int, tuple[int, int], tuple[int, int]]:
        """At a level of the tree over ranks: the partner, the range that this rank adds, and the partner's range."""
        low, high = 0, len(self.flat[bucket])
        for above in range(level + 1):
            partner = self.rank ^ 1 << above
            middle = (low + high) // 2
            mine, theirs = ((low, middle), (middle, high))[:: 1 if self.rank < partner else -1]
            low, high = mine
        return partner, mine, theirs

    def _trade(self, bucket: int, step: tuple[int, tuple[int, int], tuple[int, int]]) -> list[dist.Work]:
        """Send the partner its range, and receive its part of ours into spare memory."""
        partner, mine, theirs = step
        spare = self.spare[bucket][: mine[1] - mine[0]]
        return _send_receive([(self.flat[bucket][slice(*theirs)], partner)], [(spare, partner)])

    def _finish_halves(self) -> None:
        begun, self.begun = self.begun, []
        buckets, levels = range(len(self.flat)), self.ranks.bit_length() - 1
        for level in range(levels):
            steps = [self._step(bucket, level) for bucket in buckets]
            works = begun if level == 0 else [self._trade(bucket, steps[bucket]) for bucket in buckets]
            for bucket in buckets:
                _wait(works[bucket])
                low, high = steps[bucket][1]
                self.flat[bucket][low:high].add_(self.spare[bucket][: high - low])
        for level in reversed(range(levels)):  # the way back: each sends the other what it has added
            sends, receives = [], []
            for bucket in buckets:
                partner, mine, theirs = self._step(bucket, level)
                sends.append((self.flat[bucket][slice(*mine)], partner))
                receives.append((self.flat[bucket][slice(*theirs)], partner))
            _wait(_send_receive(sends, receives))

    # whole

    def _exchange_whole(self, bucket: int, held: dict[Node, list[torch.Tensor]]) -> None:
        sums: dict[Node, torch.Tensor] = {}
        while held:  # one after the other, so that there is never a second copy of all of them
            node, tensors = held.popitem()
            self._flatten(bucket, tensors)
            sums[node] = self.flat[bucket].clone()
        for exchange in exchanges(self.slots, self.ranks):
            left, right = split(exchange.node)
            sends = [(sums[child], to) for source, to, child in exchange.messages if source == self.rank]
            coming = [(child, source) for source, to, child in exchange.messages if to == self.rank]
            receives = [(torch.empty_like(self.flat[bucket]), source) for _, source in coming]
            if sends or receives:
                _wait(_send_receive(sends, receives))
            sums |= {child: tensor for (child, _), (tensor, _) in zip(coming, receives, strict=True)}
            if left in sums and right in sums:
                sums[exchange.node] = sums.pop(left).add_(sums.pop(right))
        self.flat[bucket] = sums[0, self.slots]


def _send_receive(sends: list[tuple[torch.Tensor, int]], receives: list[tuple[torch.Tensor, int]]) -> list[dist.Work]:
    """Begin messages to and from ranks as one batch; with NCCL two ranks would otherwise wait for each other."""
    operations = [dist.P2POp(dist.isend, tensor, rank) for tensor, rank in sends]
    operations += [dist.P2POp(dist.irecv, tensor, rank) for tensor, rank in receives]
    return dist.batch_isend_irecv(operations)


def _wait(works: list[dist.Work]) -> None:
    for work in works:
        work.wait()


def time_messages(device: torch.device) -> dict[str, float]:
    """`latency_us` and `gbit_per_s` of messages between the first rank and the last, as an exchange sends them.

    Both send at the same time. The best of several tries counts, since delays by other processes do not belong to the
    wires. Valid on rank 0, but every rank must call it.
    """
    last, seconds, elements = dist.get_world_size() - 1, [], 2**20
    dist.barrier()
    for size in (1, elements):
        mine, theirs = torch.zeros(size, device=device), torch.zeros(size, device=device)
        tries = [float("inf")]
        for _ in range(50 if dist.get_rank() in (0, last) else 0):
            begun = time.perf_counter()
            _wait(_send_receive([(mine, last - dist.get_rank())], [(theirs, last - dist.get_rank())]))
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            tries.append(time.perf_counter() - begun)
        seconds.append(min(tries))
    dist.barrier()
    return {"latency_us": 1e6 * seconds[0], "gbit_per_s": 32e-9 * elements / seconds[1]}


def norm(tensors: Iterable[torch.Tensor]) -> torch.Tensor:
    """The 2-norm (0-d) of all the tensors together, from the norm of each: the same bits however they are stored."""
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(tensors))))


def gather_ordered(values: torch.Tensor, first: int, total: int) -> torch.Tensor:
    """Place this rank's rows (n, ...) at first..first+n-1 of (total, ...), and return the whole on every rank, exactly.

    Each row comes from one rank and the others add 0, so the sum is exact in any order.
    """
    whole = torch.zeros((total, *values.shape[1:]), dtype=values.dtype, device=values.device)
    whole[first : first + len(values)] = values
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(whole)
    return whole


def shares(count: int, ranks: int) -> Sequence[range]:
    """Contiguous shares of range(count) for every rank, whose sizes differ by at most one."""
    edges = [count * rank // ranks for rank in range(ranks + 1)]
    return [range(a, b) for a, b in itertools.pairwise(edges)]
