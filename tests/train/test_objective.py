"""The objective: by hand, and the same for one batch however it is cut into slots and dealt to ranks."""

import json

import numpy as np
import pytest
import torch

from dsr.config import validate
from dsr.data.features import Features
from dsr.data.store import Store
from dsr.data.stream import Stream
from dsr.errors import UserError
from dsr.models.downscaler import Downscaler
from dsr.models.losses import Loss
from dsr.models.losses.mae import MAE
from dsr.models.losses.mse import MSE
from dsr.run.checkpoints import read_checkpoint
from dsr.train.objective import objective
from tests.ranks import prepare, run_ranks, train_all
from tests.stores import write_tiny_store

CPU = torch.device("cpu")
NAN = float("nan")
# two slots of one sample with two variables of three points
TRUTH = torch.tensor([[[[1.0, 2.0, NAN]], [[NAN, NAN, NAN]]], [[[0.0, NAN, NAN]], [[5.0, 5.0, NAN]]]])
OUTPUT = torch.tensor([[[[2.0, 5.0, 9.0]], [[9.0, 9.0, 9.0]]], [[[4.0, 9.0, 9.0]], [[5.0, 3.0, 9.0]]]])


def parts(loss, truth=TRUTH, shares=(0.5, 0.5)):
    """The losses of the two slots, and their weights."""
    mask = torch.isfinite(truth)
    goal = objective(loss, list(shares), mask.sum((2, 3)).numpy(), 0, 2, CPU)
    cut = [(OUTPUT[i : i + 1], truth.nan_to_num()[i : i + 1], mask[i : i + 1].float()) for i in range(2)]
    return [goal.of_slot(*slot).item() for slot in cut], goal.weights


def test_by_hand():
    """Variable 1 has 3 points with errors 1, 3 and 4, variable 2 has 2 with 0 and 2."""
    assert parts(MSE())[0] == pytest.approx([(1 + 9) / 3 / 2, 16 / 3 / 2 + 4 / 2 / 2])
    assert parts(MAE())[0] == pytest.approx([(1 + 3) / 3 / 2, 4 / 3 / 2 + 2 / 2 / 2])
    assert parts(MSE())[1] == pytest.approx([2 / 3 / 2, 1 / 3 / 2 + 1 / 2])
    shares = MSE(weights={"p": 3.0}).shares(["t", "p"])
    assert shares == [0.25, 0.75]
    assert parts(MSE(), shares=shares)[0] == pytest.approx([10 / 3 / 4, 16 / 3 / 4 + 4 / 2 * 3 / 4])


def test_what_has_no_point_adds_nothing():
    empty = TRUTH.clone()
    empty[1] = NAN  # variable 2 has none left, and the second slot neither
    losses, weights = parts(MSE(), empty)
    assert losses == pytest.approx([(1 + 9) / 2 / 2, 0]) and weights == [1, 0]
    assert parts(MSE(), torch.full_like(TRUTH, NAN)) == ([0, 0], [0, 0])


def test_a_weight_of_an_unknown_variable_is_refused():
    with pytest.raises(UserError, match=r"dsr.loss.weights: t2 is not learnt here; did you mean t2m\?"):
        MSE(weights={"t2": 2.0}).shares(["t2m", "p"])


def test_a_loss_that_is_no_error_of_every_point_is_refused():
    class Mean(Loss):
        name: str = "mine:Mean"

        def __call__(self, output, target):
            return (output - target).square().mean()

    with pytest.raises(UserError, match=r"mine:Mean gives a tensor of \(\).*\(1, 2, 1, 3\)"):
        parts(Mean())


# ---- one update of 16 samples with missing values, by SGD at a rate of 1: it moves the weights by the gradient

SETS = [
    *('optimizer={"type": "SGD", "params": {"lr": 1.0}}', "gradient_clipping=0", "dsr.budget.updates=2"),
    *("dsr.log.every=1", "dsr.validation.every=2", "dsr.checkpoint.every=1"),
]
CUTS = {"whole": [], "patches": ["dsr.data.patch=12"]}
CELLS = [("whole", micro, ranks) for ranks in (1, 2, 4) for micro in (1, 2, 4)]
CELLS += [("patches", 1, 1), ("patches", 2, 2), ("patches", 4, 1)]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Of every cell, the losses and gradient norms of two updates, the first gradient, and the run."""
    home = tmp_path_factory.mktemp("objective")
    write_tiny_store(home / "store.zarr", missing=True)
    found = {}
    for ranks in (1, 2, 4):
        runs = {}
        for cell in (each for each in CELLS if each[2] == ranks):
            cut, micro, _ = cell
            sets = [f"train_micro_batch_size_per_gpu={micro}", f"gradient_accumulation_steps={16 // micro}"]
            folder = home / "-".join(map(str, cell))
            runs[cell] = prepare(folder, home / "store.zarr", *SETS, *CUTS[cut], *sets, gpus=ranks)
        log = home / f"{ranks}.log"
        assert run_ranks(ranks, train_all, [r.folder for r in runs.values()], log=log) == [0] * ranks, log.read_text()
        for cell, run in runs.items():
            lines = [(line["loss"], line["gradient_norm"]) for line in run.logged() if "loss" in line]
            after = read_checkpoint(run.list_checkpoints()[0])[0]["network"]
            found[cell] = lines, after, run
            print(*cell, *lines, run.status()["weights_sha256"][:12])
    return found


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
def test_loss_and_gradient_depend_on_neither_slots_nor_ranks(table, cell):
    """To the bit over ranks, and to float32's rounding over micro-batches."""
    cut, micro, _ = cell
    lines, weights, run = table[cell]
    if one := table.get((cut, micro, 1)):
        assert one[0] == lines and one[2].status()["weights_sha256"] == run.status()["weights_sha256"]
    first_lines, first_weights, _ = table[cut, 1, 1]
    np.testing.assert_allclose(lines, first_lines, rtol=2e-6)
    for name, value in first_weights.items():
        torch.testing.assert_close(weights[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("cut", CUTS)
def test_it_is_the_loss_and_gradient_of_the_whole_batch(table, cut):
    """From plain torch in float64, of all 16 samples at once."""
    lines, after, run = table[cut, 2, 2]
    chosen = validate(json.loads(run.experiment.read_text()), "").dsr
    store = Store(chosen.data.store)
    features = Features.of(store, chosen.data)
    torch.manual_seed(chosen.seed)
    network = chosen.model.build(features)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    stream = Stream(store, features, chosen.data, "train", chosen.seed)
    played = stream.slots(0, 1, 1, 16, range(1))
    _, counts, batches = next(played)
    example = Downscaler(features, network).example(next(batches))
    inputs, target, mask = (each.double() for each in (example.inputs, example.target, example.mask))
    error = (network.double()(inputs) - target).square() * mask
    loss = (error.sum((0, 2, 3)) / mask.sum((0, 2, 3))).mean()
    assert 0 < mask.mean() < 1 and counts.tolist() == [mask.sum((0, 2, 3)).tolist()]
    loss.backward()
    assert lines[0][0] == pytest.approx(loss.item(), rel=1e-6)
    norm = torch.cat([p.grad.flatten() for p in network.parameters()]).norm().item()
    assert lines[0][1] == pytest.approx(norm, rel=1e-5)
    for name, p in network.named_parameters():
        torch.testing.assert_close(before[name] - after[name], p.grad.float(), rtol=1e-4, atol=1e-6)
