"""Training with real ranks: the same bits on any number of them, resuming, stopping, and what is refused."""

import json
import math
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr

from dsr.cluster.resume import WEIGHT_TOLERANCE
from dsr.config import validate
from dsr.data.features import Features
from dsr.data.order import order
from dsr.data.store import Store
from dsr.data.stream import Stream
from dsr.models.downscaler import Downscaler
from dsr.run import Run
from dsr.run.checkpoints import read_checkpoint, read_model
from dsr.scaling.plan import Plan
from dsr.train import gradients, watch
from dsr.train import loop as train
from tests.ranks import prepare, run_ranks, train_all, train_main
from tests.stores import sign, write_tiny_store

pytestmark = pytest.mark.slow

# 40 training samples: 3 updates an epoch at 12 slots of one sample. Dropout, clipping and Adam are on.
SMALL = [
    *("gradient_accumulation_steps=12", "gradient_clipping=0.05", "dsr.budget.updates=12", "dsr.log.every=1"),
    *("dsr.model.width=4", "dsr.model.blocks=1", "dsr.model.dropout=0.2", "dsr.validation.every=12"),
    "dsr.checkpoint.every=5",
]
CASES = {
    "adam": [],
    "schedule": ["optimizer.type=AdamW", 'scheduler={"type": "WarmupLR", "params": {"warmup_num_steps": 5}}'],
    "sgd": ['optimizer={"type": "SGD", "params": {"lr": 0.05, "momentum": 0.9}}', "dsr.loss=mae"],
    "patches": ["dsr.data.patch=8", "dsr.data.noise=0.1", "dsr.validation.every=5"],
    "place": ["dsr.model.place=true", "gradient_clipping=0"],
    "lars": [
        'optimizer={"type": "SGD", "params": {"lr": 0.5, "momentum": 0.9, "weight_decay": 0.01}}',
        'dsr.optimizer={"type": "LARS", "trust": 0.01}',
    ],
    "lamb": ["dsr.optimizer.type=LAMB", 'scheduler={"type": "WarmupLR", "params": {"warmup_num_steps": 5}}'],
    "lamb-bf16": ["dsr.optimizer.type=LAMB", "bf16.enabled=true"],
    "lamb-autocast": ["dsr.optimizer.type=LAMB", 'torch_autocast={"enabled": true, "dtype": "bfloat16"}'],
    "growth": ["gradient_accumulation_steps=6", 'dsr.scaling.growth={"epochs": [1, 2], "factor": 2}'],
    "growth-stock": [
        *("gradient_accumulation_steps=6", 'dsr.scaling.growth={"epochs": [1, 2], "factor": 2}'),
        "dsr.scaling.exact=false",
    ],
    "ema": ["dsr.ema=0.7", "dsr.validation.every=5"],
    "bf16": ["bf16.enabled=true", "gradient_clipping=0.05"],
    "autocast": ['torch_autocast={"enabled": true, "dtype": "bfloat16"}'],
    "stock": ["dsr.scaling.exact=false"],
    "unfused": ["optimizer.params.fused=false"],  # as at ZeRO stages 1 and 2
    "zero1": ["zero_optimization.stage=1"],
    "zero2": ["zero_optimization.stage=2"],
    "unfused in bf16": ["bf16.enabled=true", "optimizer.params.fused=false"],
    "zero1 in bf16": ["zero_optimization.stage=1", "bf16.enabled=true", "data_types.grad_accum_dtype=fp32"],
    "zero2 in bf16": ["zero_optimization.stage=2", "bf16.enabled=true"],
    "stock zero1": ["zero_optimization.stage=1", "dsr.scaling.exact=false"],
    "stock zero2": [
        *("zero_optimization.stage=2", "zero_optimization.reduce_bucket_size=10000", "dsr.scaling.exact=false")
    ],
    "zero3": ["zero_optimization.stage=3", 'optimizer={"type": "SGD", "params": {"lr": 0.05, "momentum": 0.9}}'],
    "stock zero2 in bf16": ["zero_optimization.stage=2", "bf16.enabled=true", "dsr.scaling.exact=false"],
    "zero3 in bf16": ["zero_optimization.stage=3", "bf16.enabled=true"],
    # several buckets, which go by shares on 2 and 4 ranks
    "wide": ["gradient_accumulation_steps=8", "dsr.model.width=128", "dsr.model.blocks=2"],
}
# Weak runs of 6 GPUs, 12 slots, on any devices that divide them.
ADASCALE = [
    *("dsr.scaling.rule=adascale", "gradient_accumulation_steps=2"),
    'optimizer={"type": "SGD", "params": {"lr": 0.05, "momentum": 0.9}}',
    'scheduler={"type": "WarmupLR", "params": {"warmup_num_steps": 5, "warmup_type": "linear"}}',
]
EXACT_ZERO = [name for name in CASES if name.startswith(("zero1", "zero2"))]
SHARDED = [name for name in CASES if name.startswith(("stock zero", "zero3"))]
STOCK = ["stock", "growth-stock", *SHARDED]
AT = {
    1: [*CASES, "adascale"],
    2: [
        *("schedule", "ema", "sgd", "patches", "bf16", "lars", "lamb-bf16", "adascale", "growth", "wide"),
        *(*EXACT_ZERO, *STOCK),
    ],
    3: ["adam", "place", "autocast", "lars", "lamb", "lamb-autocast", "adascale", "growth"],
    4: ["adam", "wide", "zero1", "zero2"],
    6: ["adam"],
}
EXACT = [(name, ranks) for ranks in AT if ranks > 1 for name in AT[ranks] if name not in STOCK]


def case(folder: Path, store: Path, name: str, ranks: int) -> Run:
    if name == "adascale":
        return prepare(folder, store, *SMALL, *ADASCALE, mode="weak", gpus=6, devices=ranks)
    return prepare(folder, store, *SMALL, *CASES[name], gpus=ranks)


@pytest.fixture(scope="module")
def runs(tiny_store, tmp_path_factory):
    """Every case at every number of ranks in AT, and the weak runs at 4 GPUs on 4 ranks and rehearsed on 1."""
    home = tmp_path_factory.mktemp("runs")
    found = {}
    for ranks, names in AT.items():
        here = {(name, ranks): case(home / f"{name}-{ranks}", tiny_store, name, ranks) for name in names}
        if ranks in (1, 4):
            sets = [*SMALL, "gradient_accumulation_steps=3", "dsr.scaling.warmup_epochs=2"]
            here["weak", ranks] = prepare(home / f"weak-{ranks}", tiny_store, *sets, mode="weak", gpus=4, devices=ranks)
        log = home / f"{ranks}.log"
        codes = run_ranks(ranks, train_all, [run.folder for run in here.values()], log=log)
        assert codes == [0] * ranks, log.read_text()[-4000:]
        found |= here
    return found


def told(run: Run) -> list[dict]:
    """What metrics.jsonl says, but for the clock."""
    return [
        {k: v for k, v in line.items() if k not in ("time", "samples_per_second", "waiting_for_data")}
        for line in run.logged()
    ]


def last_weights(run: Run) -> dict[str, torch.Tensor]:
    return read_checkpoint(run.list_checkpoints()[-1])[0]["network"]


@pytest.mark.parametrize(("name", "ranks"), EXACT)
def test_weights_losses_and_validation_are_the_same_bits_on_any_number_of_ranks(runs, name, ranks):
    one, many = runs[name, 1], runs[name, ranks]
    assert many.status()["weights_sha256"] == one.status()["weights_sha256"]
    assert told(many) == told(one)
    assert len([line for line in told(one) if "loss" in line]) == one.status()["updates"]
    assert one.status()["updates"] == 12 or name == "adascale"


@pytest.mark.parametrize("name", EXACT_ZERO)
def test_zero_stages_1_and_2_end_with_the_bits_of_stage_0(runs, name):
    sharded, whole = runs[name, 2], runs[f"unfused{name[5:]}", 1]
    assert sharded.status()["weights_sha256"] == whole.status()["weights_sha256"]
    assert told(sharded) == told(whole)


def test_a_rehearsal_is_the_real_run(runs):
    real, rehearsed = runs["weak", 4], runs["weak", 1]
    assert not json.loads(real.plan.read_text())["rehearsal"]
    assert json.loads(rehearsed.plan.read_text())["rehearsal"]
    assert told(rehearsed) == told(real)
    assert rehearsed.status()["weights_sha256"] == real.status()["weights_sha256"]


def test_the_runs_differ_where_they_should(runs):
    exact = {name for name, _ in EXACT} - {*EXACT_ZERO}
    assert len({runs[name, 1].status()["weights_sha256"] for name in exact}) == len(exact)
    weights = last_weights(runs["adam", 1])
    assert all(torch.isfinite(w).all() for w in weights.values())
    assert weights["tail.weight"].abs().max() > 0  # it starts at zero


def test_adascales_rates_follow_from_the_noise_and_end_the_run(runs):
    lines = [line for line in told(runs["adascale", 1]) if "loss" in line]
    progress = 0.0
    for line in lines:
        assert progress < 12
        phi = math.inf if line["noise_scale"] is None else line["noise_scale"] / 2  # in sequential batches of 2
        gain = (phi + 1) / (phi / 6 + 1) if math.isfinite(phi) else 6
        scheduled = 0.05 * min(int(progress) / 5, 1)
        assert line["learning_rate"] == pytest.approx(gain * scheduled, rel=1e-9)
        assert 1 <= gain <= 6
        progress += gain
    assert progress >= 12 and 2 < len(lines) < 12
    assert len({line["learning_rate"] for line in lines}) > 3


def test_the_share_of_waiting_for_data_is_logged(runs):
    def slow() -> Iterator[int]:
        for batch in range(3):
            time.sleep(0.02)
            yield batch

    waiting = train.Waiting(slow())
    assert list(waiting) == [0, 1, 2] and waiting.seconds >= 0.06
    shares = [line["waiting_for_data"] for run in runs.values() for line in run.logged() if "loss" in line]
    assert min(shares) > 0 and max(shares) < 1


def test_a_run_that_adascale_has_ended_is_not_played_on(runs, tiny_store, tmp_path):
    shutil.copytree(runs["adascale", 1].folder, tmp_path / "run")
    run = case(tmp_path / "run", tiny_store, "adascale", 1)  # it had ended, and was killed before it said so
    assert run_ranks(1, train_main, run.folder, log=tmp_path / "log") == [0]
    assert run.status()["weights_sha256"] == runs["adascale", 1].status()["weights_sha256"]
    assert told(run) == told(runs["adascale", 1])


def measure_every(slots: int, folder: Path) -> None:
    gradients.MEASURED = slots
    train_main(folder)


@pytest.mark.parametrize("every", [1, 5])
def test_the_noise_scale_is_that_of_the_slots_gradients(tiny_store, tmp_path, every):
    """The first update's, from gradients that plain torch makes of the same slots."""
    run = prepare(tmp_path / "run", tiny_store, *SMALL, "dsr.budget.updates=2")
    assert run_ranks(1, measure_every, every, run.folder, log=tmp_path / "log") == [0]
    experiment = validate(json.loads(run.experiment.read_text()), "")
    store = Store(tiny_store)
    features = Features.of(store, experiment.dsr.data)
    torch.manual_seed(1)
    network = experiment.dsr.model.build(features)
    stream, downscaler = Stream(store, features, experiment.dsr.data, "train", 1), Downscaler(features, network)
    gradients = []
    for _, _, batches in stream.slots(0, 1, 12, 1, range(12)):
        for slot, batch in enumerate(batches):
            torch.manual_seed(train.slot_seed(1, 0, slot))
            network.zero_grad()
            example = downscaler.example(batch)
            torch.nn.functional.mse_loss(network(example.inputs), example.target).backward()
            gradients.append(np.concatenate([p.grad.numpy().ravel() for p in network.parameters()]).astype(float))
    matrix = np.stack(gradients)  # a slot is one sample
    small = (matrix[::every] ** 2).sum(1).mean()
    big = (matrix.mean(0) ** 2).sum()
    variance, square = (small - big) / (1 - 1 / 12), (12 * big - small) / 11
    first = next(line for line in told(run) if "loss" in line)
    assert first["noise_scale"] == pytest.approx(variance / square, rel=1e-4)
    assert first["noise_scale_interval"] is None  # of one update
    low, high = told(run)[1]["noise_scale_interval"]
    assert low >= 0 and (high is None or low <= high)


def test_a_growing_batch_keeps_the_rate_and_takes_every_epochs_samples(runs):
    lines = [line for line in told(runs["growth", 1]) if "loss" in line]
    assert [line["effective_batch"] for line in lines] == [6] * 6 + [12] * 3 + [24] * 3
    assert [line["samples"] for line in lines] == [6, 12, 18, 24, 30, 36, 48, 60, 72, 96, 120, 144]
    epochs = [1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1, 4 / 3, 5 / 3, 2, 3, 4, 5]
    assert [line["epoch"] for line in lines] == pytest.approx(epochs)
    assert {line["learning_rate"] for line in lines} == {0.002}
    for ranks in (1, 2):  # DeepSpeed's own sum of the same slots
        stock = [line for line in told(runs["growth-stock", ranks]) if "loss" in line]
        np.testing.assert_allclose([s["loss"] for s in stock], [line["loss"] for line in lines], rtol=2e-3)
        assert [s["effective_batch"] for s in stock] == [line["effective_batch"] for line in lines]


def test_the_average_of_the_weights_is_validated_saved_and_hashed(runs):
    """Of a run that is otherwise "adam": its checkpoints hold its weights, and the average of them by the formula."""
    run, plain = runs["ema", 1], runs["adam", 1]
    assert [line for line in told(run) if "loss" in line] == [line for line in told(plain) if "loss" in line]
    saved = [read_checkpoint(path)[0] for path in run.list_checkpoints()]
    at_ten, at_end = saved[-2:]
    for name, weights in last_weights(plain).items():
        assert torch.equal(at_end["network"][name], weights)
    assert set(at_end["ema"]) == set(at_end["network"])
    assert any(not torch.equal(value, at_end["network"][name]) for name, value in at_end["ema"].items())
    assert run.status()["weights_sha256"] != plain.status()["weights_sha256"]
    scores = {line["update"]: line["validation"]["score"] for line in run.logged() if "validation" in line}
    best = min(scores, key=scores.get)
    assert best in (10, 12)
    model = read_model(run.model)[0]
    averages = {10: at_ten, 12: at_end}[best]["ema"]
    assert all(torch.equal(model[name], averages[name]) for name in averages)


def test_losses_fall_and_rates_warm_up(runs):
    lines = [line for line in told(runs["schedule", 1]) if "loss" in line]
    rates = [line["learning_rate"] for line in lines]
    assert rates[0] == rates[1] == 0 and rates[6:] == [0.002] * 6  # DeepSpeed plays the minimum twice
    losses = [line["loss"] for line in told(runs["adam", 1]) if "loss" in line]
    assert np.mean(losses[-3:]) < np.mean(losses[:3])  # the same three updates' samples, three epochs later


@pytest.mark.parametrize(
    ("name", "ranks"),
    [("stock", 1), ("stock", 2), ("stock zero1", 1), ("stock zero1", 2), ("stock zero2", 2)],
)
def test_stock_reduction_is_close_to_the_exact_one(runs, name, ranks):
    exact = [line["loss"] for line in told(runs["adam", 1]) if "loss" in line]
    stock = [line["loss"] for line in told(runs[name, ranks]) if "loss" in line]
    np.testing.assert_allclose(stock, exact, rtol=2e-3)
    assert stock[0] == exact[0]
    norms = [
        [line["gradient_norm"] for line in told(run) if "loss" in line] for run in (runs["adam", 1], runs[name, ranks])
    ]
    np.testing.assert_allclose(norms[1], norms[0], rtol=2e-2)
    assert {line["noise_scale"] for line in told(runs[name, ranks]) if "loss" in line} == {None}


def test_a_run_resumed_in_mid_epoch_on_other_ranks_ends_with_the_same_bits(runs, tiny_store, tmp_path):
    names = ["adam", "schedule", "ema", "sgd", "bf16", "autocast", "lars", "lamb", "lamb-bf16", "adascale", "growth"]
    names += ["zero1", "zero2 in bf16"]
    for name in names:
        shutil.copytree(runs[name, 1].folder, tmp_path / name)
        run = case(tmp_path / name, tiny_store, name, 3)
        ends = run.list_checkpoints()
        assert ends[0].name == ("update-00000010" if name != "adascale" else "update-00000005")
        shutil.rmtree(ends[1])  # as if killed before the end: neither 5 nor 10 is an epoch's end
    assert run_ranks(3, train_all, [tmp_path / name for name in names], log=tmp_path / "log") == [0] * 3
    for name in names:
        resumed, done = Run(tmp_path / name), runs[name, 1]
        assert resumed.status()["weights_sha256"] == done.status()["weights_sha256"]
        assert told(resumed) == told(done)  # no line stands twice


@pytest.mark.parametrize("ranks", [1, 3])
def test_a_sharded_run_goes_on_with_other_ranks_within_the_tolerance(runs, tiny_store, tmp_path, ranks):
    for name in SHARDED:
        shutil.copytree(runs[name, 2].folder, tmp_path / name)
        run = prepare(tmp_path / name, tiny_store, *SMALL, *CASES[name], gpus=ranks)
        shutil.rmtree(run.list_checkpoints()[-1])
    assert run_ranks(ranks, train_all, [tmp_path / name for name in SHARDED], log=tmp_path / "log") == [0] * ranks
    for name in SHARDED:
        assert distance(Run(tmp_path / name), runs[name, 2]) < tolerance(name)
        assert [line["update"] for line in told(Run(tmp_path / name)) if "loss" in line] == list(range(1, 13))


@pytest.mark.parametrize("name", SHARDED)
def test_where_it_is_not_exact_another_number_of_ranks_keeps_to_the_tolerance(runs, name):
    assert distance(runs[name, 2], runs[name, 1]) < tolerance(name)
    if name in ("stock zero1", "stock zero2"):
        assert distance(runs[name, 2], runs["adam", 1]) < tolerance(name)


def two_threads(folder: Path) -> None:
    os.environ["OMP_NUM_THREADS"] = "2"
    train_main(folder)


def test_another_number_of_threads_keeps_to_the_tolerance(runs, tiny_store, tmp_path):
    for name in ("adam", "wide"):
        run = prepare(tmp_path / name, tiny_store, *SMALL, *CASES[name])
        assert run_ranks(1, two_threads, run.folder, log=tmp_path / "log") == [0]
        assert distance(run, runs[name, 1]) < tolerance(name)


def tolerance(name: str) -> float:
    return WEIGHT_TOLERANCE["bf16" if "bf16" in name else "float32"]


def distance(run: Run, other: Run) -> float:
    """The norm of the difference of two runs' last weights, relative to the norm of the other's."""
    ours, theirs = (torch.cat([t.double().reshape(-1) for t in last_weights(r).values()]) for r in (run, other))
    return float((ours - theirs).norm() / theirs.norm())


def stop_in_fifth_update(folder: Path) -> None:
    calls = []

    def stop() -> bool:
        calls.append(1)
        return train.dist.get_rank() == 1 and len(calls) > 4 * 6  # it plays 6 slots of each update

    watch.stop_requested = stop
    train_main(folder)


def test_one_rank_that_is_asked_to_stop_stops_all_after_saving(runs, tiny_store, tmp_path):
    run = prepare(tmp_path / "run", tiny_store, *SMALL, gpus=2)
    assert run_ranks(2, stop_in_fifth_update, run.folder, log=tmp_path / "log") == [0, 0]
    status = run.status()
    assert json.loads((run.folder / "status.json").read_text())["state"] == "stopped"
    assert status["updates"] == 5
    assert "after update 5 of 12" in json.loads((run.folder / "status.json").read_text())["reason"]
    assert [path.name for path in run.list_checkpoints()] == ["update-00000005"]
    run.set_status("running")
    assert run_ranks(2, train_main, run.folder, log=tmp_path / "log") == [0, 0]
    assert run.status()["weights_sha256"] == runs["adam", 1].status()["weights_sha256"]


def test_a_rate_that_blows_up_stops_every_rank_before_the_optimizer(tiny_store, tmp_path):
    sets = [
        *SMALL,
        'optimizer={"type": "SGD", "params": {"lr": 1e30}}',
        "gradient_clipping=0",
        "dsr.checkpoint.every=1",
    ]
    run = prepare(tmp_path / "run", tiny_store, *sets, gpus=2)
    assert run_ranks(2, train_main, run.folder, log=tmp_path / "log") == [1, 1]
    status = json.loads((run.folder / "status.json").read_text())
    assert status["state"] == "failed"
    first = ", ".join(map(str, order(1, 0, 40, np.arange(12, 24))))
    assert status["reason"].startswith(f"the loss is not finite in update 2 (epoch 1), training samples {first}")
    assert [path.name for path in run.list_checkpoints()] == ["update-00000001"]
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_a_value_beyond_float32_is_named_by_its_sample(tmp_path):
    write_tiny_store(tmp_path / "store.zarr")
    zarr.open_group(tmp_path / "store.zarr", mode="r+")["high/field"][17, 0, 3, 3] = 1e30
    sign(tmp_path / "store.zarr")
    run = prepare(tmp_path / "run", tmp_path / "store.zarr", *SMALL, gpus=3)
    assert run_ranks(3, train_main, run.folder, log=tmp_path / "log") == [1] * 3
    update = int(np.flatnonzero(order(1, 0, 40, np.arange(40)) == 17)[0]) // 12 + 1
    reason = json.loads((run.folder / "status.json").read_text())["reason"]
    assert reason.startswith(f"the loss is not finite in update {update} (epoch 1), training samples 17:")


def test_a_users_error_inside_a_rank_is_one_line(tmp_path):
    write_tiny_store(tmp_path / "store.zarr")
    zarr.open_group(tmp_path / "store.zarr", mode="r+")["low/field"][:, 0, 0, 3, 3] = np.nan
    sign(tmp_path / "store.zarr")
    run = prepare(tmp_path / "run", tmp_path / "store.zarr", *SMALL, gpus=1)
    assert run_ranks(1, train_main, run.folder, log=tmp_path / "log") == [1]
    reason = json.loads((run.folder / "status.json").read_text())["reason"]
    assert reason.startswith("low-resolution values are missing (t 1 of 108")
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_what_a_finished_run_leaves(runs, tiny_store):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = runs["patches", 2]
    status = run.status()
    assert (status["state"], status["updates"], status["ranks"]) == ("finished", 12, 2)
    validated = [line["update"] for line in run.logged() if "validation" in line]
    assert validated == [5, 10, 12]
    board = EventAccumulator(str(run.folder))
    board.Reload()
    tags = board.Tags()
    assert [e.step for e in board.Scalars("train/loss")] == list(range(1, 13))
    scales = {line["update"]: line["noise_scale"] for line in run.logged() if line.get("noise_scale") is not None}
    assert scales and [e.step for e in board.Scalars("train/noise_scale")] == list(scales)
    assert [e.step for e in board.Scalars("validation/rmse_t")] == [5, 10, 12]
    logged = [line["validation"]["rmse"]["t"] for line in run.logged() if "validation" in line]
    np.testing.assert_allclose([e.value for e in board.Scalars("validation/rmse_t")], logged, rtol=1e-6)
    assert {"validation/t", "validation/p"} == set(tags["images"])
    hyper = board.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    assert b"model.width" in hyper and b"model.fold" in hyper and b"optimizer" in hyper and b"Adam" in hyper

    # the best network, rebuilt from its folder, has the validation error that the run logged
    from dsr.models.networks import NETWORKS

    weights, arrays, description = read_model(run.model)
    features = Features.restore(description["features"], {k: v.numpy() for k, v in arrays.items()})
    network = NETWORKS.make(description["network"]).build(features)
    network.load_state_dict(weights)
    network.eval()
    store = Store(tiny_store)
    stream = Stream(store, features, prepared_data(run), "validation", 0)
    batch = stream.read(0, np.arange(10))
    fields, _ = Downscaler(features, network).predict(batch.low, batch.scalars)
    truth = store.high[store.high_index[store.samples("validation")]]
    rmse = np.sqrt(((fields - truth) ** 2).mean((0, 2, 3)))
    best = min((line for line in run.logged() if "validation" in line), key=lambda line: line["validation"]["score"])
    assert description["updates"] == best["update"]
    np.testing.assert_allclose(rmse, [best["validation"]["rmse"][n] for n in ("t", "p")], rtol=1e-4)


def prepared_data(run: Run):
    return validate(json.loads(run.experiment.read_text()), "").dsr.data


def test_slot_seeds_differ():
    seeds = {train.slot_seed(s, u, k) for s in (1, 2) for u in range(50) for k in range(50)}
    assert len(seeds) == 5000
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_plan_json_is_the_plan(runs):
    values = json.loads(runs["weak", 4].plan.read_text())
    assert asdict(Plan(**values)) == values
