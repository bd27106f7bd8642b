"""LARS and LAMB against steps written by hand in numpy, and against torch where nothing is adapted."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dsr.config import validate
from dsr.scaling.deepspeed_config import deepspeed_config
from dsr.scaling.plan import make_plan
from dsr.train import engine
from dsr.train.optim import Lamb, Lars, build
from tests.ranks import run_ranks

WEIGHTS = [np.array([[3.0, 4.0], [0.0, 0.0]]), np.array([1.0, -2.0]), np.zeros((1, 2)), np.array([[0.3, -0.1]])]
GRADIENTS = [  # of two updates
    [np.array([[0.0, 1.0], [2.0, 2.0]]), np.array([0.5, 0.25]), np.array([[1.0, -1.0]]), np.zeros((1, 2))],
    [np.array([[1.0, 0.0], [-2.0, 1.0]]), np.array([-1.0, 0.5]), np.array([[2.0, 1.0]]), np.array([[4.0, 3.0]])],
]


def played(kind, gradients=GRADIENTS, weights=WEIGHTS, rates=(0.1, 0.05), **params):
    """The weights after each update, in float64 so that the reference can be close; the rate falls between."""
    parameters = [torch.nn.Parameter(torch.from_numpy(w.copy())) for w in weights]
    optimizer = kind(parameters, lr=rates[0], **params)
    found = []
    for rate, update in zip(rates, gradients, strict=True):
        optimizer.param_groups[0]["lr"] = rate
        for parameter, gradient in zip(parameters, update, strict=True):
            parameter.grad = torch.from_numpy(gradient)
        optimizer.step()
        found.append([p.detach().numpy().copy() for p in parameters])
    return found


def ratio(weight, other, value):
    """1 for vectors and where a norm is 0, else what the optimizer makes of the norms."""
    norms = np.sqrt((weight**2).sum()), np.sqrt((other**2).sum())
    return 1.0 if weight.ndim < 2 or 0 in norms else value(*norms)


def test_lars_by_hand():
    momentum, decay, trust = 0.9, 0.01, 0.02
    weights, buffers = [w.copy() for w in WEIGHTS], [np.zeros_like(w) for w in WEIGHTS]
    found = played(Lars, momentum=momentum, weight_decay=decay, trust=trust)
    for update, rate in enumerate((0.1, 0.05)):
        for i, g in enumerate(GRADIENTS[update]):
            w = weights[i]
            local = ratio(w, g, lambda of_w, of_g: trust * of_w / (of_g + decay * of_w))
            buffers[i] = momentum * buffers[i] + rate * local * (g + decay * w)
            weights[i] = w - buffers[i]
        for ours, hand in zip(found[update], weights, strict=True):
            np.testing.assert_allclose(ours, hand, rtol=1e-6, atol=1e-9)
    # the first weight in figures: |w| = 5, |g| = 3, r = 0.02 x 5 / (3 + 0.05) = 0.0327869, v = 0.1 r (g + 0.01 w)
    np.testing.assert_allclose(found[0][0][0], [3 - 0.00327869 * 0.03, 4 - 0.00327869 * 1.04], rtol=1e-7)


def test_lamb_by_hand():
    beta1, beta2, eps, decay = 0.8, 0.9, 1e-3, 0.1
    weights = [w.copy() for w in WEIGHTS]
    means, squares = [np.zeros_like(w) for w in WEIGHTS], [np.zeros_like(w) for w in WEIGHTS]
    found = played(Lamb, betas=(beta1, beta2), eps=eps, weight_decay=decay)
    for update, rate in enumerate((0.1, 0.05)):
        for i, g in enumerate(GRADIENTS[update]):
            w = weights[i]
            means[i] = beta1 * means[i] + (1 - beta1) * g
            squares[i] = beta2 * squares[i] + (1 - beta2) * g**2
            count = update + 1
            u = means[i] / (1 - beta1**count) / (np.sqrt(squares[i] / (1 - beta2**count)) + eps) + decay * w
            weights[i] = w - rate * ratio(w, u, lambda of_w, of_u: min(max(of_w / of_u, 0.01), 10.0)) * u
        for ours, hand in zip(found[update], weights, strict=True):
            np.testing.assert_allclose(ours, hand, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("scale", "bound"), [(1e-4, 0.01), (1e4, 10.0)])
def test_lambs_ratio_is_clamped(scale, bound):
    weight = np.array([[scale, -scale]])
    found = played(Lamb, [[np.array([[1.0, 1.0]])]], [weight], [0.1], eps=0.0)  # u = (1, 1)
    np.testing.assert_allclose(found[0][0], weight - 0.1 * bound, rtol=1e-7)


def test_without_adaptation_they_are_torchs():
    weights = [np.array([1.0, -2.0, 0.5])]
    gradients = [[np.array([0.3, 0.2, -1.0])], [np.array([-0.5, 0.1, 2.0])], [np.array([0.0, 0.1, 1.0])]]
    rates = [0.1] * 3
    lars = played(Lars, gradients, weights, rates, momentum=0.9, weight_decay=0.01)
    sgd = played(torch.optim.SGD, gradients, weights, rates, momentum=0.9, weight_decay=0.01)
    lamb = played(Lamb, gradients, weights, rates, betas=(0.8, 0.95), weight_decay=0.01)
    adamw = played(torch.optim.AdamW, gradients, weights, rates, betas=(0.8, 0.95), weight_decay=0.01)
    np.testing.assert_allclose(lars, sgd, rtol=1e-7)
    np.testing.assert_allclose(lamb, adamw, rtol=1e-7)


def test_parameters_without_a_gradient_are_left_alone():
    for kind in (Lars, Lamb):
        pair = [torch.nn.Parameter(torch.ones(2, 2)), torch.nn.Parameter(torch.ones(2, 2))]
        pair[0].grad = torch.ones(2, 2)
        kind(pair, lr=0.1).step()
        assert not torch.equal(pair[0], torch.ones(2, 2)) and torch.equal(pair[1], torch.ones(2, 2))


def test_build_reads_the_deepspeed_block():
    parameters = [torch.nn.Parameter(torch.ones(2))]
    lars = build("LARS", parameters, {"lr": 0.5, "momentum": 0.9, "nesterov": False}, None).param_groups[0]
    assert (lars["lr"], lars["momentum"], lars["trust"]) == (0.5, 0.9, 0.001)
    assert build("LARS", parameters, {"lr": 0.5}, 0.02).param_groups[0]["trust"] == 0.02
    lamb = build("LAMB", parameters, {"lr": 0.5, "betas": [0.8, 0.9], "torch_adam": True}, None)
    assert isinstance(lamb, Lamb) and lamb.param_groups[0]["betas"] == (0.8, 0.9)


def shapes(file: Path) -> None:
    """Write the shapes of what LAMB updates under bf16, and their type."""
    values = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 2,
        "bf16": {"enabled": True},
        "optimizer": {"type": "Adam", "params": {"lr": 0.1}},
        "dsr": {"optimizer": {"type": "LAMB"}},
    }
    experiment = validate(values, "test")
    plan = make_plan(experiment, mode="sequential", gpus=1, samples=2, available=1)
    engine.start()
    made, _ = engine.build(torch.nn.Conv2d(2, 3, 5), deepspeed_config(experiment, plan), experiment, plan)
    held = made.optimizer.param_groups[0]["params"]
    inner = type(made.optimizer.optimizer).__name__
    file.write_text(json.dumps([inner, [list(p.shape) for p in held], [str(p.dtype) for p in held]]))
    engine.finish()


@pytest.mark.slow
def test_under_bf16_deepspeed_gives_them_whole_layers_in_float32(tmp_path):
    assert run_ranks(1, shapes, tmp_path / "found", log=tmp_path / "log") == [0], (tmp_path / "log").read_text()
    assert json.loads((tmp_path / "found").read_text()) == ["Lamb", [[3, 2, 5, 5], [3]], ["torch.float32"] * 2]
