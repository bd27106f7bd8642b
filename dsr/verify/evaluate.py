"""Scores a trained network and every baseline on a split of a store, and says in plain words who wins."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dsr.data.store import Store
from dsr.errors import UserError
from dsr.files import whole_file, write_json
from dsr.verify import metrics
from dsr.verify.baselines import Baselines, batches

if TYPE_CHECKING:
    from dsr.data.features import Features

LABELS = {
    "network": "network",
    "nearest": "nearest neighbour",
    "bilinear": "bilinear",
    "bicubic": "bicubic",
    "elevation": "bicubic + lapse rate",
    "bicubic_bias": "bicubic + bias of each cell",
    "climatology": "climatology by hour",
    "ridge": "ridge regression",
    "control": "control member, bicubic",
    "ensemble_mean": "ensemble mean, bicubic",
}
FEWEST_BLOCKS = 10  # with fewer independent blocks there is no interval
PICTURED = 64  # SSIM and spectra are means over at most so many samples, evenly spaced: they cost the most
DAY = 86400

Predict = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def evaluate(run: Path, store: Path | None = None, split: str = "test") -> dict[str, Any]:
    """Score the network of RUN/model on a split of `store` (the run's own by default); see `score` for the result.

    Leaves RUN/report/evaluation.json (the same) and example.npz (one sample's fields, for the report's maps). Raises
    UserError if there is no trained network, or the store does not fit it.
    """
    from dsr import predict

    if not (run / "model" / "model.json").is_file():
        raise UserError(f"{run}: no trained network there (model/model.json): has the run finished?")
    network = predict.load(run / "model")
    opened = Store(store or _trained_on(run))
    _check_fits(opened, network.features, run)
    result, example = score(opened, network, network.features, split)
    fingerprint = json.loads((run / "model" / "model.json").read_text()).get("fingerprint")
    if fingerprint not in (None, opened.fingerprint):
        result["notes"].append("This store is not the one that the network was trained on.")
    (run / "report").mkdir(exist_ok=True)
    with whole_file(run / "report" / "example.npz") as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **example)
    write_json(run / "report" / "evaluation.json", result)
    return result


def _trained_on(run: Path) -> Path | str:
    from dsr.data import simulate

    return json.loads((run / "experiment.json").read_text())["dsr"]["data"]["store"] or simulate.builtin()


def _check_fits(store: Store, features: Features, run: Path) -> None:
    """Raise UserError unless the store has the network's variables, members and grids."""
    groups = ((features.low, store.low_variables, "low"), (features.high, store.high_variables, "high"))
    for wanted, there, group in groups:
        lacking = {v.name for v in wanted} - {v.name for v in there}
        if lacking:
            raise UserError(
                f"{store.path}: a store of another run: {group} lacks {', '.join(sorted(lacking))}, which {run} uses"
            )
    if features.ensemble != (store.members is not None):
        raise UserError(
            f"{store.path}: a store of another run: {run} was trained {'with' if features.ensemble else 'without'} members"
        )
    same = features.low_shape == tuple(store.low_shape) and features.shape == tuple(store.shape)
    if not same or not all(np.allclose(a, b) for a, b in zip(features.low_index, store.low_index, strict=True)):
        raise UserError(
            f"{store.path}: a store of another run: its grids are {store.low_shape} and {store.shape}, "
            f"those of {run} {features.low_shape} and {features.shape} (rows, columns; or they lie otherwise)"
        )


def score(
    store: Store, network: Predict, features: Features, split: str
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The contract's dictionary (valid JSON: what cannot be had is None), and one sample's fields for maps.

    "variables": {name: {"units", metric: {method: value}, "leads": the pooled metrics of each lead time, "winner",
    "difference": {method: {"rmse": network - method, "interval": [low, high] or None}}, "spectrum"}}. The metrics are
    those of `metrics.pool` and ssim; `anomaly_correlation` is of departures from climatology by hour. Two passes over
    the split, in batches: memory holds a few hundred MB whatever the number of samples.
    """
    samples = store.samples(split)
    if not len(samples):
        raise UserError(f"{store.path}: the {split} split is empty")
    baselines = Baselines(store, features)
    grid = store.grid("high")
    inside = store.mask(split)
    area = metrics.cell_areas(grid) * inside
    pictured = set(np.unique(np.linspace(0, len(samples) - 1, PICTURED).round().astype(int)).tolist())

    def predict(batch: Any) -> dict[str, np.ndarray]:
        seen = baselines.seen(batch)
        return {"network": network(seen.low, batch.init_time, batch.lead_time), **baselines(batch)}

    parts, similarity, spectra, done = [], [], [], 0
    for batch in _progress(batches(store, features, samples, values=2**20), len(samples), f"Evaluating on {split}"):
        fields = predict(batch)
        parts.append(_per_sample(fields, batch, baselines, area))
        for i in sorted(pictured & set(range(done, done + len(batch.truth)))):
            similarity.append(_similarity(fields, batch.truth, i - done, features, inside))
            spectra.append(_spectra(fields, batch.truth, i - done, inside, metrics.spacing_km(grid)))
        done += len(batch.truth)
    import xarray as xr

    scores = xr.concat(parts, "sample")
    ...
