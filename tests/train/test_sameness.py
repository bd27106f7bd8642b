"""Ranks that have other code, other data or other devices than the rest end before anything is trained."""

import json
import os
import platform
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr

from dsr.run import Run
from dsr.train.sameness import differences
from tests.launched import ROOT
from tests.ranks import prepare
from tests.stores import sign

pytestmark = pytest.mark.slow

SMALL = ["dsr.budget.updates=2", "dsr.log.every=1"]


def train(run: Run, places: list[tuple[Path, Path]]) -> tuple[list[int], str]:
    """Each rank with a Python path and a working folder of its own: the exit codes, and what was said."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": len(places), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": 1}
    shared |= {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    log = run.folder / "log"
    with log.open("w") as file:
        processes = []
        for rank, (path, folder) in enumerate(places):
            own = shared | {"RANK": rank, "LOCAL_RANK": rank, "PYTHONPATH": path}
            variables = os.environ | {name: str(value) for name, value in own.items()}
            line = [sys.executable, "-m", "dsr.train", "--run-dir", str(run.folder)]
            processes.append(subprocess.Popen(line, cwd=folder, env=variables, stdout=file, stderr=file))
        return [process.wait() for process in processes], log.read_text()


def check_nothing_was_trained(run: Run, what: str) -> None:
    status = json.loads((run.folder / "status.json").read_text())
    assert (status["state"], status["updates"]) == ("failed", 0)
    host = platform.node()
    assert status["reason"].startswith(f"the ranks would not train the same: rank 1 on {host}: {what} (")
    assert f"is not as on rank 0 on {host}" in status["reason"] and "\n" not in status["reason"]
    assert run.logged() == [] and not run.model.exists() and not run.list_checkpoints()


def test_a_rank_with_other_code(tiny_store, tmp_path):
    shutil.copytree(ROOT / "dsr", tmp_path / "other/dsr")
    code = tmp_path / "other/dsr/train/loop.py"
    text = code.read_text()
    assert text.count("loss = objective.of_slot(") == 1
    code.write_text(text.replace("loss = objective.of_slot(", "loss = 1.01 * objective.of_slot("))
    run = prepare(tmp_path / "run", tiny_store, *SMALL, gpus=2)
    codes, said = train(run, [(ROOT, tmp_path), (tmp_path / "other", tmp_path)])
    assert codes == [1, 1], said
    check_nothing_was_trained(run, "dsr's own code")
    assert "Traceback" not in said


def test_a_rank_with_other_data_under_the_same_name(tiny_store, tmp_path):
    for host in ("one", "two"):
        shutil.copytree(tiny_store, tmp_path / host / "store.zarr")
    field = zarr.open_group(tmp_path / "two/store.zarr", mode="r+")["high/field"]
    field[7, 0, 3, 3] += np.float32(0.5)
    sign(tmp_path / "two/store.zarr")
    run = prepare(tmp_path / "run", tiny_store, *SMALL, gpus=2)
    experiment = json.loads(run.experiment.read_text())
    experiment["dsr"]["data"]["store"] = "store.zarr"  # each rank's own
    run.experiment.write_text(json.dumps(experiment))
    codes, said = train(run, [(ROOT, tmp_path / "one"), (ROOT, tmp_path / "two")])
    assert codes == [1, 1], said
    check_nothing_was_trained(run, "the store's content")


ALIKE = {"code": "a", "torch": "2", "threads": "1"}


@pytest.mark.parametrize(
    ("ranks", "told"),
    [
        ([ALIKE] * 3, ""),
        ([ALIKE, ALIKE, ALIKE | {"torch": "3"}], "rank 2 on h2: torch (3) is not as on rank 0 on h0 (2)"),
        ([ALIKE | {"code": "b"}, ALIKE, ALIKE], "rank 0 on h0: code (b) is not as on rank 1 on h1 (a)"),
        (
            [ALIKE, ALIKE, ALIKE, ALIKE | {"threads": "2"}, ALIKE | {"threads": "4", "code": "0" * 64}],
            f"rank 4 on h4: code ({'0' * 12}) is not as on rank 0 on h0 (a); "
            "rank 3 on h3 and 1 more: threads (2) is not as on rank 0 on h0 (1)",
        ),
    ],
)
def test_the_odd_ranks_are_named_with_what_differs(ranks, told):
    found = differences([(f"h{rank}", own) for rank, own in enumerate(ranks)])
    assert found == (f"the ranks would not train the same: {told}" if told else "")
