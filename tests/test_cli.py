"""The command line: fast to start, short and clear when something is wrong."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.launched import dsr

FITTING = ["--set", "gradient_accumulation_steps=8", "--set", 'dsr.data.extras=["lead_time"]']  # the tiny store


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from dsr.cli import main; main(['--help'], standalone_mode=False); print('MODULES', *sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    modules = answer.stdout.partition("MODULES")[2].split()
    assert "click" in modules, answer.stderr
    assert not {"torch", "deepspeed", "xarray", "numpy", "pydantic", "rich", "zarr"} & set(modules)


def test_plan_as_json_has_the_contract_s_keys(tiny_store: Path) -> None:
    answer = dsr("plan", "--data", str(tiny_store), "--gpus", "1,2", *FITTING, "--json")
    assert answer.returncode == 0, answer.stderr
    cells = {(cell["mode"], cell["gpus"]): cell for cell in json.loads(answer.stdout)}
    assert cells["weak", 2]["effective_batch"] == 16
    assert cells["weak", 2]["slots"] == 16
    assert cells["strong", 2]["accumulation"] == 4
    keys = (
        "mode gpus devices micro_batch accumulation slots effective_batch learning_rate warmup_updates updates samples"
    )
    assert set(keys.split()) | {"rehearsal"} <= set(cells["strong", 2])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["launch", "--set", "dsr.modle.width=3"], "unknown key dsr.modle; did you mean model?"),
        (["launch", "--set", "dsr.model.widht=3"], "unknown key widht; did you mean width?"),
        (
            ["launch", "--set", "gradient_clippping=1"],
            "unknown key gradient_clippping; did you mean gradient_clipping?",
        ),
        (["launch", "--set", "dsr.seed=one"], "dsr.seed"),
        (["launch", "nowhere.json"], "nowhere.json: no such file"),
        (["launch", "--data", "nowhere.zarr"], "nowhere.zarr: no store there"),
        (["launch", "--gpus", "5"], "5 GPUs do not divide the 8 slots; the nearest that do are 4 and 8"),
        (["launch", "--gpus", "16"], "at most 8 GPUs fit, not 16"),
        (["launch", "--gpus", "8", "--mode", "weak"], "weak scaling fits at most 5 GPUs here"),
        (["launch", "--gpus", "2", "--mode", "sequential"], "--mode sequential is one GPU"),
        (["launch", "--gpus", "4", "--devices", "3"], "--devices 3 does not divide the 8 slots"),
        (["launch", "--gpus", "0"], "--gpus 0: must be at least 1"),
        (["launch", "--gpus", "0", "--mode", "auto"], "--gpus 0: must be at least 1"),
        (["launch", "--set", 'dsr.data.low=["q"]'], "no variable q there; the store has t, u"),
        (["plan", "--gpus", "2,0"], "give positive whole numbers"),
        (["launch", "--resume"], "--resume needs --run-dir"),
        (["evaluate", "nowhere"], "no trained network there"),
        (["data", "prepare", "--high", "nowhere.nc"], "-o STORE is missing"),
    ],
)
def test_what_is_wrong_is_told_in_two_lines_and_nothing_is_written(
    arguments: list[str], told: str, tiny_store: Path, tmp_path: Path
) -> None:
    if arguments[0] in ("launch", "plan"):
        arguments = [*arguments, *FITTING, *(["--data", str(tiny_store)] if "--data" not in arguments else [])]
    if arguments[0] == "launch" and "--resume" not in arguments:
        arguments = [*arguments, "--run-dir", str(tmp_path / "run")]
    answer = dsr(*arguments)
    assert answer.returncode == 2, answer.stdout + answer.stderr
    assert told in answer.stderr
    assert "Traceback" not in answer.stderr
    assert len(answer.stderr.strip().splitlines()) <= 2
    assert not list(tmp_path.iterdir())


def test_a_schema_for_editors() -> None:
    schema = json.loads(dsr("plan", "--schema").stdout)
    assert {"optimizer", "dsr", "extends"} <= set(schema["properties"])
