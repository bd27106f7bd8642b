"""The report of a run: who wins, one case as maps, the skill tables, training and spectra, on one page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from dsr.config import read_json
from dsr.data.calendar import label
from dsr.report import evaluation_figures as figures
from dsr.report import evaluation_words as words
from dsr.report.pages import Picture, Row, Table, Verdict, file_picture, saved_picture
from dsr.report.pages import write as write_page
from dsr.run import Run
from dsr.run.lock import check_links
from dsr.verify.baselines import label as method_label
from dsr.verify.evaluation import Evaluation, VariableSkill
from dsr.verify.intervals import FEWEST_CASES


def write(run: Path, evaluation: Evaluation) -> Path:
    """Write RUN/report/index.html, whole or not at all, and its pictures as PNG files; returns the page's path.

    The fields of the maps are those that `evaluate` saved in RUN/report/example.npz; the training curve comes from
    metrics.jsonl and is omitted if there is none.
    """
    folder = Run(run)
    check_links(folder.folder)
    folder.report.mkdir(exist_ok=True)
    with np.load(folder.example) as file:
        example = dict(file)
    plan = read_json(folder.plan) if folder.plan.exists() else {}
    return write_page(
        folder.page,
        "evaluation.html",
        title=Path(run).resolve().name,
        facts=[" · ".join(_facts(evaluation, plan))],
        split=evaluation.split,
        verdicts=_verdicts(evaluation),
        caution=words.caution(evaluation),
        skill=saved_picture(
            figures.skill(evaluation),
            folder.report / "skill.png",
            "RMSE of every method on the test data, divided by that of ridge regression. A diamond left of 1: the "
            "network beats ridge regression.",
        ),
        case=_case(example),
        maps=[_maps(evaluation, example, index, folder.report) for index in range(len(evaluation.variables))],
        tables=[_table(evaluation, variable) for variable in evaluation.variables],
        notes=_notes(evaluation),
        leads=saved_picture(
            figures.by_lead(evaluation),
            folder.report / "leads.png",
            "RMSE by lead time, without climatology and without the ensemble mean, which equals bicubic.",
        ),
        others=_others(evaluation, folder),
    )


def _facts(evaluation: Evaluation, plan: dict[str, Any]) -> list[str]:
    facts = [f"{evaluation.split} split: {evaluation.samples} samples, {evaluation.times} valid times"]
    if plan:
        facts.append(
            f"trained {plan.get('mode')}, {plan.get('gpus')} GPU(s), effective batch {plan.get('effective_batch')}"
        )
        facts.append(f"{plan.get('updates')} updates on {plan.get('samples')} samples")
    return facts


def _verdicts(evaluation: Evaluation) -> list[Verdict]:
    pairs = zip(words.headlines(evaluation), evaluation.variables.items(), strict=True)
    return [Verdict(name, text.removeprefix(f"{name}: "), _kind(skill)) for text, (name, skill) in pairs]


def _kind(skill: VariableSkill) -> str:
    if words.undecided(skill):
        return "close"
    return "wins" if skill.winner == "network" else "loses"


def _case(example: dict[str, Any]) -> str:
    init, lead, calendar = int(example["init_time"]), int(example["lead_time"]), str(example["calendar"])
    valid, start = (label(seconds, calendar).replace("T", " ") for seconds in (init + lead, init))
    forecast = f", forecast of {start} at +{lead / 3600:g} h" if lead else ""
    return f"Valid {valid} UTC{forecast}. This is the case with the network's median error: not its best nor its worst."


def _maps(evaluation: Evaluation, example: dict[str, Any], index: int, folder: Path) -> Picture | None:
    name, skill = list(evaluation.variables.items())[index]
    fields = {m: example[m][index] for m in (*evaluation.methods, "truth") if m in example}
    caption = (
        f"{skill.long_name}: top: the fields on one colour scale; bottom: their errors (method minus truth), "
        "red is too high, blue too low."
    )
    file = folder / f"maps_{re.sub(r'[^a-zA-Z0-9_.-]', '_', name)}.png"
    return saved_picture(figures.maps(fields, example, f"{name} ({skill.units})", evaluation.methods), file, caption)


def _table(evaluation: Evaluation, variable: str) -> Table:
    """The skill table of a variable, best method first, the winner marked."""
    skill, lines = evaluation.variables[variable], []
    for method, cells in words.rows(evaluation, variable):
        wins = method == skill.winner
        kinds = ["winner"] * wins + ["network"] * (method == "network")
        heading = evaluation.methods[method] + " ★" * wins
        lines.append(Row([heading, *(cell or "–" for cell in cells)], " ".join(kinds)))
    title = variable if skill.long_name == variable else f"{skill.long_name} ({variable})"
    return Table(["method", *words.columns()], lines, f"{title}, {skill.units}")


def _notes(evaluation: Evaluation) -> list[str]:
    interval = "There are too few independent cases for an interval."
    if evaluation.independent_blocks >= FEWEST_CASES:
        interval = f"Brackets give its 95 % confidence interval. {words.criterion(evaluation)}"
    return [
        "★ lowest RMSE. Scores are pooled over all times and points in physical units, weighted by the area of cells, "
        "without missing truth. The anomaly correlation is of departures from climatology by hour; SSIM is the mean "
        "over up to 32 evenly spaced samples.",
        f"The last column is the network's RMSE minus the method's: below zero, the network is better. {interval}",
        f"Ridge regression has {evaluation.ridge.predictors} predictors, from the same input as the network; its "
        "penalty is chosen on the validation split.",
        *(f"{name}: fitted lapse rate {1000 * rate:.1f} per km." for name, rate in evaluation.lapse_rates.items()),
        *(f"Omitted: {method_label(method)}: {reason}." for method, reason in evaluation.omitted.items()),
        *evaluation.notes,
    ]


def _others(evaluation: Evaluation, folder: Run) -> list[tuple[str, Picture | None]]:
    """(heading, picture) of the sections that are omitted if there is no picture."""
    training = saved_picture(
        figures.training(folder.logged()),
        folder.report / "training.png",
        "Left: the loss that is minimised, in normalised units. Right: RMSE on the validation split relative to "
        "bicubic interpolation, from which the network starts (or to the first validation, if the low-resolution data "
        "lack the variable); below the dashed line, the network has learned something.",
    )
    growth = file_picture(
        folder.report / "error_growth.png",
        "Error growth of the simulated low-resolution forecasts: RMSE of the control and of the ensemble mean against "
        "the coarsened truth, the spread of the members, and the error at which no skill is left.",
    )
    spectra = saved_picture(
        figures.spectra(evaluation),
        folder.report / "spectra.png",
        "Radially averaged power spectra (discrete cosine transform, mean over test fields). Below the truth: too "
        "smooth at that wavelength; above: too rough.",
    )
    return [("Training", training), ("The built-in forecasts", growth), ("Spectra", spectra)]
