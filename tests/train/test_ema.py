"""The average of the weights: by hand, and its place in the network."""

import pytest
import torch

from dsr.train.ema import Average


def test_the_mean_at_first_then_exponential():
    network = torch.nn.Linear(1, 1, bias=False)
    average = Average(network, 0.75)
    expected = 0.0
    for update in range(1, 9):
        weight = float(update**2)
        with torch.no_grad():
            network.weight.fill_(weight)
        average.update(update)
        kept = min(0.75, 1 - 1 / update)
        expected = kept * expected + (1 - kept) * weight
        assert average.values["weight"].item() == pytest.approx(expected)
        if update <= 4:
            assert expected == pytest.approx(sum(n**2 for n in range(1, update + 1)) / update)


def test_the_network_has_it_only_inside_and_a_frozen_weight_never():
    network = torch.nn.Linear(3, 3).to(torch.bfloat16)
    network.bias.requires_grad = False
    average = Average(network, 0.9)
    assert average.values.keys() == {"weight"} and average.values["weight"].dtype == torch.float32
    before = network.weight.detach().clone()
    average.values["weight"].fill_(0.5)
    with pytest.raises(ValueError, match="inside"), average.in_place():
        assert (network.weight == 0.5).all()
        raise ValueError("inside")
    assert torch.equal(network.weight, before)


def test_it_goes_on_from_what_was_saved():
    network = torch.nn.Linear(2, 2)
    saved = {name: value + 1 for name, value in Average(network, 0.9).values.items()}
    again = Average(network, 0.9, saved)
    assert all(torch.equal(again.values[name], saved[name]) for name in saved)
    again.update(50)
    assert torch.allclose(again.values["bias"], network.bias + 0.9)
