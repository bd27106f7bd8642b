"""The table of hashes: real ranks in every number that divides the slots, and rehearsals, end with the same bits."""

import json

import pytest

from tests.ranks import DEVICE, prepare, run_ranks, skip_without_gpus, train_all
from tests.stores import write_tiny_store

pytestmark = pytest.mark.slow

# 360 training samples (patches) with missing values; dropout, noise, crops, clipping, Adam and EMA are on.
SETS = [
    *("dsr.data.patch=8", "dsr.data.noise=0.1", "dsr.model.dropout=0.2", "gradient_clipping=0.05"),
    *("dsr.budget.updates=20", "dsr.validation.every=20", "dsr.checkpoint.every=20", "dsr.log.every=5"),
    "dsr.ema=0.8",
]
# (mode, slots of the sequential run, GPUs, devices)
STRONG = [("strong", 96, ranks, ranks) for ranks in (1, 2, 3, 4, 6, 8, 12, 16, 32)]
STRONG += [("strong", 96, gpus, 1) for gpus in (2, 8, 32)] + [("strong", 96, 32, 2)]
OTHER = [("strong", 40, 1, 1), ("strong", 40, 5, 5)]
WEAK = [("weak", 4, gpus, devices) for gpus in (2, 4, 8) for devices in (gpus, 1)] + [("weak", 4, 8, 2)]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Every run's status, and what its metrics say, but for the clock."""
    home = tmp_path_factory.mktemp("table")
    store = home / "store.zarr"
    write_tiny_store(store, missing=True)
    found = {}
    for devices in sorted({cell[3] for cell in (*STRONG, *OTHER, *WEAK) if DEVICE == "cpu" or cell[3] == 1}):
        runs = {}
        for cell in (*STRONG, *OTHER, *WEAK):
            if cell[3] == devices:
                mode, slots, gpus, _ = cell
                folder, sets = home / "-".join(map(str, cell)), [*SETS, f"gradient_accumulation_steps={slots}"]
                runs[cell] = prepare(folder, store, *sets, mode=mode, gpus=gpus, devices=devices)
        log = home / f"{devices}.log"
        codes = run_ranks(devices, train_all, [run.folder for run in runs.values()], log=log)
        assert codes == [0] * devices, log.read_text()[-4000:]
        for cell, run in runs.items():
            clock = ("time", "samples_per_second", "waiting_for_data")
            told = [{key: value for key, value in line.items() if key not in clock} for line in run.logged()]
            assert json.loads(run.plan.read_text())["rehearsal"] == (cell[2] > cell[3])
            found[cell] = json.loads((run.folder / "status.json").read_text())["weights_sha256"], told
            print(*cell, found[cell][0])
    return found


@pytest.mark.parametrize("cell", STRONG)
def test_strong_96_slots(table, cell):
    skip_without_gpus(cell[3])
    assert table[cell] == table[STRONG[0]]


def test_strong_40_slots_on_5_ranks(table):
    skip_without_gpus(5)
    assert table[OTHER[1]] == table[OTHER[0]]
    assert table[OTHER[0]][0] != table[STRONG[0]][0]


@pytest.mark.parametrize("gpus", [2, 4, 8])
def test_weak_and_its_rehearsals(table, gpus):
    skip_without_gpus(gpus)
    same = [table[cell] for cell in WEAK if cell[2] == gpus]
    assert len(same) >= 2 and all(one == same[0] for one in same)
    assert len({table[cell][0] for cell in WEAK}) == 3  # and weak runs differ from each other
