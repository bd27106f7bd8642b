"""The slot tree: its shape never depends on the ranks, in symbols for many counts and in bits between real ranks."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist

from dsr.scaling.tree import by_shares, cost, exchanges, parents, parts, sent, shares, split, trades
from dsr.train import reduce
from dsr.train.reduce import SlotSum, SlotTree, gather_ordered, norm
from tests.ranks import run_ranks

MANY = [(96, n) for n in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 96)]
MANY += [(40, 5), (40, 8), (7, 7), (30, 3), (1, 1), (12, 4), (105, 15), (126, 2), (126, 42)]


def tree(first, last):
    """The tree in words: split at the largest power of two below the width."""
    width = last - first
    if width == 1:
        return first
    half = 1
    while half * 2 < width:
        half *= 2
    return (tree(first, first + half), tree(first + half, last))


def blocks(slots, ranks, monkeypatch):
    """What every rank's stack holds after its slots, with expressions in place of tensors; and its largest size."""
    largest = 0
    held = []

    def add(left, right):
        left[0] = (left[0], right[0])

    monkeypatch.setattr(torch, "_foreach_add_", add)
    for rank in range(ranks):
        own = SlotTree(slots, rank, ranks)
        for slot in range(own.first, own.last):
            largest = max(largest, len(own.stack) + 1)
            own.push([slot])
        held.append({node: values[0] for node, values in own.stack})
    return held, largest


@pytest.mark.parametrize(("slots", "ranks"), MANY)
def test_every_rank_ends_with_the_same_tree(slots, ranks, monkeypatch):
    held, largest = blocks(slots, ranks, monkeypatch)
    for exchange in exchanges(slots, ranks):
        left, right = split(exchange.node)
        messages = [(target, child, held[source][child]) for source, target, child in exchange.messages]
        for target, child, value in messages:
            assert child not in held[target]  # nothing is sent twice
            held[target][child] = value
        for sums in held:
            if left in sums and right in sums:
                sums[exchange.node] = (sums.pop(left), sums.pop(right))
    assert all(sums == {(0, slots): tree(0, slots)} for sums in held)
    block = slots // ranks
    assert largest <= 2 * (block - 1).bit_length() + 1


@pytest.mark.parametrize(("slots", "ranks"), MANY)
def test_every_share_ends_with_the_same_tree(slots, ranks, monkeypatch):
    held, _ = blocks(slots, ranks, monkeypatch)
    nodes = sorted({(0, slots), *parents(slots)}, key=lambda node: node[1] - node[0])
    levels = [trades(slots, ranks, rank) for rank in range(ranks)]
    cuts = [parts(each, 3 * ranks + 1) for each in levels]
    for level in range(len(levels[0])):
        before = [dict(sums) for sums in held]
        for rank, sums in enumerate(held):
            trade = levels[rank][level]
            assert trade.partners[trade.place] == rank
            for place, partner in enumerate(trade.partners):
                assert levels[partner][level].partners == trade.partners
                assert cuts[partner][level] == cuts[rank][level]  # so that each knows what the other sends
                assert tuple(sorted(before[partner])) == trade.held[place]
                sums |= before[partner]
            for node in nodes:
                if node not in sums and node[1] - node[0] > 1 and all(child in sums for child in split(node)):
                    sums[node] = tuple(sums.pop(child) for child in split(node))
    assert all(sums == {(0, slots): tree(0, slots)} for sums in held)
    if ranks > 1:
        ends = sorted((cut[-1][each[-1].place] for cut, each in zip(cuts, levels, strict=True)), key=lambda s: s.start)
        assert [i for end in ends for i in range(end.start, end.stop)] == list(range(3 * ranks + 1))


def test_an_aligned_block_holds_log_copies(monkeypatch):
    assert blocks(32, 1, monkeypatch)[1] == 6  # log2(32) + 1
    assert blocks(32, 4, monkeypatch)[1] == 4


def wild(slot):
    """Two tensors whose sum depends on the order: magnitudes from 1e-20 to 1e20."""
    random = np.random.default_rng(slot)
    values = random.normal(size=22) * 10.0 ** random.uniform(-20, 20, 22)
    return list(torch.from_numpy(values.astype(np.float32)).split([15, 7]))


def by_hand(node, start=0):
    """The sum in the order of `tree`'s expression, of slots that are counted from `start`."""
    if isinstance(node, int):
        return wild(node + start)
    return [a + b for a, b in zip(by_hand(node[0], start), by_hand(node[1], start), strict=True)]


def flat(tensors):
    return torch.cat([t.reshape(-1) for t in tensors])


@pytest.mark.parametrize("slots", [1, 2, 3, 7, 12, 32])
def test_one_rank_adds_in_the_trees_order_to_the_bit(slots):
    own = SlotSum([[15], [7]], slots)
    for _ in range(2):  # it is empty again after an update
        for slot in range(slots):
            for bucket, tensor in enumerate(wild(slot)):
                own.push(bucket, [tensor])
        found, _ = own.finish()
        assert [len(bucket) for bucket in found] == [1, 1]
        assert torch.equal(flat([tensor for bucket in found for tensor in bucket]), flat(by_hand(tree(0, slots))))
    left_to_right = flat(wild(0))
    for slot in range(1, slots):
        left_to_right = left_to_right + flat(wild(slot))
    if slots > 6:
        assert not torch.equal(left_to_right, flat(by_hand(tree(0, slots))))  # the order matters here


@pytest.mark.parametrize("slots", [2, 7, 12])
def test_a_pair_that_is_summed_already_is_a_node(slots):
    own = SlotTree(slots, 0, 1)
    for slot in range(0, slots, 2):
        assert own.is_first_of_pair(slot) == (slot + 1 < slots) and not own.is_first_of_pair(slot + 1)
        if slot + 1 < slots:
            own.push([flat(by_hand((slot, slot + 1)))], count=2)
        else:
            own.push([flat(wild(slot))])
    assert torch.equal(own.take()[0, slots][0], flat(by_hand(tree(0, slots))))
    block = SlotTree(12, 1, 4)  # slots 3, 4, 5: the first has its sibling elsewhere
    assert [slot for slot in range(12) if block.is_first_of_pair(slot)] == [4]


def test_too_few_slots_are_noticed():
    own = SlotTree(4, 0, 1)
    own.push(wild(0))
    with pytest.raises(RuntimeError, match="1 of 4 slots"):
        own.take()


SLOTS = {2: [2, 14, 16, 30], 3: [3, 12, 15], 4: [4, 12, 16], 6: [6, 18, 24], 8: [8, 16, 24]}  # by ranks


def add_in_ranks(folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, ranks = dist.get_rank(), dist.get_world_size()
    messages = count_messages()
    found = {}
    for slots in SLOTS[ranks]:
        for width in (1, 5000):  # elements, times 22: whole, and by shares
            own = SlotSum([[15 * width], [3 * width, 4 * width]], slots, notes=slots + 1)
            block = slots // ranks
            for turn in range(2):  # its memory is used again
                messages.clear()
                for slot in range(rank * block, (rank + 1) * block):
                    own.notes = torch.zeros(slots + 1)
                    own.notes[rank * block : (rank + 1) * block] = 0.1 * (turn + 1)
                    own.notes[-1] = rank == 1
                    large, small = (part.repeat(width) for part in wild(slot + turn))
                    own.push(0, [large])
                    own.push(1, list(small.split([3 * width, 4 * width])))
                sums, notes = own.finish()
                assert notes.tolist() == torch.tensor([0.1 * (turn + 1)] * slots + [1]).tolist()
                found[f"{slots} {width} {turn}"] = flat([t for bucket in sums for t in bucket]).clone()
            found[f"sent {slots} {width}"] = len(messages), 4 * sum(messages)
    rows = shares(10, ranks)[rank]
    mine = torch.tensor([[0.1 * i, 1e30 * i] for i in rows], dtype=torch.float64).reshape(-1, 2)
    found["rows"] = gather_ordered(mine, rows.start, 10)
    torch.save(found, folder / f"{rank}.pt")
    dist.barrier()


def count_messages():
    """The elements of every message that this rank sends from now on."""
    messages, send_receive = [], reduce._send_receive

    def counting(sends, receives):
        messages.extend(tensor.numel() for tensor, _ in sends)
        return send_receive(sends, receives)

    reduce._send_receive = counting
    return messages


@pytest.mark.slow
@pytest.mark.parametrize("ranks", SLOTS)
def test_real_ranks_add_in_the_trees_order_to_the_bit(ranks, tmp_path):
    assert run_ranks(ranks, add_in_ranks, tmp_path, log=tmp_path / "log") == [0] * ranks, (tmp_path / "log").read_text()
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(ranks)]
    sums = [key.split() for key in found[0] if key[0].isdigit()]
    assert len(sums) == 4 * len(SLOTS[ranks])
    for slots, width, turn in sums:
        large, small = by_hand(tree(0, int(slots)), int(turn))
        expected = flat([large.repeat(int(width)), small.repeat(int(width))])
        assert all(torch.equal(one[f"{slots} {width} {turn}"], expected) for one in found)
    for one in found:
        assert one["rows"].tolist() == [[0.1 * i, 1e30 * i] for i in range(10)]
    for slots in SLOTS[ranks]:  # and the counted cost is what they send
        for width in (1, 5000):
            buckets = 15 * width, 7 * width + slots + 1
            shared = by_shares(ranks, sum(buckets))
            assert shared == (width > 1)
            for rank, one in enumerate(found):
                counted = [sent(slots, ranks, rank, elements, shared) for elements in buckets]
                assert one[f"sent {slots} {width}"] == tuple(map(sum, zip(*counted, strict=True)))
        assert cost(slots, ranks, 10**6)[1] == max(sent(slots, ranks, rank, 10**6, True)[1] for rank in range(ranks))


def test_norm_by_hand():
    assert norm([torch.tensor([3.0]), torch.tensor([[0.0, 4.0]])]).item() == 5.0
    assert not torch.isfinite(norm([torch.tensor([1.0, float("nan")])]))


def test_shares_are_contiguous_and_even():
    assert [list(r) for r in shares(7, 3)] == [[0, 1], [2, 3], [4, 5, 6]]
    for count in range(20):
        for ranks in range(1, 9):
            dealt = shares(count, ranks)
            assert [i for r in dealt for i in r] == list(range(count))
            assert max(map(len, dealt)) - min(map(len, dealt)) <= 1


def test_gather_ordered_without_a_group():
    assert not dist.is_initialized() and "RANK" not in os.environ
    assert gather_ordered(torch.ones(2, 3), 1, 4).tolist() == [[0] * 3, [1] * 3, [1] * 3, [0] * 3]
