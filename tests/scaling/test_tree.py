"""The slot tree's shape and its exchange's cost, by hand; what ranks make of them, test_reduce.py holds."""

import pytest

from dsr.scaling.tree import cost, exchanges, sent, split, subtrees, trades


def test_split_by_hand():
    assert split((0, 12)) == ((0, 8), (8, 12))
    assert split((0, 8)) == ((0, 4), (4, 8))
    assert split((8, 11)) == ((8, 10), (10, 11))
    assert split((3, 5)) == ((3, 4), (4, 5))


def test_subtrees_by_hand():
    assert subtrees(12, 0, 12) == ((0, 12),)
    assert subtrees(12, 3, 12) == ((3, 4), (4, 8), (8, 12))
    assert subtrees(12, 3, 6) == ((3, 4), (4, 6))


def test_trades_by_hand():
    first, second = trades(18, 6, 4)  # blocks of 3 slots; pairs of ranks, then the three pairs
    assert first.partners == (4, 5) and first.held == (((12, 14), (14, 15)), ((15, 16), (16, 18)))
    assert second.partners == (0, 2, 4) and second.place == 2
    assert second.held == (((0, 4), (4, 6)), ((6, 8), (8, 12)), ((12, 16), (16, 18)))


def test_powers_of_two_are_recursive_doubling():
    for exchange in exchanges(32, 8):
        width = (exchange.node[1] - exchange.node[0]) // 4
        partners = {(source, target) for source, target, _ in exchange.messages}
        assert {(b, a) for a, b in partners} == partners and len(partners) == width
        assert all(abs(a - b) == width // 2 for a, b in partners)


def test_ranks_must_divide_the_slots():
    with pytest.raises(ValueError, match="5 ranks do not divide 12 slots"):
        exchanges(12, 5)


def test_cost_at_32_ranks():
    assert cost(32, 32, 2**20) == (10, 2 * 4 * (2**20 - 2**15))  # as many bytes as a ring's, in 10 messages for 62
    assert cost(32, 32, 1000) == (5, 5 * 4 * 1000)
    messages, size = cost(96, 32, 177_592)  # the default network; each block of 3 slots holds two subtrees
    assert messages == 15 and size <= 3e6


def test_shares_send_no_more_bytes_than_whole_sums():
    for ranks in (2, 3, 5, 7, 12, 24, 32, 61, 63):
        for slots in range(ranks, 129, ranks):
            busiest = [max(sent(slots, ranks, rank, 10**6, shared)[1] for rank in range(ranks)) for shared in (0, 1)]
            assert busiest[1] <= busiest[0]
            assert cost(slots, ranks, 10**6)[1] == busiest[1]
