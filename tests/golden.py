"""Golden values: the losses of two short runs on each known kind of CPU; `python -m tests.golden` adds this one's."""

import json
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from dsr.files import write_json
from dsr.run.provenance import processor
from tests.ranks import prepare, run_ranks, train_all
from tests.stores import write_tiny_store

FILE = Path(__file__).with_suffix(".json")
SHORT = ["dsr.log.every=1", "dsr.validation.every=100", "dsr.model.blocks=2", "dsr.model.patterns=4"]
RUNS = {
    "strong, Adam, cosine schedule": (
        {"mode": "strong", "gpus": 4, "devices": 1},
        [
            *("gradient_accumulation_steps=8", "gradient_clipping=0.5", "dsr.budget.updates=10"),
            *("dsr.model.place=true", "dsr.model.dropout=0.1"),
            'scheduler={"type": "WarmupCosineLR", "params": {"total_num_steps": 10, "warmup_num_steps": 3}}',
        ],
    ),
    "weak, SGD, adascale": (
        {"mode": "weak", "gpus": 2, "devices": 1},
        [
            *("gradient_accumulation_steps=4", "dsr.scaling.rule=adascale", "dsr.budget.updates=16", "dsr.loss=mae"),
            'optimizer={"type": "SGD", "params": {"lr": 0.05, "momentum": 0.9}}',
        ],
    ),
}


def kind() -> str:
    """What decides the bits of a run: the kind of CPU, and the version of torch."""
    return f"{processor()}, torch {version('torch').partition('+')[0]}"


def losses(folder: Path, store: Path) -> dict[str, list[float]]:
    """The loss of every update of the runs, played in `folder`."""
    names = {name: folder / str(number) for number, name in enumerate(RUNS)}
    runs = {name: prepare(names[name], store, *SHORT, *sets, **options) for name, (options, sets) in RUNS.items()}
    log = folder / "log"
    if run_ranks(1, train_all, list(names.values()), log=log) != [0]:
        raise RuntimeError(log.read_text()[-4000:])
    return {name: [line["loss"] for line in run.logged() if "loss" in line] for name, run in runs.items()}


def known() -> dict[str, dict[str, list[float]]]:
    return json.loads(FILE.read_text())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_tiny_store(folder / "store.zarr")
        write_json(FILE, {**known(), kind(): losses(folder, folder / "store.zarr")})
    print(f"{FILE}: added {kind()}", file=sys.stderr)
