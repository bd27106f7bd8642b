"""The shape of the slot tree, which rank sends what in its exchange, and how much. Pure arithmetic, without torch.

The tree over slots [a, b) splits at the largest power of two below b - a, whatever the number of ranks. The exchange
between ranks, above their blocks, sends sums whole or by halves, as `dsr.train.reduce` describes.
"""

from dataclasses import dataclass
from functools import lru_cache

Node = tuple[int, int]  # the slots [first, last) below it


def split(node: Node) -> tuple[Node, Node]:
    """The two children of a node of more than one slot.

    >>> split((0, 8)), split((0, 6))
    (((0, 4), (4, 8)), ((0, 4), (4, 6)))
    """
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
    """One node above the blocks: which rank sends which child to which. All ranks derive the same."""

    node: Node
    messages: tuple[tuple[int, int, Node], ...]  # (from rank, to rank, child)


@lru_cache
def exchanges(slots: int, ranks: int) -> tuple[Exchange, ...]:
    """The exchanges that turn the blocks' sums into the root's on every rank, children before parents.

    Three ranks with two of six slots each: ranks 0 and 1 first add up slots 0 to 3, and then exchange with rank 2.

    >>> for exchange in exchanges(6, 3):
    ...     print(exchange.node, exchange.messages)
    (0, 4) ((0, 1, (0, 2)), (1, 0, (2, 4)))
    (0, 6) ((0, 2, (0, 4)), (2, 0, (4, 6)), (2, 1, (4, 6)))
    """
    if slots % ranks:
        raise ValueError(f"{ranks} ranks do not divide {slots} slots")
    block = slots // ranks
    result: list[Exchange] = []

    def holders(node: Node) -> list[int]:
        """The ranks that will hold the node's sum; appends the exchanges that this takes."""
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


def by_halves(slots: int, ranks: int, elements: int) -> bool:
    """Whether float32 elements of this number are exchanged by halves: they are many, and every block is a subtree."""
    return ranks > 1 and slots & (slots - 1) == 0 and elements >= 2**16


def cost(slots: int, ranks: int, elements: int, halves: bool | None = None) -> tuple[int, int]:
    """(messages, bytes) that the busiest rank sends in an exchange of float32 `elements`.

    By halves: 2 log2(ranks) messages and 2 (1 - 1/ranks) times the elements' bytes, as in a ring all-reduce. Whole: the
    bytes of all elements in each message, log2(ranks) messages for powers of two and a few more otherwise. `halves` is
    for one bucket of several, which are all exchanged in the same way.
    """
    if by_halves(slots, ranks, elements) if halves is None else halves:
        levels, sent_elements, size = ranks.bit_length() - 1, 0, elements
        for _ in range(levels):  # one half on the way down, the other on the way back
            sent_elements += size
            size -= size // 2
        return 2 * levels, 4 * sent_elements
    sent = [0] * ranks
    for exchange in exchanges(slots, ranks):
        for source, _, _ in exchange.messages:
            sent[source] += 1
    return max(sent), 4 * elements * max(sent)
