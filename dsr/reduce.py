"""The slot tree: gradients summed in one binary tree over an update's slots, which does not know the ranks.

The tree over slots [a, b) splits at the largest power of two below b - a. Floating-point addition is commutative but
not associative, so the shape of the tree decides the bits, and who adds does not. A rank owns a contiguous block of
slots; it adds what lies wholly inside its block, and the remaining nodes are added level by level: every rank that
holds one child gets the other from a partner, so at the root every rank holds the sum. With a power-of-two number of
equal blocks this is recursive doubling. No deepspeed here: torch.distributed only.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.distributed as dist

Node = tuple[int, int]  # the slots [first, last) below it


def split(node: Node) -> tuple[Node, Node]:
    """The two children of a node of more than one slot."""
    first, last = node
    middle = first + (1 << (last - first - 1).bit_length() - 1)
    return (first, middle), (middle, last)


@lru_cache
def parents(slots: int) -> dict[Node, Node]:
    """Every node of the tree over `slots` slots but the root, with its parent."""
    result: dict[Node, Node] = {}
    pending = [(0, slots)]
    while pending:
        node = pending.pop()
        if node[1] - node[0] > 1:
            for child in split(node):
                result[child] = node
                pending.append(child)
    return result


@dataclass(frozen=True)
class Exchange:
    """One node above the blocks: who sends which child to whom, as seen by all ranks alike."""

    node: Node
    messages: tuple[tuple[int, int, Node], ...]  # (from rank, to rank, child)


@lru_cache
def exchanges(slots: int, ranks: int) -> tuple[Exchange, ...]:
    """The exchanges that turn the blocks' sums into the root's on every rank, children before parents."""
    if slots % ranks:
        raise ValueError(f"{ranks} ranks do not divide {slots} slots")
    block = slots // ranks
    result: list[Exchange] = []

    def holders(node: Node) -> list[int]:
        """The ranks that will hold the node's sum; appends the exchanges which that takes."""
        first, last = node
        if first // block == (last - 1) // block:
            return [first // block]
        left, right = split(node)
        of_left, of_right = holders(left), holders(right)
        messages = []
        for these, those, child in ((of_left, of_right, left), (of_right, of_left, right)):
            lacking = [rank for rank in those if rank not in these]
            messages += [(these[i % len(these)], rank, child) for i, rank in enumerate(lacking)]
        result.append(Exchange(node, tuple(messages)))
        return sorted({*of_left, *of_right})

    holders((0, slots))
    return tuple(result)


class SlotTree:
    """Takes in the slots of this rank's block one by one, in order, then gives the sum over all slots.

    Each slot comes as a list of float32 tensors. The lists are kept as they are and added in place: no flat copy is
    made until the exchange. Memory: at most log2(block) + 1 copies of the gradients where the block is a subtree (any
    power of two), and twice as many where it is not.
    """

    def __init__(self, slots: int, rank: int, ranks: int):
        self.slots, self.rank, self.ranks = slots, rank, ranks
        block = slots // ranks
        self.first, self.last = rank * block, (rank + 1) * block
        self.stack: list[tuple[Node, list[torch.Tensor]]] = []
        self.next = self.first

    def push(self, tensors: list[torch.Tensor]) -> None:
        """Take in the next slot. The tensors become the tree's own."""
        above = parents(self.slots)
        node = (self.next, self.next + 1)
        self.next += 1
        while self.stack and above.get(self.stack[-1][0]) == above.get(node, ()):
            left, total = self.stack.pop()
            torch._foreach_add_(total, tensors)
            node, tensors = (left[0], node[1]), total
        self.stack.append((node, tensors))

    def total(self) -> torch.Tensor:
        """The sum over all slots as one flat tensor, the same bits on every rank; the tree is empty again."""
        if self.next != self.last:
            raise RuntimeError(f"{self.next - self.first} of {self.last - self.first} slots were given")
        self.next = self.first
        sums = {}
        while self.stack:  # one after the other, so that no second copy of them all is held
            node, tensors = self.stack.pop()
            sums[node] = torch.cat([t.reshape(-1) for t in tensors])
        for exchange in exchanges(self.slots, self.ranks):
            left, right = split(exchange.node)
            mine = [m for m in exchange.messages if self.rank in m[:2]]
            if mine:
                like = next(iter(sums.values()))
                requests = []
                for source, target, child in mine:
                    if source == self.rank:
                        requests.append(dist.isend(sums[child], target))
                    else:
                        sums[child] = torch.empty_like(like)
                        requests.append(dist.irecv(sums[child], source))
                for request in requests:
                    request.wait()  # type: ignore[union-attr]
            if left in sums and right in sums:
                sums[exchange.node] = sums.pop(left).add_(sums.pop(right))
        return sums[0, self.slots]


def clip_(gradient: torch.Tensor, limit: float) -> torch.Tensor:
    """Scale a flat gradient in place to a norm of at most `limit` (0: leave it). Returns the norm before, 0-d."""
    norm = torch.linalg.vector_norm(gradient)
    if limit > 0:
        gradient.mul_(torch.clamp(limit / (norm + 1e-6), max=1.0))
    return norm


def gather_ordered(values: torch.Tensor, first: int, total: int) -> torch.Tensor:
    """Put this rank's rows (n, ...) at first..first+n-1 of (total, ...) and give every rank the whole, exactly.

    Each row comes from one rank and the others add 0, so the sum is exact in any order.
    """
    whole = torch.zeros((total, *values.shape[1:]), dtype=values.dtype, device=values.device)
    whole[first : first + len(values)] = values
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(whole)
    return whole


def shares(count: int, ranks: int) -> Sequence[range]:
    """Contiguous shares of range(count) for every rank, the sizes one apart at most."""
    edges = [count * rank // ranks for rank in range(ranks + 1)]
    return [range(a, b) for a, b in itertools.pairwise(edges)]
