"""The first network: it starts as its base, takes any grid, and learns places only where it stays in place."""

import pytest
import torch

from dsr.errors import UserError
from dsr.models.networks import NETWORKS
from dsr.models.networks.deepdownscale import DeepDownscale
from tests.networks import features


@pytest.mark.parametrize("shape", [(24, 24), (23, 31), (4, 5)])
@pytest.mark.parametrize("static", [range(0), range(3, 5)])
@pytest.mark.parametrize("place", [False, True])
def test_an_untrained_network_adds_nothing_on_any_grid(shape: tuple[int, int], static: range, place: bool) -> None:
    network = DeepDownscale(width=8, place=place).build(features(5, static, 2, shape))
    output = network(torch.randn(3, 5, *shape))
    assert output.shape == (3, 2, *shape)
    assert not output.any()


def test_one_step_moves_both_tails_and_what_feeds_them() -> None:
    torch.manual_seed(0)
    network = DeepDownscale(width=8, blocks=1, place=True).build(features(4, range(3, 4), 1, (16, 16)))
    inputs, target = torch.randn(2, 4, 16, 16), torch.randn(2, 1, 16, 16)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    losses = []
    for _ in range(20):
        loss = (network(inputs) - target).square().mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0]
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in network.parameters())


def test_without_places_a_window_sees_what_the_whole_sees_there() -> None:
    torch.manual_seed(0)
    network = DeepDownscale(width=8, blocks=1).build(features(4, range(3, 4), 1, (48, 48)))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    inputs = torch.randn(1, 4, 48, 48)
    inner = network(inputs)[..., 16:32, 16:32]
    torch.testing.assert_close(network(inputs[..., 4:44, 4:44])[..., 12:28, 12:28], inner)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UserError, match="unknown key widht; did you mean width"):
        NETWORKS.make({"name": "deepdownscale", "widht": 3})
    with pytest.raises(UserError, match="not one of deepdownscale"):
        NETWORKS.make("unet")
    assert DeepDownscale(place=True).is_local and not DeepDownscale().is_local


@pytest.mark.parametrize("place", [False, True])
def test_a_field_that_goes_round_the_earth_has_no_seam(place: bool) -> None:
    """What is turned by whole squares stays the same field, turned; a patch does not go round."""
    torch.manual_seed(0)
    network = DeepDownscale(width=8, blocks=2, place=place).build(features(4, range(3, 4), 1, (16, 40), periodic=True))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    if network.place is not None:
        torch.nn.init.constant_(network.place, 0.5)
    inputs = torch.randn(1, 4, 16, 40)
    torch.testing.assert_close(network(inputs.roll(12, -1)), network(inputs).roll(12, -1))
    if not place:
        limited = DeepDownscale(width=8, blocks=2).build(features(4, range(3, 4), 1, (16, 40)))
        limited.load_state_dict(network.state_dict())
        assert not torch.allclose(network(inputs), limited(inputs))
        torch.testing.assert_close(network(inputs[..., :20]), limited(inputs[..., :20]), rtol=0, atol=0)


def test_columns_that_do_not_fill_squares_go_round_too() -> None:
    network = DeepDownscale(width=8).build(features(4, range(3, 4), 1, (15, 42), periodic=True))
    assert network(torch.randn(1, 4, 15, 42)).shape == (1, 1, 15, 42)
