"""The report of an evaluation: its page stands alone, says who wins, and shows hostile names as text."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dsr.report import evaluation as report
from dsr.report import evaluation_words as words
from dsr.verify.evaluation import Evaluation, LeadSkill, RidgeFit, Spectrum, VariableSkill
from dsr.verify.intervals import Difference
from tests.pages import read_page

HOSTILE = "<script>alert('x')</script>"
RMSE = {"network": 0.8, "nearest": 1.5, "bicubic": 1.25, "ridge": 1.0, "mine:Own": 2.0}


def scores(factor: float = 1.0) -> dict[str, dict[str, float | None]]:
    return {metric: {method: factor * value for method, value in RMSE.items()} for metric in ("rmse", "mae", "bias")}


def evaluation(cases: int = 20, decided: bool | None = True) -> Evaluation:
    """Two variables, the second with a hostile name; the network beats ridge regression."""
    difference = {"ridge": Difference(-0.2, (-0.3, -0.1) if cases >= 8 else None, 0.01 if cases >= 8 else None)}
    common = {"scores": scores(), "winner": "network", "difference": difference, "decided": decided}
    leads = [LeadSkill(**common, lead_time=hours * 3600, samples=cases) for hours in (6, 12)]
    power = {"truth": [4.0, 2.0, 1.0], "network": [4.0, 2.0, 0.5], "mine:Own": [4.0, 1.0, 0.1]}
    spectrum = Spectrum([40.0, 20.0, 10.0], power)
    kinds = {"t": ("K", "temperature"), HOSTILE: ("<i>", "<b>bold</b>")}
    return Evaluation(
        split="test",
        times=2 * cases,
        samples=2 * cases,
        runs=cases,
        independent_blocks=cases,
        methods={method: method for method in RMSE},
        omitted={"control": "the low data have no members"},
        ridge=RidgeFit(20, [[1.0]]),
        lapse_rates={"t": -0.0065},
        notes=["<b>a note</b>"],
        variables={
            name: VariableSkill(**common, units=units, long_name=long_name, leads=leads, spectrum=spectrum)
            for name, (units, long_name) in kinds.items()
        },
    )


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's folder with one evaluated case."""
    fields = np.random.default_rng(0).normal(280, 1, (2, 8, 8))
    folder = tmp_path / "a <run> & more"
    (folder / "report").mkdir(parents=True)
    case = {"init_time": 0, "lead_time": 21600, "calendar": "standard", "inside": np.ones((8, 8), bool)}
    methods = {method: fields + 0.1 for method in RMSE}
    np.savez(folder / "report/example.npz", truth=fields, spacing_km=(2.5, 2.5), north_up=True, **case, **methods)
    return folder


def test_the_page_stands_alone_and_shows_hostile_names_as_text(run):
    result = evaluation()
    page = report.write(run, result)
    text = read_page(page)
    assert "a <run> & more" in text and HOSTILE in text and "<b>bold</b>" in text and "<b>a note</b>" in text
    assert all(headline.split(": ", 1)[1] in text for headline in words.headlines(result))
    assert "the network wins over ridge (RMSE 0.8 against 1 K, 20 % less)" in text
    assert "-0.200 [-0.300, -0.100]" in text and "control member: the low data have no members" in text
    assert text.count("false discovery rate of 5 % over all 6 comparisons") == 2, "by the verdicts and by the intervals"
    assert "Training" not in text
    for name in ("skill", "leads", "spectra", "maps_t"):
        assert (run / "report" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert not list(run.glob("report/.*"))


def test_a_variable_whose_truth_always_has_gaps_has_no_spectrum(run):
    result = evaluation()
    for variables, shown in ((["t"], True), (list(result.variables), False)):
        for name in variables:
            spectrum = Spectrum([40.0, 20.0, 10.0], {"truth": [None] * 3, "network": [4.0, 2.0, 0.5]})
            result.variables[name] = replace(result.variables[name], spectrum=spectrum)
        report.write(run, result)
        assert (run / "report/spectra.png").exists() == shown


def test_the_training_curve_and_the_order_of_the_table(run):
    lines = [{"update": 1, "loss": 1.0}, {"update": 2, "validation": {"rmse": {"t": 1.0}, "bicubic": {"t": 2.0}}}]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = report.write(run, evaluation())
    assert "Training" in read_page(page) and (run / "report/training.png").exists()
    table = re.search(r"<tbody>(.*?)</tbody>", page.read_text(), re.DOTALL)
    assert re.findall(r"<tr[^>]*><th>([^<]*)</th>", table[1]) == [
        "network ★",
        "ridge",
        "bicubic",
        "nearest",
        "mine:Own",
    ]
    assert '<tr class="winner network">' in table[1]


def test_few_cases_are_no_evidence():
    few = evaluation(cases=4, decided=None)
    assert "a demonstration, not evidence" in words.caution(few)
    assert dict(words.rows(few, "t"))["ridge"][-1] == "-0.200"


def test_what_is_undecided_is_indistinguishable(run):
    page = report.write(run, evaluation(decided=False))
    assert "the two are indistinguishable on these cases" in read_page(page)
    assert 'class="verdict close"' in page.read_text()
