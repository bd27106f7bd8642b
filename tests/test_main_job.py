"""The main job from end to end, by the commands that a user types, on a small built-in archive."""

import json
from pathlib import Path

import pytest
import xarray as xr

from dsr.data.output import export_forecast
from dsr.data.simulate import Settings, simulate
from dsr.data.store import Store
from tests.launched import Launched, dsr, instead_of_training, wait_until

pytestmark = pytest.mark.slow

CONFIG = {
    "train_micro_batch_size_per_gpu": 1,
    "gradient_accumulation_steps": 4,
    "gradient_clipping": 1.0,
    "optimizer": {"type": "Adam", "params": {"lr": 0.003, "torch_adam": True}},
    "dsr": {
        "budget": {"epochs": 3},
        "data": {"extras": ["solar_zenith", "lead_time"]},
        "model": {"width": 8, "blocks": 1, "place": True},
    },
}

# In the place of dsr.train: once a checkpoint is there its ranks wait to be asked to stop, lest the run end before.
WAITING = """
import time
from dsr.train import loop as train
from dsr.train import watch
asked, folder = watch.stop_requested, train.Path(train.sys.argv[2])

def wait():
    while list(folder.glob("checkpoints/update-*")) and not asked():
        time.sleep(0.02)
    return asked()

watch.stop_requested = wait
train.main()
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "small.zarr"
    simulate(path, Settings(size=24, train=6, validation=2, test=2, leads=2, members=2, spinup=2))
    return path


@pytest.fixture(scope="module")
def run(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    given = ["--data", str(store), "--run-dir", str(folder / "run")]
    answer = dsr("launch", str(folder / "config.json"), "--gpus", "4", "--mode", "strong", "--devices", "2", *given)
    assert answer.returncode == 0, answer.stderr
    assert "rehearsing on 2" in answer.stderr
    return folder / "run"


def test_a_run_leaves_what_the_contract_says(run: Path) -> None:
    status = json.loads((run / "status.json").read_text())
    assert status["state"] == "finished"
    assert status["updates"] == 9
    assert len(status["weights_sha256"]) == 64
    for name in ("experiment.json", "deepspeed.json", "plan.json", "environment.json", "metrics.jsonl"):
        assert (run / name).stat().st_size
    assert list(run.glob("events.out.*"))
    assert (run / "model" / "model.safetensors").exists()
    assert not [path for path in run.rglob("*") if path.suffix in (".pt", ".pkl", ".bin")]
    assert json.loads((run / "deepspeed.json").read_text())["gradient_accumulation_steps"] == 2


def test_tensorboard_reads_loss_skill_and_pictures(run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run))
    events.Reload()
    scalars = {
        "train/loss",
        "train/learning_rate",
        "train/gradient_norm",
        "train/samples_per_second",
        "train/waiting_for_data",
    }
    assert scalars | {"train/effective_batch", "validation/rmse_t2m"} <= set(events.Tags()["scalars"])
    assert "validation/skill_against_bicubic_t2m" in events.Tags()["scalars"]
    assert "validation/t2m" in events.Tags()["images"]
    assert [event.step for event in events.Scalars("validation/rmse_t2m")] == [3, 6, 9]


def test_evaluate_gives_the_contract_s_json_and_a_report(run: Path) -> None:
    answer = dsr("evaluate", str(run), "--json")
    assert answer.returncode == 0, answer.stderr
    found = json.loads(answer.stdout)
    assert found["split"] == "test"
    assert found["times"] == 4
    for name in ("t2m", "u10", "v10", "tp", "msl"):
        rmse = found["variables"][name]["rmse"]
        assert {"network", "nearest", "bilinear", "bicubic", "ridge", "climatology", "ensemble_mean"} <= set(rmse)
    assert "<img" in (run / "report" / "index.html").read_text()


def test_predict_writes_a_high_resolution_forecast(run: Path, store: Path, tmp_path: Path) -> None:
    export_forecast(Store(store), "test", tmp_path / "low.nc")
    answer = dsr("predict", str(run), str(tmp_path / "low.nc"), "-o", str(tmp_path / "high.nc"))
    assert answer.returncode == 0, answer.stderr
    with xr.open_dataset(tmp_path / "high.nc", decode_timedelta=True) as forecast:
        assert forecast["t2m"].sizes["y"] == 24
        assert forecast["tp"].min() >= 0
        assert forecast["t2m"].attrs["standard_name"] == "air_temperature"
    again = dsr("predict", str(run), str(tmp_path / "low.nc"), "-o", str(tmp_path / "high.nc"))
    assert again.returncode == 2
    assert "exists" in again.stderr


def test_a_stopped_run_resumes_on_other_gpus_to_the_same_bits(run: Path, store: Path, tmp_path: Path) -> None:
    whole = json.loads((run / "status.json").read_text())["weights_sha256"]
    folder, config = tmp_path / "run", run.parent / "config.json"
    often = ["--set", "dsr.checkpoint.every=1"]
    given = [str(config), "--data", str(store), "--run-dir", str(folder), *often]
    waiting = instead_of_training(tmp_path, "waiting", WAITING)
    with Launched(folder, config, "--data", store, *often, "--gpus", 2, **waiting) as one:
        wait_until(lambda: list(folder.glob("checkpoints/update-*")) or one.process.poll() is not None)
        one.process.terminate()
        assert one.end() == 75, one.said()
    assert json.loads((folder / "status.json").read_text())["state"] == "stopped"

    other = dsr("launch", "--resume", "--gpus", "1", *given, "--set", "dsr.seed=2")
    assert other.returncode == 2
    assert "dsr.seed is not as in" in other.stderr
    weak = dsr("launch", "--resume", "--mode", "weak", "--gpus", "2", *given)
    assert weak.returncode == 2
    assert "mode" in weak.stderr

    answer = dsr("launch", "--resume", "--gpus", "1", "--run-dir", str(folder))
    assert answer.returncode == 0, answer.stderr
    status = json.loads((folder / "status.json").read_text())
    assert (status["state"], status["updates"], status["weights_sha256"]) == ("finished", 9, whole)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert len({line["update"] for line in lines if "validation" in line}) == 3
