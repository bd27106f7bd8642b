"""The shape of the slot tree, which rank sends what in its exchange, and how much. Pure arithmetic, without torch.

The tree over slots [a, b) splits at the largest power of two below b - a, whatever the number of ranks. The exchange
between ranks, above their blocks, sends sums whole or by shares, as `dsr.train.reduce` describes.
"""

import itertools
from collections.abc import Sequence
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


def subtrees(slots: int, first: int, last: int) -> tuple[Node, ...]:
    """The largest nodes of the tree over `slots` slots that lie within [first, last), in order."""
    found, pending = [], [(0, slots)]
    while pending:
        node = pending.pop()
        if first <= node[0] and node[1] <= last:
            found.append(node)
        elif first < node[1] and node[0] < last:
            pending.extend(reversed(split(node)))
    return tuple(found)


@dataclass(frozen=True)
class Trade:
    """One level of an exchange by shares: a few partners cut what they hold, and each adds one part of it."""

    partners: tuple[int, ...]  # the ranks that trade, this one among them, in the order of their slots
    place: int  # of this rank among them, and of its part
    held: tuple[tuple[Node, ...], ...]  # by partner: the sums that it holds before


@lru_cache
def trades(slots: int, ranks: int, rank: int) -> tuple[Trade, ...]:
    """A rank's trades, from its block to the root: one for each prime factor of the ranks, the smallest first.

    Before a trade neighbours hold parts of the same sums, those of the largest subtrees over all their slots.
    """
    block, result, neighbours, factor = slots // ranks, [], 1, 2
    while neighbours < ranks:
        if ranks // neighbours % factor:
            factor += 1
            continue
        first = rank - rank % (neighbours * factor)
        partners = tuple(first + rank % neighbours + i * neighbours for i in range(factor))
        edges = [(first + i * neighbours) * block for i in range(factor + 1)]
        held = tuple(subtrees(slots, *pair) for pair in itertools.pairwise(edges))
        result.append(Trade(partners, partners.index(rank), held))
        neighbours *= factor
    return tuple(result)


def parts(trades: Sequence[Trade], length: int) -> list[list[slice]]:
    """How each trade cuts `length` elements, or what is left of them after the trades before: by partner."""
    result, first = [], 0
    for trade in trades:
        result.append([slice(first + part.start, first + part.stop) for part in shares(length, len(trade.partners))])
        mine = result[-1][trade.place]
        first, length = mine.start, mine.stop - mine.start
    return result


def shares(count: int, ranks: int) -> Sequence[range]:
    """Contiguous shares of range(count) for every rank, whose sizes differ by at most one."""
    edges = [count * rank // ranks for rank in range(ranks + 1)]
    return [range(a, b) for a, b in itertools.pairwise(edges)]


def by_shares(ranks: int, elements: int) -> bool:
    """Whether float32 elements of this number are exchanged by shares: they are many, and no share is tiny."""
    return ranks > 1 and elements >= max(2**16, 2**11 * ranks)


def sent(slots: int, ranks: int, rank: int, elements: int, shared: bool) -> tuple[int, int]:
    """(messages, bytes) that a rank sends in an exchange of float32 `elements`, by shares or whole."""
    if not shared:
        messages = sum(source == rank for exchange in exchanges(slots, ranks) for source, _, _ in exchange.messages)
        return messages, 4 * elements * messages
    messages, sent_elements, mine = 0, 0, slice(0, elements)
    levels = trades(slots, ranks, rank)
    for trade, cut in zip(levels, parts(levels, elements), strict=True):
        before, mine = mine, cut[trade.place]
        kept, others, sums = mine.stop - mine.start, len(cut) - 1, len(trade.held[trade.place])
        messages += others * (sums + 1)  # on the way down the others' parts of all sums, on the way back the own part
        sent_elements += sums * (before.stop - before.start - kept) + others * kept
    return messages, 4 * sent_elements


def cost(slots: int, ranks: int, elements: int) -> tuple[int, int]:
    """(messages, bytes) that the busiest rank sends in an exchange of float32 `elements`.

    By shares, where every block is a subtree: 2 (1 - 1/ranks) times the elements' bytes, as in a ring all-reduce, in
    2 log2(ranks) messages for powers of two and never more than a ring's; every further subtree of a block adds half as
    many. Whole: the bytes of all elements in each message, log2(ranks) messages for powers of two and a few more
    otherwise.
    """
    shared = by_shares(ranks, elements)
    counts = [sent(slots, ranks, rank, elements, shared) for rank in range(ranks)]
    return max(messages for messages, _ in counts), max(size for _, size in counts)
