"""Evaluation on small stores: who wins, what is masked, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from dsr.data.interpolate import Interpolation
from dsr.data.store import Store
from dsr.errors import UserError
from dsr.report import evaluation_words as words
from dsr.verify import evaluate
from dsr.verify.evaluation import Evaluation
from dsr.verify.intervals import Difference
from tests.stores import DAY, HOUR, block_mean, features, make, thirds


def forecasts(path: Path, runs: tuple[int, int, int] = (16, 6, 12), **more: object) -> Store:
    """A store of runs of three leads, whose targets need the square of the low field: no linear map gives them."""
    random = np.random.default_rng(0)
    n = sum(runs) * 3
    low = random.normal(size=(n, 1, 4, 4))
    high = 280 + np.repeat(np.repeat(low + low**2, 4, 2), 4, 3)
    init, lead = np.arange(n) // 3 * DAY, np.arange(n) % 3 * 6 * HOUR
    split = thirds(*(3 * r for r in runs))
    return make(path, high, low + 280, split, init=init, lead=lead, **more)  # type: ignore[arg-type]


def perfect(low, init, lead) -> np.ndarray:
    return np.repeat(np.repeat(280 + (low - 280) + (low - 280) ** 2, 4, 2), 4, 3)


def test_a_perfect_network_wins_and_the_contract_holds(tmp_path):
    store = forecasts(tmp_path / "s.zarr")
    result, example = evaluate.score(store, perfect, features(store), "test")
    assert (result.split, result.times, result.independent_blocks) == ("test", 36, 12)
    skill = result.variables["t"]
    assert skill.units == "K" and skill.winner == "network"
    assert skill.rmse["network"] < 1e-4 < skill.rmse["ridge"] < skill.rmse["bicubic"]
    assert skill.scores["ssim"]["network"] == pytest.approx(1)
    assert skill.scores["correlation"]["network"] == pytest.approx(1)
    assert [lead.lead_time for lead in skill.leads] == [0, 6 * HOUR, 12 * HOUR]
    squares = [lead.rmse["bicubic"] ** 2 for lead in skill.leads]
    assert np.sqrt(np.mean(squares)) == pytest.approx(skill.rmse["bicubic"])
    assert skill.decided and all(lead.decided for lead in skill.leads)
    low, high = skill.difference["ridge"].interval
    assert low < skill.difference["ridge"].rmse < high < 0
    assert np.allclose(example["network"], example["truth"], atol=1e-3)
    headline = words.headlines(result)[0]
    assert "wins over ridge" in headline and "network wins throughout" in headline


def test_the_json_keeps_its_contract_and_is_read_again(tmp_path):
    store = forecasts(tmp_path / "s.zarr")
    result, _ = evaluate.score(store, perfect, features(store), "test")
    text = json.dumps(result.to_json(), allow_nan=False)
    values = json.loads(text)
    variable = values["variables"]["t"]
    assert variable["units"] == "K" and variable["rmse"]["network"] < variable["rmse"]["ridge"]
    assert variable["mae"].keys() == variable["rmse"].keys() == values["methods"].keys()
    assert variable["leads"][1]["lead_time"] == 6 * HOUR and variable["leads"][1]["rmse"]["bicubic"] > 0
    assert Evaluation.from_json(values) == result


def test_a_bad_network_loses_and_the_words_say_to_whom(tmp_path):
    store = forecasts(tmp_path / "s.zarr")
    result, _ = evaluate.score(store, lambda *batch: perfect(*batch) + 3, features(store), "test")
    skill = result.variables["t"]
    best = skill.best_baseline
    assert skill.winner == best and skill.scores["bias"]["network"] == pytest.approx(3, abs=1e-3)
    assert f"the network loses to {words.label(best)}" in words.headlines(result)[0]
    console = Console(record=True, width=130)
    console.print(words.table(result))
    text = console.export_text()
    assert f"{words.label(best)} *" in text and "control member: the low data have no members" in text


def test_two_equal_methods_are_indistinguishable(tmp_path):
    store = forecasts(tmp_path / "s.zarr")
    ft = features(store)
    bicubic = Interpolation(store.low_index, store.low_shape, "bicubic")
    result, _ = evaluate.score(store, lambda low, *_: bicubic(low), ft, "test")
    skill = result.variables["t"]
    assert skill.difference["bicubic"] == Difference(0, (0, 0), 1)
    kept = {"rmse": {method: skill.rmse[method] for method in ("network", "bicubic")}}
    variables = evaluate._decided({"t": replace(skill, scores=kept, leads=[])})
    result = replace(result, variables=variables)
    assert "indistinguishable on these cases" in words.headlines(result)[0]


def test_few_runs_have_no_interval_and_it_is_said(tmp_path):
    store = forecasts(tmp_path / "s.zarr", (16, 6, 7))
    result, _ = evaluate.score(store, perfect, features(store), "test")
    assert result.independent_blocks == 7
    assert result.variables["t"].difference["ridge"].interval is None
    assert "Too few independent cases" in words.caution(result)


def test_hourly_analyses_count_as_one_case_a_day(tmp_path):
    random = np.random.default_rng(0)
    high = random.normal(280, 1, (400, 1, 8, 8))
    store = make(tmp_path / "s.zarr", high, block_mean(high, 4), thirds(60, 40, 300))
    result, _ = evaluate.score(store, lambda low, *_: np.repeat(np.repeat(low, 4, 2), 4, 3), features(store), "test")
    assert (result.runs, result.independent_blocks) == (300, 13)


def test_missing_truth_is_masked_for_every_method(tmp_path):
    store = forecasts(tmp_path / "a.zarr")
    random = np.random.default_rng(1)
    truth = store.high[...]
    truth[random.random(truth.shape) < 0.2] = np.nan
    truth[-2] = np.nan
    low = store.low[...]
    split = np.asarray(store.group["low/split"][...])
    holed = make(tmp_path / "b.zarr", truth, low, split, init=store.low_init_time, lead=store.low_lead_time)
    result, _ = evaluate.score(holed, perfect, features(holed), "test")
    json.dumps(result.to_json(), allow_nan=False)
    assert result.variables["t"].rmse["network"] < 1e-4
    bad, _ = evaluate.score(holed, lambda *b: np.full_like(perfect(*b), np.nan), features(holed), "test")
    assert "network" not in bad.variables["t"].rmse and bad.variables["t"].winner == "ridge"
    assert "the network has no value" in words.headlines(bad)[0]


def test_a_split_by_region_scores_its_own_points_only(tmp_path):
    region = np.full((16, 16), -1, np.int8)
    region[:, :6], region[:, 7:9], region[:, 10:] = 0, 1, 2
    store = forecasts(tmp_path / "s.zarr", region=region)

    def network(low, init, lead) -> np.ndarray:
        fields = perfect(low, init, lead)
        fields[..., :10] += 100
        return fields

    result, _ = evaluate.score(store, network, features(store), "test")
    assert result.variables["t"].rmse["network"] < 1e-3
    assert result.variables["t"].rmse["ridge"] > 0.1


def test_a_store_of_another_run_is_refused(tmp_path):
    own = forecasts(tmp_path / "own.zarr")
    random = np.random.default_rng(0)
    high = random.normal(size=(9, 1, 12, 16))
    other = make(tmp_path / "grid.zarr", high, block_mean(high, 4), thirds(3, 3, 3))
    with pytest.raises(UserError, match="does not fit this run: its grids"):
        evaluate._check_fits(other, features(own), Path("run"))
    other = make(tmp_path / "name.zarr", high, block_mean(high, 4), thirds(3, 3, 3), low_names=("u",))
    with pytest.raises(UserError, match="low lacks t"):
        evaluate._check_fits(other, features(own), Path("run"))
    with pytest.raises(UserError, match="no trained network"):
        evaluate.evaluate(tmp_path)
