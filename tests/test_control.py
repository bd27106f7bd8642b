"""The built-in model's flat, dry control: nearly linear, so that a network has nothing over ridge regression there."""

import json
from pathlib import Path

import pytest

from dsr.data.simulate import Settings, simulate
from tests.launched import dsr

pytestmark = pytest.mark.slow

CONFIG = {
    "train_micro_batch_size_per_gpu": 1,
    "gradient_accumulation_steps": 8,
    "gradient_clipping": 1.0,
    "optimizer": {"type": "Adam", "params": {"lr": 0.003}},
    "dsr": {"budget": {"epochs": 6}, "data": {"extras": ["lead_time"]}, "model": {"width": 32, "blocks": 1}},
}


def test_network_and_ridge_are_alike_where_nothing_is_nonlinear(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    settings = Settings(size=48, train=40, validation=6, test=10, leads=4, members=2, spinup=6, flat=True, dry=True)
    simulate(tmp_path / "flat.zarr", settings)
    place = ["--data", str(tmp_path / "flat.zarr"), "--run-dir", str(tmp_path / "run")]
    answer = dsr("launch", str(tmp_path / "config.json"), "--gpus", "2", *place)
    assert answer.returncode == 0, answer.stderr
    found = json.loads(dsr("evaluate", str(tmp_path / "run"), "--json").stdout)
    for name, scores in found["variables"].items():
        ratio = scores["rmse"]["network"] / scores["rmse"]["ridge"]
        assert 0.93 < ratio < 1.07, f"{name}: {ratio:.3f}"
