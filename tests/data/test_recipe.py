"""A recipe is checked key by key."""

import json

import pytest

from dsr.data.recipe import ByRegion, ByTime, Recipe, load
from dsr.errors import UserError


def written(tmp_path, **changes):
    path = tmp_path / "r.json"
    path.write_text(json.dumps({"high": {"files": ["a.nc"]}, "factor": 4} | changes))
    return path


def test_a_recipe_is_read(tmp_path):
    variables = {"rain": {"source": "tp", "units": "kg m-2", "accumulated": True, "missing": [-1]}}
    recipe = load(written(tmp_path, high={"files": ["*.nc"], "variables": variables}, splits={"gap_hours": 6}))
    assert recipe.high.variables["rain"].missing == (-1,) and recipe.root == tmp_path
    assert isinstance(recipe.splits, ByTime) and recipe.splits.gap_hours == 6
    assert load(written(tmp_path), root=tmp_path.parent, gap_hours=12).root == tmp_path.parent
    assert isinstance(load(written(tmp_path, splits={"by": "region"})).splits, ByRegion)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"facter": 4}, 'unknown key "facter"; did you mean "factor"?'),
        ({"high": {"file": ["a.nc"]}}, 'unknown key "high.file"; did you mean "files"?'),
        (
            {"high": {"files": ["a"], "variables": {"t": {"unit": "K"}}}},
            'unknown key "high.variables.t.unit"; did you mean',
        ),
        ({"splits": {"gap_hour": 3}}, 'unknown key "splits.gap_hour"; did you mean "gap_hours"?'),
        ({"splits": {"by": "day"}}, "splits: input tag 'day'"),
        ({"splits": 3}, "splits: input should be a valid dictionary"),
        ({"splits": {"test": ["2060-2-30", "2061-12-30"]}}, 'splits.test: "2060-2-30" is not of the form 2060-12-30'),
        ({"factor": "four"}, "factor: input should be a valid integer"),
        ({"factor": 0}, "factor: input should be greater than 0"),
        ({"high": {"files": "a.nc"}}, "high.files: input should be a valid list"),
        ({"pairing": "nearest"}, "pairing: input should be 'same-run' or 'valid-time'"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, change, message):
    with pytest.raises(UserError) as refusal:
        load(written(tmp_path, **change))
    assert f"r.json: {message}" in str(refusal.value) and "\n" not in str(refusal.value)


def test_no_file_and_no_json(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        load(tmp_path / "none.json")
    (tmp_path / "r.json").write_text("{")
    with pytest.raises(UserError, match="not JSON, line 1"):
        load(tmp_path / "r.json")


def test_options_make_the_same_recipe(tmp_path):
    given = Recipe.from_options(["a.nc"], factor=4, gap_hours=6)
    assert given == load(written(tmp_path, splits={"gap_hours": 6})).model_copy(update={"root": None})
