"""Real ranks for tests: processes of their own, forked from a server that has imported torch and deepspeed once."""

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from dsr.config import load
from dsr.data.store import Store
from dsr.data.stream import training_samples
from dsr.files import write_json
from dsr.run import Run
from dsr.scaling.deepspeed_config import deepspeed_config
from dsr.scaling.plan import make_plan
from dsr.train import engine
from dsr.train import loop as train
from tests.launched import PATIENCE

PRELOADED = [
    *("dsr.train", "deepspeed", "torch._inductor", "torch.utils.tensorboard", "matplotlib.backends.backend_agg"),
    *("dsr.data.fields", "xarray", "zarr", "scores", "aiohttp"),
]
SMALL = Path(__file__).parent / "small.json"
DEVICE = os.environ.get("DSR_TEST_DEVICE", "cpu")
context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(PRELOADED)


def skip_without_gpus(ranks: int) -> None:
    if DEVICE == "cuda" and torch.cuda.device_count() < ranks:
        pytest.skip(f"{ranks} ranks need as many GPUs")


def run_ranks(ranks: int, task: Callable[..., Any], *arguments: Any, log: Path) -> list[int]:
    """Call `task(*arguments)` in every rank of a group; their exit codes, what they print going to `log`."""
    skip_without_gpus(ranks)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = [(rank, ranks, port, str(log), task, arguments) for rank in range(ranks)]
    processes = [context.Process(target=_rank, args=each, daemon=True) for each in given]
    for process in processes:
        process.start()
    for process in processes:
        process.join(PATIENCE)
    for process in processes:
        process.kill()
        process.join()
    return [process.exitcode for process in processes]


def _rank(rank: int, ranks: int, port: int, log: str, task: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    variables = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in variables.items()})
    os.environ.update(OMP_NUM_THREADS="1", DS_ACCELERATOR=DEVICE)
    with Path(log).open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    task(*arguments)


def prepare(folder: Path, store: Path, *overrides: str, mode: str = "strong", gpus: int = 1, devices: int = 0) -> Run:
    """A run's folder, as `dsr launch` leaves it to the ranks."""
    experiment = load(SMALL, [f"dsr.data.store={store}", *overrides])
    samples = training_samples(Store(store), experiment.dsr.data)
    plan = make_plan(experiment, mode=mode, gpus=gpus, samples=samples, available=gpus, devices=devices)
    folder.mkdir(exist_ok=True)
    run = Run(folder)
    write_json(run.experiment, experiment.resolved())
    write_json(run.plan, asdict(plan))
    write_json(run.deepspeed, deepspeed_config(experiment, plan))
    run.set_status("running")
    return run


def train_main(folder: Path) -> None:
    """What the launcher starts in every rank."""
    sys.argv = ["dsr.train", "--run-dir", str(folder)]
    train.main()


def train_all(folders: list[Path]) -> None:
    """Several runs, one after the other in the same ranks."""
    device = engine.start()
    for folder in folders:
        train.train(Run(folder) if dist.get_rank() == 0 else None, device)
    engine.finish()
