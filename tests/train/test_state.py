"""A network's buffers are a part of its state: of checkpoints, of the hash and of the saved model."""

import os
import shutil

import pytest
import torch

from dsr import components
from dsr.predict import load
from dsr.run import Run
from dsr.run.checkpoints import read_checkpoint, read_model, weights_sha256
from tests.ranks import prepare, run_ranks, train_main

pytestmark = pytest.mark.slow

SETS = [
    *("dsr.model=tests.networks:Normalised", "gradient_accumulation_steps=4", "dsr.budget.updates=6"),
    *("dsr.checkpoint.every=3", "dsr.validation.every=6"),
]


def train(folder) -> None:
    os.environ[components.ALLOWED] = "tests"
    train_main(folder)


def test_running_statistics_are_saved_resumed_and_hashed(tiny_store, tmp_path):
    """Of batch normalisation on one rank."""
    run = prepare(tmp_path / "run", tiny_store, *SETS)
    assert run_ranks(1, train, run.folder, log=tmp_path / "log") == [0], (tmp_path / "log").read_text()
    shutil.copytree(run.folder, tmp_path / "again")
    again = Run(tmp_path / "again")
    half, end = (read_checkpoint(path)[0]["network"] for path in run.list_checkpoints())
    assert not torch.equal(half["1.running_mean"], end["1.running_mean"]) and end["1.num_batches_tracked"] == 24
    sha256 = run.status()["weights_sha256"]
    assert sha256 == weights_sha256(end)
    assert sha256 != weights_sha256({**end, "1.running_mean": half["1.running_mean"]})
    shutil.rmtree(again.list_checkpoints()[-1])
    again.set_status("running")
    assert run_ranks(1, train, again.folder, log=tmp_path / "log") == [0]
    assert again.status()["weights_sha256"] == sha256
    assert torch.equal(read_model(run.model)[0]["1.running_mean"], end["1.running_mean"])
    assert torch.equal(load(run.model).module.network[1].running_mean.cpu(), end["1.running_mean"])
