"""A run over 8, 3, 1 and 32 GPUs, killed and stopped on the way, ends with the bits of one that was left alone."""

import json
import os
import random
import signal

import pytest

from dsr.run import Run
from tests.launched import Launched

pytestmark = pytest.mark.slow

UPDATES = 60
CONFIG = {
    "train_micro_batch_size_per_gpu": 1,
    "gradient_accumulation_steps": 96,
    "gradient_clipping": 0.05,
    "optimizer": {"type": "AdamW", "params": {"lr": 0.002}},
    "dsr": {
        "budget": {"updates": UPDATES},
        "data": {"patch": 8, "noise": 0.1},  # 360 samples: 3 updates an epoch
        "checkpoint": {"every": 2},
        "validation": {"every": 7},
        "log": {"every": 1},
        "model": {"width": 4, "blocks": 1, "dropout": 0.2},
    },
}


def test_8_ranks_killed_3_stopped_1_killed_and_32_rehearsed_on_2(tiny_store, tmp_path):
    config = tmp_path / "config.json"
    config.write_text(json.dumps(CONFIG))

    def launched(folder, gpus, devices, *more):
        given = [config, "--data", tiny_store, "--gpus", gpus, "--devices", devices, *more]
        return Launched(folder, *given)

    with launched(tmp_path / "left alone", 2, 2) as one:
        assert one.end() == 0, one.said()
    reference = Run(tmp_path / "left alone")

    run = Run(tmp_path / "run")
    for gpus, number, code in ((8, signal.SIGKILL, 1), (3, signal.SIGTERM, 75), (1, signal.SIGKILL, 1)):
        with launched(run.folder, gpus, gpus, *(["--resume"] if gpus < 8 else [])) as one:
            one.wait_for_updates(random.randint(3, 12))
            os.kill(one.pid("rank" if number == signal.SIGKILL else "dsr launch"), number)
            assert one.end() == code, one.said()
        print(f"{gpus} GPUs, {number.name}: {run.list_checkpoints()[-1].name}")
    with launched(run.folder, 32, 2, "--resume") as one:
        assert one.end() == 0, one.said()

    assert run.status()["weights_sha256"] == reference.status()["weights_sha256"]
    told = [
        [
            {key: value for key, value in line.items() if key not in ("time", "samples_per_second", "waiting_for_data")}
            for line in each.logged()
        ]
        for each in (run, reference)
    ]
    assert told[0] == told[1]
    print(f"32 GPUs rehearsed on 2: {run.status()['weights_sha256']}, as of the run that was left alone")
