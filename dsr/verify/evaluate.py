"""Scoring of a trained network and every baseline on a split of a store."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dsr.config import read_json
from dsr.data.samples import Samples, read
from dsr.data.store import Store
from dsr.errors import UserError
from dsr.files import whole_file, write_json
from dsr.progress import bar
from dsr.run import Run
from dsr.run.lock import check_links
from dsr.verify import intervals
from dsr.verify.baselines import BASELINES, Fitted, NotPossible, label
from dsr.verify.evaluation import Evaluation, LeadSkill, RidgeFit, Scores, Skill, Spectrum, VariableSkill
from dsr.verify.metrics import METRICS
from dsr.verify.metrics.spectrum import spectrum
from dsr.verify.scoring import Tally, Truth
from dsr.verify.training import Training

if TYPE_CHECKING:
    from dsr.data.features import Features

PICTURED = 32  # SSIM and spectra, the most expensive, are means over at most this many evenly spaced samples

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
                f"{store.path}: does not fit this run: {group} lacks {', '.join(sorted(lacking))}, which {run} uses"
            )
    if features.ensemble != (store.members is not None):
        how = "with" if features.ensemble else "without"
        raise UserError(f"{store.path}: does not fit this run: {run} was trained {how} members")
    if features.seasonal and features.calendar != store.calendar:
        raise UserError(
            f"{store.path}: does not fit this run: its calendar is {store.calendar}, {run} was trained on "
            f"{features.calendar}"
        )
    same = features.low_shape == tuple(store.low_shape) and features.shape == tuple(store.shape)
    if not same or not all(np.allclose(a, b) for a, b in zip(features.low_index, store.low_index, strict=True)):
        raise UserError(
            f"{store.path}: does not fit this run: its grids are {store.low_shape} and {store.shape}, "
            f"those of {run} {features.low_shape} and {features.shape} (rows, columns; or their positions differ)"
        )


def score(store: Store, network: Predict, features: Features, split: str) -> tuple[Evaluation, dict[str, Any]]:
    """The scores of the network and of every baseline on a split, and one sample's fields for maps.

    The split is read once, in batches, so that memory does not grow with the number of samples. Raises UserError if
    the split is empty.
    """
    rows = store.samples(split)
    if not len(rows):
        raise UserError(f"{store.path}: the {split} split is empty")
    with bar() as progress, _one_thread():
        fitting = progress.add_task("fitting baselines", total=2 * len(store.samples("train")))
        training = Training(store, features, lambda count: progress.advance(fitting, count))
        baselines, omitted = fit_baselines(training)
        methods = _Methods(network, baselines, training)
        scoring = progress.add_task(f"evaluating on {split}", total=len(rows))
        tallies = _tally(store, methods, split, lambda count: progress.advance(scoring, count))
    init, lead = store.low_init_time[rows], store.low_lead_time[rows]
    case = intervals.number_cases(init)
    notes = []
    if store.region is not None:
        notes.append("Split by region: one value for the training region replaces the values per cell of baselines.")
    ridge = baselines["ridge"].regression
    lapse_rates = baselines["elevation"].lapse_rates if "elevation" in baselines else {}
    result = Evaluation(
        split=split,
        times=len(np.unique(init + lead)),
        samples=len(rows),
        runs=len(np.unique(init)),
        independent_blocks=int(case.max()) + 1,
        methods={name: label(name) for name in methods.names},
        omitted=omitted,
        ridge=RidgeFit(ridge.design.predictors, ridge.penalties),
        lapse_rates={features.high[i].name: rate for i, rate in lapse_rates.items()},
        notes=notes,
        variables=_decided(_variables(tallies, features, lead, case)),
    )
    return result, _example(store, methods, tallies.pooled, split)


def _one_thread() -> Any:
    """A context in which numpy, scipy and torch use one thread: with small arrays, more threads mostly wait."""
    import scipy.linalg  # noqa: F401  (only a loaded library can be limited)
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1)


def fit_baselines(training: Training) -> tuple[dict[str, Any], dict[str, str]]:
    """Every baseline that the store allows, fitted; and why the others are impossible."""
    fitted, omitted = {}, {}
    for name in BASELINES.table:
        try:
            fitted[name] = BASELINES.make(name).fit(training)
        except NotPossible as reason:
            omitted[name] = str(reason)
    return fitted, omitted


class _Methods:
    """The network and the baselines, as one function from samples to predictions."""

    def __init__(self, network: Predict, baselines: dict[str, Fitted], training: Training):
        self.network, self.baselines, self.training = network, baselines, training
        self.names = ["network", *baselines]

    def __call__(self, samples: Samples) -> dict[str, np.ndarray]:
        """{method: (n, variable, Y, X) float32}, within physical bounds; NaN where a method has no value."""
        low = self.training.seen(samples).low
        clip = self.training.features.clip
        predictions = {name: clip(baseline(samples)) for name, baseline in self.baselines.items()}
        return {"network": self.network(low, samples.init_time, samples.lead_time), **predictions}


@dataclass
class _Tallies:
    """The scores of a split: sums over all samples, sums over a subset, and spectra of that subset."""

    pooled: Tally
    sampled: Tally
    wavelengths: list[float]
    power: dict[str, list[np.ndarray]]  # {method or "truth": [(variable, bin)]}


def _tally(store: Store, methods: _Methods, split: str, advance: Callable[[int], object]) -> _Tallies:
    """Predict and score the samples of a split, batch by batch."""
    training, features, rows = methods.training, methods.training.features, store.samples(split)
    metrics = {name: METRICS.make(name) for name in METRICS.table}
    pooled = Tally({name: metric for name, metric in metrics.items() if not metric.sampled})
    sampled = Tally({name: metric for name, metric in metrics.items() if metric.sampled})
    inside, grid = store.mask(split), store.grid("high")
    spacing, area = grid.spacing_km, grid.area() * inside
    pictured = np.unique(np.linspace(0, len(rows) - 1, PICTURED).round().astype(int))
    statistics = [features.statistics["high"][v.name] for v in features.high]
    mean = np.array([s["mean"] for s in statistics])[:, None, None]
    span = np.array([s["maximum"] - s["minimum"] for s in statistics])[:, None, None]
    power: dict[str, list[np.ndarray]] = defaultdict(list)
    done = 0
    for samples in read(store, features, rows, values=2**20):
        predictions, climatology = methods(samples), training.climatology(samples.time)
        truth = Truth.of(samples.truth, area, mean=mean, span=span, climatology=climatology)
        pooled.add(truth, predictions)
        some = pictured[(pictured >= done) & (pictured < done + len(samples))] - done
        if len(some):
            shown = {method: fields[some] for method, fields in predictions.items()}
            some_truth = Truth.of(samples.truth[some], area, mean=mean, span=span, climatology=climatology[some])
            sampled.add(some_truth, shown)
            for method, fields in {**shown, "truth": samples.truth[some]}.items():
                power[method] += list(spectrum(_box(fields, inside), spacing)[1])
        done += len(samples)
        advance(len(samples))
    wavelengths = spectrum(_box(inside.astype(float), inside), spacing)[0].tolist()
    return _Tallies(pooled, sampled, wavelengths, power)


def _box(fields: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """The fields over the smallest rectangle that contains the points inside; NaN at its other points."""
    rows, columns = (np.flatnonzero(inside.any(axis)) for axis in (1, 0))
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    return np.where(inside[box], fields[..., *box], np.nan)


def _variables(tallies: _Tallies, features: Features, lead: np.ndarray, case: np.ndarray) -> dict[str, VariableSkill]:
    """The skill of each variable, not yet decided; lead and case (sample)."""
    everything = np.arange(len(lead))
    leads = {t: np.flatnonzero(lead == t) for t in np.unique(lead).tolist()}
    power = {method: _mean(np.stack(spectra)) for method, spectra in tallies.power.items()}
    of_all = _skills(tallies.pooled, everything, case)
    of_leads = {t: _skills(tallies.pooled, rows, case[rows]) for t, rows in leads.items() if len(leads) > 1}
    sampled = _scores(tallies.sampled, slice(None))
    result = {}
    for i, variable in enumerate(features.high):
        skill = of_all[i]
        result[variable.name] = VariableSkill(
            scores={**skill.scores, **sampled[i]},
            winner=skill.winner,
            difference=skill.difference,
            decided=None,
            units=variable.units,
            long_name=variable.long_name or variable.standard_name.replace("_", " ") or variable.name,
            leads=[LeadSkill(**vars(skills[i]), lead_time=t, samples=len(leads[t])) for t, skills in of_leads.items()],
            spectrum=Spectrum(
                tallies.wavelengths, {method: [_number(p) for p in powers[i]] for method, powers in power.items()}
            ),
        )
    return result


def _skills(tally: Tally, rows: np.ndarray, case: np.ndarray) -> list[Skill]:
    """The skill of each variable over the samples in `rows`, with their cases; not yet decided."""
    squares = np.stack([tally.of("rmse", method)[rows, :, 0] for method in tally.methods])  # (method, row, variable)
    weights = tally.weight()[rows]
    result = []
    for i, scores in enumerate(_scores(tally, rows)):
        rmse = {method: value for method, value in scores["rmse"].items() if value is not None}
        weight, there = weights[:, i], weights[:, i] > 0
        mean_square = dict(zip(tally.methods, squares[:, there, i] / weight[there], strict=True))
        difference = {
            method: intervals.rmse_difference(
                np.stack([mean_square["network"], mean_square[method]]), weight[there], case[there]
            )
            for method in rmse
            if "network" in rmse and method != "network"
        }
        result.append(Skill(scores, min(rmse, key=lambda m: rmse[m], default=None), difference, None))
    return result


def _scores(tally: Tally, rows: slice | np.ndarray) -> list[Scores]:
    """The scores of each variable over some samples."""
    values = {
        metric: {method: tally.values(metric, method, rows) for method in tally.methods} for metric in tally.metrics
    }
    return [
        {metric: {method: _number(v[i]) for method, v in methods.items()} for metric, methods in values.items()}
        for i in range(tally.weight().shape[1])
    ]


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


def _example(store: Store, methods: _Methods, tally: Tally, split: str) -> dict[str, Any]:
    """The fields of the sample with the median error of the network: neither its best nor its worst."""
    with np.errstate(divide="ignore", invalid="ignore"):
        mse = tally.of("rmse", "network")[..., 0] / tally.weight()
    error = _mean((mse / _mean(mse)).T)  # NaN for samples without truth, which come last
    rows = store.samples(split)
    row = rows[np.argsort(error, kind="stable")[len(error) // 2]]
    samples = next(read(store, methods.training.features, np.array([row])))
    return {
        **{method: fields[0] for method, fields in methods(samples).items()},
        "truth": samples.truth[0],
        "calendar": store.calendar,
        "init_time": samples.init_time[0],
        "lead_time": samples.lead_time[0],
        "inside": store.mask(split),
        "spacing_km": np.array(store.grid("high").spacing_km),
        "north_up": store.grid("high").north_up,
    }


def _mean(values: np.ndarray) -> np.ndarray:
    """The mean of the finite values along the first axis; NaN if there are none."""
    good = np.isfinite(values)
    count = good.sum(0)
    return np.where(count > 0, np.where(good, values, 0).sum(0) / np.maximum(count, 1), np.nan)


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
