"""The shipped experiments and recipes: valid, and whoever lacks their data is told where to get them."""

import json
from pathlib import Path

import jsonschema
import pytest

from dsr import config
from dsr.data import recipe as recipes
from dsr.data.prepare import prepare
from dsr.errors import UserError
from dsr.study import ablation as studies
from dsr.task import resolve

CONFIGS = Path(__file__).parents[2] / "ds_configs"
RECIPES = sorted((CONFIGS / "recipes").glob("*.json"))
SHIPPED = [path for path in sorted(CONFIGS.glob("*.json")) if "dsr" in json.loads(path.read_text())]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_every_shipped_experiment_is_valid(path):
    experiment = config.load(path)
    jsonschema.validate(json.loads(path.read_text()), config.json_schema())
    jsonschema.validate(experiment.resolved(), config.json_schema())


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_without_its_files_says_where_to_get_them(path, tmp_path):
    recipe = recipes.load(path, tmp_path)
    assert recipe.origin and "\n" not in recipe.origin
    with pytest.raises(UserError) as refusal:
        prepare(recipe, None, dry_run=True)
    first, second = str(refusal.value).splitlines()
    assert first.endswith("no such file") and second == f"where to get it: {recipe.origin}"


@pytest.mark.parametrize("path", [path for path in SHIPPED if path.name != "default.json"], ids=lambda path: path.stem)
def test_an_experiment_without_its_store_says_how_to_make_it(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = config.load(path).dsr.data
    prepared = f"`dsr data prepare ds_configs/recipes/{path.name} --root DATA -o {data.store}`"
    assert data.origin == f"{prepared}; DATA: {recipes.load(CONFIGS / 'recipes' / path.name).origin}"
    with pytest.raises(UserError) as refusal:
        resolve(path)
    first, second = str(refusal.value).splitlines()
    assert first.startswith(f"{data.store}: no store there") and second == f"where to get it: {data.origin}"


@pytest.mark.parametrize("quick", [False, True])
def test_the_shipped_study_goes_on_with_the_built_in_data(tmp_path, monkeypatch, quick):
    monkeypatch.chdir(tmp_path)
    study, _ = studies.read(CONFIGS / "ablations/strong_vs_weak.json", quick=quick)
    remaining, missing = studies.present(study)
    assert list(missing) == ["era5"] and remaining.data.keys() == study.data.keys() - {"era5"}
    assert str(missing["era5"]).endswith(f"where to get it: {config.load(CONFIGS / 'era5_uk_x4.json').dsr.data.origin}")
