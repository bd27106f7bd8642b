"""What the tests of this room share: a quick experiment, its plan, and launches of ranks that do not train."""

import json
import os
import signal

import pytest

from dsr import config
from dsr.cluster import processes
from dsr.cluster.devices import find_devices
from dsr.cluster.ended import conclude
from dsr.cluster.start import plan_run, train
from dsr.run import Run, launches
from dsr.run.lock import hold
from dsr.task import Task
from tests.launched import ROOT

LONG = 100_000  # updates: nobody waits for the end


@pytest.fixture
def experiment(tmp_path):
    """A config of 4 slots whose network takes no time, which saves a checkpoint every 5 updates."""
    path = tmp_path / "tiny.json"
    dsr = {
        "budget": {"updates": LONG},
        "checkpoint": {"every": 5},
        "validation": {"every": LONG},
        "log": {"every": 1},
        "model": {"name": "deepdownscale", "width": 4, "blocks": 1},
    }
    optimizer = {"type": "Adam", "params": {"lr": 0.002}}
    sizes = {"train_micro_batch_size_per_gpu": 1, "gradient_accumulation_steps": 4}
    path.write_text(json.dumps({**sizes, "optimizer": optimizer, "dsr": dsr}))
    return path


def plan_of(experiment, devices, gpus=4, **more):
    return plan_run(config.load(experiment), devices, mode="strong", gpus=gpus, samples=40, **more)


def write(path, text):
    path.write_text(text)
    return path


PROLOGUE = """
import os, signal, socket, sys, time
from pathlib import Path
import psutil
from dsr.train import watch
from dsr.run import Run, launches
watch.rank_environment(os.environ)
run, rank = Run(Path(sys.argv[2])), int(os.environ["RANK"])
launcher = int(os.environ[launches.MARK].split(":")[2])

def obey(act):
    # Once both ranks listen, rank 0 does something; then both stop when they are asked to.
    watch.listen()
    (run.folder / f"rank{rank}").write_text(os.environ["MASTER_ADDR"])
    while len(list(run.folder.glob("rank?"))) < 2:
        time.sleep(0.05)
    rank or act()
    while not watch.stop_requested():
        time.sleep(0.05)
    rank or run.set_status("stopped", "saved", updates=9)

"""


@pytest.fixture
def stand_in(experiment, tmp_path, monkeypatch, capfd):
    """Launch two ranks that run the given code: (exit code, status, stderr). Nothing of them may be left."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell has it ignored

    def start(code, **options):
        (tmp_path / "stand_in.py").write_text(PROLOGUE + code)
        monkeypatch.setattr(processes, "TRAIN", "stand_in")
        monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
        devices = options.pop("devices", find_devices())
        plan = plan_of(experiment, devices, gpus=2, use=2)
        task = Task(config.load(experiment), "none", 40, "fingerprint")
        with hold(tmp_path / "run") as run, processes.stop_signals() as stop:
            code = conclude(run, train(run, task, plan, devices, stop, **options))
        assert processes.processes(launches.mark(os.getpid())) == []
        return code, Run(tmp_path / "run").status(), capfd.readouterr().err

    yield start
    signal.signal(signal.SIGINT, before)
