"""The slot tree: gradients are summed in one binary tree over an update's slots, whatever the number of ranks.

The tree over slots [a, b) splits at the largest power of two below b - a. Floating-point addition is commutative but
not associative, so the shape of the tree decides the bits, and which rank adds does not. A rank owns a contiguous block
of slots and adds what lies wholly inside its block; the rest is exchanged. Small sums travel whole, level by level:
every rank that holds one child gets the other from a partner, and at the root every rank holds the sum. Large sums
travel by shares (Rabenseifner's recursive halving and doubling, for any number of ranks): in each trade a rank gives
each of its few partners one part of all that it holds, and adds to its own part what it gets, as far as the tree
allows. At the root every rank holds a share of the sum, and the shares travel back in the same way: a rank sends about
as much as in a ring all-reduce. This file uses torch.distributed only, not deepspeed.
"""

import time
from collections.abc import Iterable

import torch
import torch.distributed as dist

from dsr.scaling.tree import Node, by_shares, exchanges, parents, parts, split, trades

Begun = tuple[list[dist.Work], dict[Node, torch.Tensor], dict[Node, torch.Tensor]]  # a trade: own sums, and others'


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
    elements by bucket. A bucket's exchange by shares begins when its last slot is in, while the others are still
    computed. `notes` numbers travel with the last bucket. Each of them is 0 on all ranks but one (or a count), so that
    they add exactly in any order. Memory beside the trees, with more than one rank: by shares a flat copy of all
    buckets for every subtree that the block holds, and half as much to receive; otherwise a flat copy of all buckets,
    and one of one bucket for every subtree that the rank holds or receives.
    """

    def __init__(self, sizes: list[list[int]], slots: int, notes: int = 0, device: torch.device | None = None):
        self.rank, self.ranks = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        self.sizes, self.slots, self.notes = [*sizes[:-1], [*sizes[-1], notes]], slots, torch.zeros(notes)
        self.trees = [SlotTree(slots, self.rank, self.ranks) for _ in sizes]
        lengths = [sum(bucket) for bucket in self.sizes]
        self.shared, self.trades = by_shares(self.ranks, sum(lengths)), trades(slots, self.ranks, self.rank)
        self.parts = [parts(self.trades, length) for length in lengths]
        if self.ranks > 1:
            self.flat = [torch.empty(length, device=device) for length in lengths]
        if self.shared:
            more = len(self.trades[0].held[self.trades[0].place]) - 1  # subtrees of the block
            self.rows = [[flat, *(torch.empty_like(flat) for _ in range(more))] for flat in self.flat]
        self.begun: list[Begun] = []

    def push(self, bucket: int, tensors: list[torch.Tensor], count: int = 1) -> None:
        """Take a bucket's tensors of the next slot, or of a pair of slots that is summed already (`count` 2).

        They are contiguous and float32, and the sum owns them from now on. `notes` must be set before the last push.
        """
        if self.trees[bucket].push(tensors, count) and self.shared:
            held, sums = self.trees[bucket].take(), {}
            for row in self.rows[bucket]:  # one after the other, so that there is never a second copy of all of them
                node, tensors = held.popitem()
                sums[node] = self._flatten(bucket, tensors, row)
            self.begun.append(self._trade(bucket, 0, sums))

    def finish(self) -> tuple[list[list[torch.Tensor]], torch.Tensor]:
        """After the last slot: the sums by bucket, and the notes.

        With more than one rank they are 1-dimensional, and mostly views of memory that the next update overwrites.
        """
        if self.ranks == 1:
            return [tree.take()[0, self.slots] for tree in self.trees], self.notes
        if self.shared:
            self._finish_shares()
        else:
            for bucket, tree in enumerate(self.trees):
                self._exchange_whole(bucket, tree.take())
        sums = [list(flat.split(sizes)) for flat, sizes in zip(self.flat, self.sizes, strict=True)]
        if self.flat[0].is_cuda:  # norms add in another order where a tensor is not aligned to 16 bytes
            sums = [[part.clone() if part.data_ptr() % 16 else part for part in bucket] for bucket in sums]
        return sums, sums[-1].pop()

    def _flatten(self, bucket: int, tensors: list[torch.Tensor], out: torch.Tensor) -> torch.Tensor:
        if bucket == len(self.trees) - 1:
            tensors, self.notes = [*tensors, self.notes], torch.zeros_like(self.notes)  # they travel once
        return torch.cat([tensor.reshape(-1) for tensor in tensors], out=out)

    # by shares

    def _trade(self, bucket: int, level: int, sums: dict[Node, torch.Tensor]) -> Begun:
        """Begin to send the partners of a level their parts of `sums`, and to receive their sums' part of this rank."""
        trade = self.trades[level]
        sizes = [part.stop - part.start for part in self.parts[bucket][level]]
        pieces = {node: sums[node].split(sizes) for node in trade.held[trade.place]}
        mine = {node: cut[trade.place] for node, cut in pieces.items()}
        theirs: dict[Node, torch.Tensor] = {}
        sends, receives = [], []
        for place, partner in enumerate(trade.partners):
            if partner != self.rank:
                coming = {node: self.flat[bucket].new_empty(sizes[trade.place]) for node in trade.held[place]}
                sends += [(cut[place], partner) for cut in pieces.values()]
                receives += [(tensor, partner) for tensor in coming.values()]
                theirs |= coming
        return _send_receive(sends, receives), mine, theirs

    def _join(self, begun: Begun) -> dict[Node, torch.Tensor]:
        """Wait for a trade, and add what the tree allows, where possible in this rank's own memory."""
        works, sums, theirs = begun
        _wait(works)
        above = parents(self.slots)
        for node, tensor in theirs.items():
            while (parent := above.get(node)) and (siblings := sums.keys() & split(parent)):
                node, tensor = parent, sums.pop(*siblings).add_(tensor)
            sums[node] = tensor
        return sums

    def _finish_shares(self) -> None:
        begun, self.begun = self.begun, []
        for level in range(1, len(self.trades)):
            begun = [self._trade(bucket, level, self._join(each)) for bucket, each in enumerate(begun)]
        for flat, cuts, each in zip(self.flat, self.parts, begun, strict=True):
            mine, total = flat[cuts[-1][self.trades[-1].place]], self._join(each)[0, self.slots]
            if mine.data_ptr() != total.data_ptr():
                mine.copy_(total)
        for level, trade in reversed([*enumerate(self.trades)]):  # the way back: each gives the others what it has
            sends, receives = [], []
            for flat, cuts in zip(self.flat, self.parts, strict=True):
                for partner, part in zip(trade.partners, cuts[level], strict=True):
                    if partner != self.rank:
                        sends.append((flat[cuts[level][trade.place]], partner))
                        receives.append((flat[part], partner))
            _wait(_send_receive(sends, receives))

    # whole

    def _exchange_whole(self, bucket: int, held: dict[Node, list[torch.Tensor]]) -> None:
        sums: dict[Node, torch.Tensor] = {}
        while held:  # one after the other, so that there is never a second copy of all of them
            node, tensors = held.popitem()
            sums[node] = self._flatten(bucket, tensors, self.flat[bucket]).clone()
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
