"""The ablation file: what is refused and the message, --quick, and the cells that it asks for."""

import shutil

import pytest

from dsr.config import shipped
from dsr.errors import Missing, UserError
from dsr.study import ablation as files
from dsr.study.ablate import Session, ablate
from dsr.study.cells import Expansion, choose, distinct
from tests.study.ablations import expand, linear, study


def test_a_data_set_whose_store_is_missing_is_left_out(tmp_path, tiny_store):
    gone = {"label": "gone", "store": str(tmp_path / "gone.zarr"), "origin": "ask the service"}
    data = {"tiny": {"label": "tiny data", "store": str(tiny_store)}, "gone": gone}
    proof = {"data": "gone", "arms": ["strong"], "gpus": [2], "updates": 4}
    ablation, _ = files.read(study(tmp_path, tiny_store, data=data, proof=proof))
    remaining, missing = files.present(ablation)
    assert list(remaining.data) == ["tiny"] and remaining.proof is None
    (first, second) = str(missing["gone"]).splitlines()
    assert first.startswith(f"{tmp_path}/gone.zarr: no store there") and second == "where to get it: ask the service"
    assert files.present(remaining) == (remaining, {})
    with pytest.raises(Missing, match="ask the service"):
        files.present(ablation.model_copy(update={"data": {"gone": ablation.data["gone"]}}))


def test_a_study_goes_on_only_with_the_data_that_it_began_with(tmp_path, tiny_store, capsys):
    shutil.copytree(tiny_store, tmp_path / "other.zarr")
    data = {
        name: {"label": name, "store": str(store)}
        for name, store in (("tiny", tiny_store), ("other", tmp_path / "other.zarr"))
    }
    file = study(tmp_path, tiny_store, data=data)
    ablation, base = files.read(file)
    Session(Expansion(ablation, base), tmp_path / "run").begin()
    shutil.rmtree(tmp_path / "other.zarr")
    for cell in (None, 1):
        with pytest.raises(UserError, match="began with data other, whose store is missing now"):
            ablate(file, tmp_path / "run", cell=cell)
    assert "data other is left out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sedes": [1, 2]}, "unknown key sedes; did you mean seeds"),
        ({"data": {"a": {"label": "A", "simulate": {"sise": 24}}}}, "simulate.sise; did you mean size"),
        ({"data": {"a": {"label": "A"}}}, "data.a: give either store or simulate"),
        ({"arms": {"linear": linear(mode="week")}}, "arms.linear.mode"),
        ({"arms": {"linear": linear(retune=[0.1])}}, "arms.linear: rates and retune need the section tune"),
        ({"arms": {"sequential": linear()}}, "sequential is always there"),
        ({"arms": {"../up": linear()}}, r"arms.../up"),
        ({"seeds": [1]}, "seeds"),
        ({"budgets": {"updates": {"arms": ["linaer"]}}}, "budgets.updates.arms: linaer is not one of"),
        ({"proof": {"data": "tyni", "arms": ["strong"], "gpus": [2], "updates": 4}}, "proof.data: tyni is not one of"),
        ({"arms": {"linear": linear(changes=["dsr.modle.width=4"])}}, "data tiny, arm linear: .*modle.*did you mean"),
        ({"arms": {"linear": linear(micro_batch=3)}}, "micro_batch 3 does not divide the batch of 4"),
        ({"arms": {"linear": linear(changes=["dsr.budget.updates=9"])}}, "needs dsr.budget.epochs"),
        ({"arms": {"linear": linear(gpus=[8])}}, "data tiny: no arm takes part"),
        (
            {"arms": {"fast": linear(changes=["optimizer.params.lr=1"])}, "tune": {"rates": [0.1, 1], "seeds": [1]}},
            "arm fast: an optimizer or rate of its own needs rates of its own",
        ),
        ({"arms": {"auto": linear(mode="auto")}, "wires": {"gbit_per_s": 1}}, "wires: a run in mode auto"),
    ],
)
def test_what_is_wrong_in_any_cell_is_refused_before_anything_starts(tmp_path, tiny_store, changes, message):
    path = study(tmp_path, tiny_store, **changes)
    with pytest.raises(UserError, match=message):
        ablate(path, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_two_runs_never_share_a_folder(tmp_path, tiny_store):
    data = {name: {"label": name, "store": str(tiny_store)} for name in ("a", "a-b")}
    data["a-b"]["changes"] = ["dsr.data.samples=20"]
    arms = {"b-c": linear(), "c": linear(changes=["dsr.scaling.rule=sqrt"])}
    with pytest.raises(UserError, match="two runs would have one folder"):
        ablate(study(tmp_path, tiny_store, data=data, arms=arms), tmp_path / "run")


def test_quick_is_a_merge_patch(tmp_path, tiny_store):
    quick = {"seeds": [3, 4], "arms": {"linear": None, "none": {"label": "kept"}}}
    ablation, _ = files.read(study(tmp_path, tiny_store, quick=quick), quick=True)
    assert ablation.seeds == [3, 4] and list(ablation.arms) == ["strong", "none"]
    assert (ablation.arms["none"].label, ablation.arms["none"].mode) == ("kept", "weak")
    with pytest.raises(UserError, match="no section quick"):
        files.read(study(tmp_path, tiny_store), quick=True)


def test_cells_of_the_same_computation_share_a_run(tmp_path, tiny_store):
    cells = expand(study(tmp_path, tiny_store, budgets={"epochs": {}, "updates": {}})).study({})
    of = {(c.arm, c.gpus, c.budget, c.seed): c for c in cells}
    sequential = of["sequential", 1, "epochs", 1]
    same = [("strong", 1), ("strong", 2), ("strong", 4), ("none", 1), ("linear", 1)]
    for arm, gpus in same:
        for budget in ("epochs", "updates"):
            assert of[arm, gpus, budget, 1].key == sequential.key
            assert of[arm, gpus, budget, 2].key != sequential.key
    others = [("none", 2), ("linear", 2), ("none", 4), ("linear", 4)]
    keys = {of[arm, gpus, budget, 1].key for arm, gpus in others for budget in ("epochs", "updates")}
    assert len(keys) == 8 and sequential.key not in keys
    runs = distinct(cells)
    assert runs[sequential.key].name == "tiny-sequential-rate0.004-seed1"
    assert len(runs) == 2 * (1 + 2 * 3 * 2)  # seeds x (sequential, and two arms at 2, 3 and 4 GPUs with each budget)
    assert len({cell.name for cell in runs.values()}) == len(runs)


def test_budgets_are_equal_samples_or_equal_updates(tmp_path, tiny_store):
    cells = expand(study(tmp_path, tiny_store, budgets={"epochs": {}, "updates": {}})).study({})
    plans = {(c.arm, c.gpus, c.budget): c.plan for c in cells if c.plan}
    assert plans["sequential", 1, "epochs"].updates == 20
    assert (plans["linear", 4, "epochs"].updates, plans["linear", 4, "updates"].updates) == (4, 20)
    assert plans["strong", 4, "updates"].updates == 20
    every = next(c for c in cells if c.place == ("tiny", "linear", "updates", 4)).task.experiment.dsr.validation.every
    assert every == 10  # as often as the sequential run, whose epoch has 10 updates


def test_an_impossible_cell_is_listed_once_with_its_reason(tmp_path, tiny_store):
    cells = expand(study(tmp_path, tiny_store, gpus=[3, 16])).study({})
    lost = {(c.arm, c.gpus): c.reason for c in cells if not c.plan}
    assert "3 GPUs do not divide the 4 slots" in lost["strong", 3]
    assert "effective batch of 64 samples is larger than the training set of 40" in lost["linear", 16]
    assert sum(not c.plan for c in cells) == len(lost) == 4


def test_validations_lie_at_equal_shares_of_every_run(tmp_path, tiny_store):
    path = study(tmp_path, tiny_store, validations=5)
    every = {(c.arm, c.gpus): c.task.experiment.dsr.validation.every for c in expand(path).study({}) if c.plan}
    assert (every["sequential", 1], every["none", 2], every["none", 4]) == (4, 2, 1)  # of 20, 10 and 4 updates


def test_without_exact_scaling_every_gpu_count_is_its_own_computation(tmp_path, tiny_store):
    arms = {"strong": {"label": "strong", "mode": "strong", "changes": ["dsr.scaling.exact=false"]}}
    cells = expand(study(tmp_path, tiny_store, arms=arms, gpus=[1, 2, 4])).study({})
    assert len(distinct(cell for cell in cells if cell.arm == "strong")) == 6  # 3 counts, 2 seeds


def test_limits_leave_cells_out(tmp_path, tiny_store):
    arms = {"a": linear(gpus=[2]), "b": linear(label="weak", changes=[], seeds=[2])}
    path = study(tmp_path, tiny_store, arms=arms, budgets={"epochs": {}, "updates": {"arms": ["b"], "gpus": [4]}})
    found = {(c.arm, c.gpus, c.budget, c.seed) for c in expand(path).study({}) if c.arm != "sequential"}
    b = {("b", gpus, "epochs", 2) for gpus in (1, 2, 3, 4)} | {("b", 4, "updates", 2)}
    assert found == {("a", 2, "epochs", 1), ("a", 2, "epochs", 2)} | b


def test_an_arm_in_mode_auto_is_planned_by_its_own_probe(tmp_path, tiny_store):
    auto = {"label": "auto", "mode": "auto", "gpus": [4]}
    path = study(tmp_path, tiny_store, arms={"auto": auto}, seeds=[1, 2])
    cells = [cell for cell in expand(path).study({}) if cell.arm == "auto"]
    assert [(cell.gpus, cell.seed, cell.plan.effective_batch) for cell in cells] == [(4, 1, 4), (4, 2, 4)]
    assert not {cell.key for cell in cells} & {cell.key for cell in expand(path).study({}) if cell.arm != "auto"}
    growth = {"dsr": {"scaling": {"growth": {"epochs": [1], "factor": 2}}}}
    path = study(tmp_path, tiny_store, arms={"auto": {**auto, "changes": growth}})
    (cell,) = [cell for cell in expand(path).study({}) if cell.arm == "auto"]
    assert cell.plan is None and "leave out dsr.scaling.growth" in cell.reason


def test_an_arm_s_micro_batch_keeps_the_batch(tmp_path, tiny_store):
    cells = expand(study(tmp_path, tiny_store, arms={"a": linear(micro_batch=2)})).study({})
    plan = next(c.plan for c in cells if c.place == ("tiny", "a", "epochs", 2))
    assert (plan.micro_batch, plan.slots, plan.effective_batch) == (2, 4, 8)


def test_rates_are_tuned_for_each_optimizer_and_each_batch_that_asks_for_it(tmp_path, tiny_store):
    sgd = {"optimizer": {"type": "SGD", "params": {"lr": 1.0}}}
    arms = {
        "none": {"label": "weak", "mode": "weak"},
        "sgd": linear(changes=sgd, rates=[0.1, 1.0]),
        "retuned": {"label": "retuned", "mode": "weak", "retune": [0.002, 0.008]},
    }
    path = study(tmp_path, tiny_store, arms=arms, gpus=[1, 2], tune={"rates": [0.001, 0.004], "seeds": [1, 2]})
    expansion = expand(path)
    tuning = expansion.tuning()
    sequential, own, again = (
        ("tiny", "sequential", "epochs", 1),
        ("tiny", "sgd", "epochs", 1),
        ("tiny", "retuned", "epochs", 2),
    )
    assert list(tuning) == [sequential, own, again]
    assert [(cell.rate, cell.seed) for cell in tuning[own]] == [(0.1, 1), (0.1, 2), (1.0, 1), (1.0, 2)]
    rates = {sequential: 0.001, own: 1.0, again: 0.008}
    cells = expansion.study(rates)
    got = {(c.arm, c.gpus): c.rate for c in cells}
    expected = {("sequential", 1): 0.001, ("none", 1): 0.001, ("none", 2): 0.001, ("sgd", 1): 1.0, ("sgd", 2): 1.0}
    assert got == {**expected, ("retuned", 1): 0.001, ("retuned", 2): 0.008}
    assert {c.key for c in tuning[again]} & {c.key for c in cells if c.arm == "retuned"}  # a candidate is a cell


def test_the_best_mean_score_wins_and_a_rate_that_diverges_cannot(tmp_path, tiny_store):
    tune = {"rates": [0.001, 0.002, 0.004], "seeds": [1, 2]}
    candidates = expand(study(tmp_path, tiny_store, tune=tune)).tuning()["tiny", "sequential", "epochs", 1]
    numbers = dict(zip((c.key for c in candidates), [0.5, 0.7, 0.4, 0.6, 0.1, float("inf")], strict=True))
    assert choose(candidates, numbers) == 0.002
    assert choose(candidates, dict.fromkeys(numbers, float("inf"))) == 0.001


def test_the_shipped_study_asks_for_what_it_should(tmp_path):
    """It is only read: its stores may be missing."""
    path = shipped("ablations/strong_vs_weak.json")
    ablation, base = files.read(path)
    assert base.exists() and len(ablation.seeds) >= 5 and ablation.gpus == [1, 2, 4, 8, 16, 32]
    assert set(ablation.budgets) == {"epochs", "updates"}
    assert {arm.mode for arm in ablation.arms.values()} == {"strong", "weak", "auto"}
    built = [data.changes["dsr"] for data in ablation.data.values() if data.simulate]
    assert len({changes["data"]["samples"] for changes in built}) == 3
    assert len({changes["budget"]["epochs"] for changes in built}) == 1  # so that larger sets have more updates
    quick, _ = files.read(path, quick=True)
    assert set(quick.arms) < set(ablation.arms)


def test_the_key_of_a_computation_changes_only_with_its_bits_so_that_older_studies_continue(tmp_path, tiny_store):
    cells = expand(study(tmp_path, tiny_store)).study({})
    keys = {(cell.arm, cell.gpus): cell.key for cell in cells if cell.plan and cell.seed == 1}
    assert keys["sequential", 1].startswith("be45b893")
    assert keys["none", 2].startswith("a98e931d")
