"""Small ablation files for the tests of studies."""

import json
from pathlib import Path

from dsr.study import ablation as files
from dsr.study.cells import Expansion

BASE = {
    "train_micro_batch_size_per_gpu": 1,
    "gradient_accumulation_steps": 4,
    "optimizer": {"type": "Adam", "params": {"lr": 0.004, "adam_w_mode": False}},
    "dsr": {
        "budget": {"epochs": 2},
        "model": {"name": "deepdownscale", "width": 4, "blocks": 1},
        "scaling": {"rule": "none"},
        "log": {"every": 1},
    },
}


def linear(**more):
    return {"label": "weak, linear", "mode": "weak", "changes": ["dsr.scaling.rule=linear"], **more}


def study(folder: Path, store: Path, **changes):
    """An ablation file on the tiny store (40 training samples, 4 slots, so 10 updates an epoch)."""
    (folder / "base.json").write_text(json.dumps(BASE))
    values = {
        "title": "A tiny study",
        "base": "base.json",
        "data": {"tiny": {"label": "tiny data", "store": str(store)}},
        "arms": {
            "strong": {"label": "strong", "mode": "strong"},
            "none": {"label": "weak, rate kept", "mode": "weak"},
            "linear": linear(),
        },
        "gpus": [1, 2, 3, 4],
        "seeds": [1, 2],
        **changes,
    }
    path = folder / "study.json"
    path.write_text(json.dumps(values))
    return path


def expand(path, quick=False):
    return Expansion(*files.read(path, quick=quick))
