"""The slot tree's shape and its exchange's cost, by hand; what ranks make of them, test_reduce.py holds."""

import pytest

from dsr.scaling.tree import cost, exchanges, split


def test_split_by_hand():
    assert split((0, 12)) == ((0, 8), (8, 12))
    assert split((0, 8)) == ((0, 4), (4, 8))
    assert split((8, 11)) == ((8, 10), (10, 11))
    assert split((3, 5)) == ((3, 4), (4, 5))


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
    assert cost(96, 3, 10**6)[0] <= 3
