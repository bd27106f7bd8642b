"""Scores a trained network and every baseline on a split of a store, and says in plain words who wins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dsr.config import read_json
from dsr.data.store import Store
from dsr.errors import UserError
from dsr.files import whole_file, write_json
from dsr.progress import bar
from dsr.run import Run
from dsr.run.lock import check_links
from dsr.verify import intervals, metrics
from dsr.verify.baselines import Baselines, Batch, batches
from dsr.verify.evaluation import Evaluation, LeadSkill, RidgeFit, Scores, Skill, Spectrum, VariableSkill
from dsr.verify.words import LABELS, table

if TYPE_CHECKING:
    from dsr.data.features import Features

__all__ = ["evaluate", "score", "table"]

PICTURED = 32  # SSIM and spectra are means over at most so many samples, evenly spaced: they cost the most

Predict = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def evaluate(run: Path, store: Path | str | None = None, split: str = "test") -> Evaluation:
    """Score the run's network and every baseline on a split of `store` (the run's own by default).

    Writes the result to RUN/report/evaluation.json, and one sample's fields for the report's maps to example.npz.
    Raises UserError if there is no trained network, or the store does not fit it.
    """
    from dsr import predict

    folder = Run(run)
    network = predict.load(folder.model)
    settings = read_json(folder.experiment)["dsr"]["data"]
    own = settings["store"]
    if not (store or own):
        raise UserError(f"{folder.experiment}: dsr.data.store is not set: give the store with --data")
    opened = Store(store or own)
    _check_fits(opened, network.features, run)
    try:
        check_links(folder.folder)
        folder.report.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder.report}: cannot be written ({error.strerror})") from None
    result, example = score(opened, network, network.features, split)
    notes = list(result.notes)
    if some := settings.get("samples"):
        notes.append(
            f"The network was trained on {some} samples of the training split at most; the baselines saw all of it."
        )
    if network.description["fingerprint"] != opened.fingerprint:
        notes.append("This store is not the one that the network was trained on: its training split may differ.")
    result = replace(result, notes=notes)
    with whole_file(folder.example) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **example)
    write_json(folder.evaluation, result.to_json())
    return result


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
        how = "with" if features.ensemble else "without"
        raise UserError(f"{store.path}: a store of another run: {run} was trained {how} members")
    if features.seasonal and features.calendar != store.calendar:
        raise UserError(
            f"{store.path}: a store of another run: its calendar is {store.calendar}, {run} was trained on "
            f"{features.calendar}"
        )
    same = features.low_shape == tuple(store.low_shape) and features.shape == tuple(store.shape)
    if not same or not all(np.allclose(a, b) for a, b in zip(features.low_index, store.low_index, strict=True)):
        raise UserError(
            f"{store.path}: a store of another run: its grids are {store.low_shape} and {store.shape}, "
            f"those of {run} {features.low_shape} and {features.shape} (rows, columns; or they lie otherwise)"
        )


def score(store: Store, network: Predict, features: Features, split: str) -> tuple[Evaluation, dict[str, Any]]:
    """The scores of the network and of every baseline on a split, and one sample's fields for maps.

    The split is read once, in batches, so that memory does not grow with the number of samples. Raises UserError where
    the split is empty.
    """
    import xarray as xr

    samples = store.samples(split)
    if not len(samples):
        raise UserError(f"{store.path}: the {split} split is empty")
    names = [v.name for v in features.high]
    inside = store.mask(split)
    grid = store.grid("high")
    spacing, area = grid.spacing_km, grid.area() * inside
    pictured = np.unique(np.linspace(0, len(samples) - 1, PICTURED).round().astype(int))
    parts, closer, done = [], [], 0
    with bar() as progress:
        total = 2 * len(store.samples("train")) + len(store.samples("validation"))
        fitting = progress.add_task("fitting baselines", total=total)
        baselines = Baselines(store, features, lambda count: progress.advance(fitting, count))
        scoring = progress.add_task(f"evaluating on {split}", total=len(samples))
        for batch in batches(store, features, samples, values=2**20):
            fields = _predict(network, baselines, batch)
            parts.append(_per_sample(fields, batch, baselines, area))
            for i in pictured[(pictured >= done) & (pictured < done + len(batch.truth))] - done:
                closer.append(_closer(fields, batch.truth[i], i, features, inside, spacing))
            done += len(batch.truth)
            progress.advance(scoring, len(batch.truth))
    scores = xr.concat(parts, "sample")
    init, lead = store.low_init_time[samples], store.low_lead_time[samples]
    case = intervals.number_cases(init)
    leads = np.unique(lead).tolist()
    rows_by_lead = {t: np.flatnonzero(lead == t) for t in leads if len(leads) > 1}
    wavelengths = metrics.spectrum(_box(inside.astype(float), inside), spacing)[0].tolist()
    variables = {}
    for i, variable in enumerate(features.high):
        of_variable = scores.sel(variable=variable.name)
        found = _skill(of_variable, case)
        found["scores"]["ssim"] = {m: _number(_mean([c[m][i][0] for c in closer])) for m in closer[0] if m != "truth"}
        power = {m: [_number(p) for p in _mean([c[m][i][1] for c in closer])] for m in closer[0]}
        variables[variable.name] = VariableSkill(
            **found,
            units=variable.units,
            long_name=variable.long_name or variable.standard_name.replace("_", " ") or variable.name,
            leads=[
                LeadSkill(**_skill(of_variable.isel(sample=rows), case[rows]), lead_time=t, samples=len(rows))
                for t, rows in rows_by_lead.items()
            ],
            spectrum=Spectrum(wavelengths, power),
        )
    notes = []
    if store.region is not None:
        notes.append("Split by region: what is learned per cell elsewhere is one value for the training region.")
    result = Evaluation(
        split=split,
        times=len(np.unique(init + lead)),
        samples=len(samples),
        runs=len(np.unique(init)),
        independent_blocks=int(case.max()) + 1,
        methods={name: LABELS[name] for name in scores.method.values.tolist()},
        omitted=baselines.omitted,
        ridge=RidgeFit(baselines.ridge.design.predictors, baselines.ridge.penalties),
        lapse_rates={names[i]: rate for i, rate in baselines.lapse_rates.items()},
        notes=notes,
        variables=_decided(variables),
    )
    return result, _example(store, network, baselines, samples, scores, split)


def _predict(network: Predict, baselines: Baselines, batch: Batch) -> dict[str, np.ndarray]:
    seen = baselines.seen(batch)
    return {"network": network(seen.low, batch.init_time, batch.lead_time), **baselines(batch)}


def _per_sample(fields: dict[str, np.ndarray], batch: Batch, baselines: Baselines, area: np.ndarray) -> Any:
    import xarray as xr

    def array(values: np.ndarray) -> Any:
        return xr.DataArray(values.astype(np.float64), dims=("sample", "variable", "y", "x"))

    weights = xr.DataArray(area, dims=("y", "x"))
    variables = [v.name for v in baselines.features.high]
    overall = [baselines.features.statistics["high"][name]["mean"] for name in variables]
    references = {
        "correlation": xr.DataArray(overall, dims="variable"),
        "anomaly_correlation": array(baselines.climatology(batch.time)),
    }
    predictions = xr.concat([array(f) for f in fields.values()], "method").assign_coords(method=list(fields))
    scores = metrics.per_sample(predictions, array(batch.truth), weights, references)
    return scores.assign_coords(variable=variables)


def _closer(
    fields: dict[str, np.ndarray], truth: np.ndarray, row: int, features: Features, inside: np.ndarray, spacing: Any
) -> dict[str, list[tuple[float, np.ndarray]]]:
    """Of every method and the truth, for each variable: SSIM and the spectrum. A field with gaps has no spectrum."""
    spans = [features.statistics["high"][v.name] for v in features.high]
    result = {}
    for method, field in [(m, f[row]) for m, f in fields.items()] + [("truth", truth)]:
        pairs = []
        for own, true, span in zip(field, truth, spans, strict=True):
            similarity = metrics.ssim(own, true, span["maximum"] - span["minimum"], inside)
            pairs.append((similarity, metrics.spectrum(_box(own, inside), spacing)[1]))
        result[method] = pairs
    return result


def _box(field: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """The field over the smallest rectangle that holds the points inside; NaN in the rectangle's other points."""
    rows, columns = (np.flatnonzero(inside.any(axis)) for axis in (1, 0))
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    return np.where(inside[box], field[box], np.nan)


def _skill(scores: Any, case: np.ndarray) -> dict[str, Any]:
    """The fields of a Skill over the samples of `scores`, which belong to one variable; not yet decided."""
    pooled = metrics.pool(scores)
    methods = pooled.method.values.tolist()
    columns = {str(key): map(_number, values.values) for key, values in pooled.data_vars.items()}
    values: Scores = {key: dict(zip(methods, column, strict=True)) for key, column in columns.items()}
    rmse = {m: value for m, value in values["rmse"].items() if value is not None}
    winner = min(rmse, key=lambda m: rmse[m], default=None)
    return {"scores": values, "winner": winner, "difference": _differences(scores, rmse, case), "decided": None}


def _differences(scores: Any, rmse: dict[str, float], case: np.ndarray) -> dict[str, intervals.Difference]:
    """The network's RMSE minus each baseline's, with an interval where there are enough cases."""
    if "network" not in rmse:
        return {}
    weight = scores.weight.values
    there = weight > 0
    result = {}
    for method in (m for m in rmse if m != "network"):
        squares = scores.mse.sel({"method": ["network", method]}).transpose("method", "sample").values
        result[method] = intervals.rmse_difference(squares[:, there], weight[there], case[there])
    return result


def _decided(variables: dict[str, VariableSkill]) -> dict[str, VariableSkill]:
    """The same with `decided` set. One false discovery rate holds over all variables and leads together."""

    def tested(skill: Skill) -> float | None:
        best = skill.best_baseline
        return skill.difference[best].p if best in skill.difference else None

    skills = [skill for variable in variables.values() for skill in (variable, *variable.leads)]
    p_values = [tested(skill) for skill in skills]
    answers = iter(intervals.decided([p for p in p_values if p is not None]))
    decided = iter([None if p is None else next(answers) for p in p_values])
    return {
        name: replace(
            variable,
            decided=next(decided),
            leads=[replace(lead, decided=next(decided)) for lead in variable.leads],
        )
        for name, variable in variables.items()
    }


def _example(
    store: Store, network: Predict, baselines: Baselines, samples: np.ndarray, scores: Any, split: str
) -> dict[str, Any]:
    """The fields of the sample whose error by the network is the median one: neither its best nor its worst."""
    mse = scores.mse.sel({"method": "network"})
    error = (mse / mse.mean("sample")).mean("variable").values  # samples without truth come last
    row = samples[np.argsort(error, kind="stable")[len(error) // 2]]
    batch = next(batches(store, baselines.features, np.array([row])))
    fields = _predict(network, baselines, batch)
    return {
        **{method: f[0] for method, f in fields.items()},
        "truth": batch.truth[0],
        "calendar": store.calendar,
        "init_time": batch.init_time[0],
        "lead_time": batch.lead_time[0],
        "inside": store.mask(split),
        "spacing_km": np.array(store.grid("high").spacing_km),
        "north_up": store.grid("high").north_up,
    }


def _mean(values: list[Any]) -> Any:
    """The mean over those of the values (numbers or arrays) that are there; NaN where none is."""
    stacked = np.array(values, np.float64)
    good = np.isfinite(stacked)
    count = good.sum(0)
    return np.where(count > 0, np.where(good, stacked, 0).sum(0) / np.maximum(count, 1), np.nan)


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
