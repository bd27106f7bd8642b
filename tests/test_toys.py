"""The main job with a component of each kind from outside the package, as a user would write them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dsr.run import Run

pytestmark = pytest.mark.slow

TOYS = '''
import numpy as np
import torch

from dsr.cluster.launchers.local import Local
from dsr.models.losses import Loss
from dsr.models.networks import Network
from dsr.scaling.rules import Rule, Scaled
from dsr.verify.baselines import Baseline
from dsr.verify.metrics import Metric


class Convolution(Network):
    """One convolution, with a buffer that stays as it is."""

    size: int = 3

    def build(self, features):
        layer = torch.nn.Conv2d(len(features.channels), len(features.high), self.size, padding=self.size // 2)
        layer.register_buffer("fixed", torch.ones(2))
        return layer


class Normalised(Network):
    """A network with batch normalisation, which no exact training can have."""

    def build(self, features):
        first = torch.nn.Conv2d(len(features.channels), 4, 3, padding=1)
        return torch.nn.Sequential(first, torch.nn.BatchNorm2d(4), torch.nn.Conv2d(4, len(features.high), 1))


class Huber(Loss):
    """Squares of small errors, and large ones as they are."""

    delta: float = 1.0

    def __call__(self, output, target):
        error = (output - target).abs()
        small = error.clamp(max=self.delta)
        return small * (error - small / 2)


class Third(Rule):
    """A third of the way from the sequential rate to the linear rule's."""

    def scale(self, experiment, k):
        return Scaled(1 + (k - 1) / 3)


class Here(Local):
    """This host."""


class Fourth(Metric):
    """The fourth root of the mean fourth power of the error: no smaller than the RMSE."""

    label = "fourth"
    in_units = True
    best = "lowest"

    def sums(self, pair):
        return pair.total(pair.error**4)[..., None]

    def value(self, sums, weight):
        return (sums[..., 0] / weight) ** 0.25


class Zero(Baseline):
    """Nothing but zeros."""

    label = "zero"

    def fit(self, training):
        return lambda samples: np.zeros(samples.truth.shape, np.float32)
'''
CONFIG = {
    "train_micro_batch_size_per_gpu": 1,
    "gradient_accumulation_steps": 4,
    "optimizer": {"type": "Adam", "params": {"lr": 0.003}},
    "dsr": {
        "budget": {"updates": 6},
        "model": {"name": "toys.parts:Convolution", "size": 5},
        "loss": {"name": "toys.parts:Huber", "delta": 0.5},
        "scaling": {"rule": "toys.parts:Third", "warmup_epochs": 0},
    },
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the user's package and config."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "toys").mkdir()
    (folder / "toys/__init__.py").touch()
    (folder / "toys/parts.py").write_text(TOYS)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


def dsr(place: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    path = f"{Path(__file__).parents[1]}:{place}"
    command = [sys.executable, "-m", "dsr", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=place, env={**os.environ, "PYTHONPATH": path}, check=False
    )


@pytest.fixture(scope="module")
def run(place: Path, tiny_store: Path) -> Run:
    chosen = ["--launcher", "toys.parts:Here", "--mode", "weak", "--gpus", "2", "--run-dir", "run"]
    answer = dsr(place, "launch", "config.json", "--data", tiny_store, *chosen)
    assert answer.returncode == 0, answer.stderr
    return Run(place / "run")


def test_a_user_s_own_components_train(run: Run) -> None:
    assert run.status()["updates"] == 6
    plan = json.loads(run.plan.read_text())
    assert plan["learning_rate"] == pytest.approx(0.003 * 4 / 3)
    toys = json.loads(run.environment.read_text())["components"]["toys"]
    assert toys["version"] is None and len(toys["sha256"]) == 64
    experiment = json.loads(run.experiment.read_text())["dsr"]
    assert experiment["loss"] == CONFIG["dsr"]["loss"] and experiment["model"] == CONFIG["dsr"]["model"]


def test_a_user_s_own_network_is_evaluated_where_it_is_allowed(run: Run, place: Path) -> None:
    answer = dsr(place, "evaluate", "run")
    assert answer.returncode == 2 and "--allow-code toys" in answer.stderr
    own = ["--metric", "toys.parts:Fourth", "--baseline", "toys.parts:Zero"]
    answer = dsr(place, "evaluate", "run", "--allow-code", "toys", "--json", *own)
    assert answer.returncode == 0, answer.stderr
    result = json.loads(answer.stdout)
    assert result["methods"]["toys.parts:Zero"] == "zero"
    for values in result["variables"].values():
        for method, rmse in values["rmse"].items():
            if rmse is not None:
                assert values["toys.parts:Fourth"][method] >= rmse > 0
    page = (run.folder / "report/index.html").read_text()
    assert "fourth" in page and "zero" in page


def test_a_resume_refuses_changed_code(run: Run, place: Path) -> None:
    parts = place / "toys/parts.py"
    parts.write_text(TOYS + "\n")
    try:
        resume = ("launch", "--resume", "--run-dir", "run", "--launcher", "toys.parts:Here")
        answer = dsr(place, *resume, "--allow-code", "toys")
        assert answer.returncode == 2 and "the code of toys is not as in run" in answer.stderr
    finally:
        parts.write_text(TOYS)


def test_the_check_finds_a_network_exact(place: Path, tiny_store: Path) -> None:
    answer = dsr(place, "plan", "config.json", "--data", tiny_store, "--check")
    assert answer.returncode == 0 and answer.stdout.startswith("exact: 8 updates on 2 ranks, killed after"), answer


def test_the_check_catches_batch_normalisation(place: Path, tiny_store: Path) -> None:
    normalised = ["--set", "dsr.model=toys.parts:Normalised"]
    answer = dsr(place, "plan", "config.json", "--data", tiny_store, *normalised, "--check")
    assert answer.returncode == 1, answer
    assert answer.stdout.startswith("not exact: 8 updates on 2 ranks")
    assert "end with other buffers than on 1 rank: " in answer.stdout and "1.running_mean" in answer.stdout
