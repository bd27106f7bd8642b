"""What an update costs: ours against stock DeepSpeed, a plain PyTorch loop and DDP, interleaved in the same ranks."""

import functools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from dsr.config import Experiment, validate
from dsr.models.downscaler import Example
from dsr.models.networks.deepdownscale import DeepDownscale
from dsr.run import Run
from dsr.scaling.deepspeed_config import deepspeed_config
from dsr.scaling.plan import make_plan
from dsr.train import engine
from dsr.train import loop as train
from dsr.train.objective import objective
from tests.networks import features
from tests.ranks import SMALL, prepare, run_ranks
from tests.stores import write_tiny_store

CHANNELS, VARIABLES, MICRO_BATCH = 5, 2, 8
SLOTS = 8  # a rank, where memory and throughput are measured
SHORT = ["dsr.budget.updates=2", "dsr.log.every=1", "dsr.validation.every=2"]
NETS = {  # settings, side of the high grid, updates to time
    "tiny": (DeepDownscale(width=20, blocks=2, fold=2, patterns=8), 16, 600),  # about 17k parameters
    "mid": (DeepDownscale(width=288, blocks=1, fold=4, patterns=0), 32, 30),  # about 1.5M parameters
}
Update = Callable[[], None]


def cases(device: str) -> Iterator[dict[str, Any]]:
    """Every case of the table, measured."""
    for ranks in (1, 2) if device == "cpu" else (1,):
        for net, accumulation in (("tiny", 1), ("tiny", 8), ("mid", 1), ("mid", 8)):
            peer, goals = ("plain PyTorch", (1.08, 1.01)) if ranks == 1 else ("DDP", (1.05, 1.00))
            found = measure(device, ranks, net, accumulation)
            where = f"{net} net, {ranks} rank{'s' if ranks > 1 else ''}, accumulation {accumulation}"
            yield ratio_case(f"exact against stock reduction, {where}", found["ours"], found["stock"], 1.02)
            yield ratio_case(f"ours against {peer}, {where}", found["ours"], found["peer"], goals[net == "mid"])
            fused = ratio_case(f"ours against {peer} with fused Adam too, {where}", found["ours"], found["fused"], 0)
            yield {**fused, "goal": "none", "holds": None, "reason": "for comparison"}
    if device == "cpu":
        yield memory_case()
        yield joint_case()
        yield launch_case()


def ratio_case(name: str, ours: list[float], against: list[float], goal: float) -> dict[str, Any]:
    """A case whose ratio is that of the medians; seconds an update."""
    medians = statistics.median(ours), statistics.median(against)
    ratio = medians[0] / medians[1]
    value = [round(1e3 * median, 3) for median in medians]  # ms
    return {
        "name": name,
        "ours": medians[0],
        "against": medians[1],
        "value": value,
        "ratio": ratio,
        "goal": f"<= {goal:.2f}",
        "holds": ratio <= goal,
    }


def measure(device: str, ranks: int, net: str, accumulation: int) -> dict[str, list[float]]:
    """Seconds of every update of "ours", "stock" and "peer", interleaved in `ranks` real ranks (the slowest rank's)."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        codes = run_ranks(ranks, _measure, Path(folder), net, accumulation, device, log=log)
        if any(codes):
            raise RuntimeError(log.read_text()[-3000:])
        return json.loads(Path(folder, "found.json").read_text())


def _measure(folder: Path, net: str, accumulation: int, device_name: str) -> None:
    os.environ["DS_ACCELERATOR"] = device_name
    device = engine.start()
    makers = {"ours": ours, "stock": stock, "peer": peer, "fused": functools.partial(peer, fused=True)}
    updates = {name: make(net, accumulation, device) for name, make in makers.items()}
    count = NETS[net][2] // accumulation + 10
    seconds: dict[str, list[float]] = {name: [] for name in updates}
    for turn in range(count + 5):
        for name, update in updates.items():
            dist.barrier()
            begun = time.perf_counter()
            update()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if turn >= 5:  # warm
                seconds[name].append(time.perf_counter() - begun)
    slowest = torch.tensor(list(seconds.values()), dtype=torch.float64)
    dist.all_reduce(slowest, dist.ReduceOp.MAX)
    if dist.get_rank() == 0:
        found = dict(zip(seconds, slowest.tolist(), strict=True))
        Path(folder, "found.json").write_text(json.dumps(found))
    del updates, update  # DDP must end before the group does
    engine.finish()


def memory_case() -> dict[str, Any]:
    """Peak memory of one rank that plays 8 slots of the mid net, ours beyond stock's, in copies of its gradients."""
    peaks = {}
    for name in ("ours", "stock"):
        with tempfile.TemporaryDirectory() as folder:
            assert run_ranks(1, _peak, Path(folder), name, log=Path(folder, "log")) == [0]
            peaks[name] = json.loads(Path(folder, "peak.json").read_text())
    copies = (peaks["ours"][0] - peaks["stock"][0]) / peaks["ours"][1]
    allowed = SLOTS.bit_length()  # log2(slots) + 1
    return {
        "name": f"peak memory beyond stock's, in gradient copies, mid net, {SLOTS} slots a rank",
        "ours": peaks["ours"][0],
        "against": peaks["stock"][0],
        "value": round(copies, 2),
        "ratio": peaks["ours"][0] / peaks["stock"][0],
        "goal": f"<= {allowed} copies",
        "holds": copies <= allowed,
    }


def _peak(folder: Path, name: str) -> None:
    device = engine.start()
    update = {"ours": ours, "stock": stock}[name]("mid", SLOTS, device)
    for _ in range(5):
        update()
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    gradients = 4 * sum(p.numel() for p in network("mid", device).parameters())
    Path(folder, "peak.json").write_text(json.dumps([peak, gradients]))
    engine.finish()


def joint_case() -> dict[str, Any]:
    """2 ranks against two independent processes that run together: updates a second of 8 slots a rank, in turns."""
    with tempfile.TemporaryDirectory() as name:
        folder, begin = Path(name), time.time() + 15

        def group(number: int, ranks: int, turn: int) -> None:
            run_ranks(ranks, _take_turns, folder / f"{number}", begin, turn, log=folder / f"log{number}")

        groups = [(0, 2, 0), (1, 1, 1), (2, 1, 1)]
        threads = [threading.Thread(target=group, args=each) for each in groups]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        rates = [np.array(json.loads((folder / f"{number}").read_text())) for number, _, _ in groups]
    together, apart = 2 * rates[0], rates[1] + rates[2]
    medians = float(np.median(together)), float(np.median(apart))
    return {
        "name": "throughput of 2 ranks against two independent processes together, mid net",
        "ours": medians[0],
        "against": medians[1],
        "value": [round(each, 3) for each in medians],
        "ratio": medians[0] / medians[1],
        "goal": ">= 0.97",
        "holds": medians[0] / medians[1] >= 0.97,
    }


def _take_turns(file: Path, begin: float, turn: int) -> None:
    """Note this group's updates a second in each of its turns of three seconds."""
    update, rates = ours("mid", SLOTS, engine.start()), []
    update()
    if time.time() > begin:
        raise RuntimeError("the ranks took longer to start than the time they were given")
    for round_ in range(12):
        time.sleep(max(0.0, begin + 3 * (2 * round_ + turn) - time.time()))
        begun = time.perf_counter()
        for _ in range(8):
            update()
        rates.append(8 / (time.perf_counter() - begun))
    if dist.get_rank() == 0:
        file.write_text(json.dumps(rates))
    engine.finish()


def launch_case() -> dict[str, Any]:
    """Seconds from the command to the first update: `dsr launch` against DeepSpeed's launcher with the same script."""
    ours_, against = [], []
    with tempfile.TemporaryDirectory() as name:
        store = Path(name, "store.zarr")
        write_tiny_store(store)
        for turn in range(6):
            run = Path(name, f"ours{turn}")
            line = [*(sys.executable, "-m", "dsr", "launch", str(SMALL), "--gpus", "2", "--devices", "2")]
            line += ["--data", str(store), "--run-dir", str(run)]
            line += [part for each in SHORT for part in ("--set", each)]
            ours_.append(_seconds_to_first_update(line, run, {}))
            bare = prepare(Path(name, f"bare{turn}"), store, *SHORT, gpus=2).folder
            line = [*(sys.executable, "-m", "deepspeed.launcher.runner", "--num_gpus", "2", "--no_local_rank")]
            line += ["--module", "dsr.train", "--run-dir", str(bare)]
            against.append(_seconds_to_first_update(line, bare, {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}))
    return ratio_case("dsr launch to the first update against DeepSpeed's bare launcher", ours_, against, 1.10)


def _seconds_to_first_update(line: list[str], folder: Path, variables: dict[str, str]) -> float:
    begun = time.perf_counter()
    with subprocess.Popen(
        line, env={**os.environ, **variables}, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    ) as process:
        while not Run(folder).metrics.exists():
            if process.poll():
                raise RuntimeError(f"{line} failed")
            time.sleep(0.005)
        return time.perf_counter() - begun


def network(net: str, device: torch.device) -> torch.nn.Module:
    settings, side, _ = NETS[net]
    torch.manual_seed(0)
    return settings.build(features(CHANNELS, range(CHANNELS - 1, CHANNELS), VARIABLES, (side, side))).to(device)


def examples(net: str, count: int, device: torch.device) -> list[Example]:
    """The slots of this rank, held in memory: what is timed is the update, not the loader."""
    side = NETS[net][1]
    random = torch.Generator().manual_seed(dist.get_rank())

    def field(channels: int) -> torch.Tensor:
        return torch.randn(MICRO_BATCH, channels, side, side, generator=random).to(device)

    return [Example(field(CHANNELS), field(VARIABLES), torch.ones_like(field(VARIABLES))) for _ in range(count)]


def experiment(accumulation: int, exact: bool) -> Experiment:
    values = {
        "train_micro_batch_size_per_gpu": MICRO_BATCH,
        "gradient_accumulation_steps": accumulation * dist.get_world_size(),
        "gradient_clipping": 0.0,
        "optimizer": {"type": "Adam", "params": {"lr": 1e-4, "adam_w_mode": False, "torch_adam": True}},
        "dsr": {"budget": {"updates": 1}, "scaling": {"exact": exact}},
    }
    return validate(values, "benchmark")


def masked_mean(output: torch.Tensor, example: Example) -> torch.Tensor:
    """The mean squared error of one micro-batch, as a training of one's own would have it."""
    return ((output - example.target) * example.mask).square().sum() / example.mask.sum().clamp(min=1)


def ours(net: str, accumulation: int, device: torch.device) -> Update:
    """One update as dsr.train plays it."""
    chosen, ranks = experiment(accumulation, True), dist.get_world_size()
    plan = make_plan(chosen, mode="strong", gpus=ranks, samples=10**6, available=ranks)
    deepspeed, reduction = engine.build(network(net, device), deepspeed_config(chosen, plan), chosen, plan)
    first = dist.get_rank() * accumulation
    mine, slots = range(first, first + accumulation), examples(net, accumulation, device)
    counts = np.full((plan.slots, VARIABLES), MICRO_BATCH * NETS[net][1] ** 2)

    def update() -> None:
        goal = objective(chosen.dsr.loss, [1 / VARIABLES] * VARIABLES, counts, first, plan.slots, device)
        totals = train.play(deepspeed, reduction, goal, 0, 0, mine, iter(slots), device)
        train.check_finite(totals, 0, None, plan)  # type: ignore[arg-type]
        deepspeed.step()

    return update


def stock(net: str, accumulation: int, device: torch.device) -> Update:
    """The same update by DeepSpeed as it comes: its own reduction, its engine untouched."""
    import deepspeed

    chosen, ranks, model = experiment(accumulation, False), dist.get_world_size(), network(net, device)
    plan = make_plan(chosen, mode="strong", gpus=ranks, samples=10**6, available=ranks)
    config = {key: value for key, value in deepspeed_config(chosen, plan).items() if key != "dsr"}
    own, *_ = deepspeed.initialize(model=model, model_parameters=list(model.parameters()), config=config)
    slots = examples(net, accumulation, device)

    def update() -> None:
        own.train()
        for example in slots:
            own.backward(masked_mean(own(example.inputs), example))
            own.step()

    return update


def peer(net: str, accumulation: int, device: torch.device, fused: bool | None = None) -> Update:
    """The same update without DeepSpeed: a plain loop, or with more ranks torch's DistributedDataParallel."""
    from contextlib import nullcontext

    from torch.nn.parallel import DistributedDataParallel

    plain = network(net, device)
    model = DistributedDataParallel(plain) if dist.get_world_size() > 1 else plain
    optimizer = torch.optim.Adam(plain.parameters(), lr=1e-4, fused=fused)
    slots = examples(net, accumulation, device)

    def update() -> None:
        model.train()
        for i, example in enumerate(slots):
            last = i == len(slots) - 1
            wait = model.no_sync() if model is not plain and not last else nullcontext()  # type: ignore[operator]
            with wait:
                (masked_mean(model(example.inputs), example) / accumulation).backward()
        optimizer.step()
        optimizer.zero_grad()

    return update
