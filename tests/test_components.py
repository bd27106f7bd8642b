"""Components from outside dsr: found where the user names them, never imported because a file of a run says so."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from dsr import cli, components, config
from dsr.config import Data
from dsr.data.domain import Domain
from dsr.data.features import Features
from dsr.data.store import Store
from dsr.errors import UserError
from dsr.models.losses import LOSSES
from dsr.models.networks import NETWORKS
from dsr.run import Run
from dsr.run.provenance import changes, environment
from dsr.scaling.rules import RULES
from dsr.study import results
from tests.networks import features

SMALL = Path(__file__).parent / "small.json"
TOY = '''
from dsr.models.losses import Loss
from dsr.models.networks import Network


class Net(Network):
    """A toy."""

    width: int = 3


class Cost(Loss):
    pass


class Other:
    pass
'''


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A user's package `toy`, on the path for this test."""
    folder = tmp_path / "code/toy"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "parts.py").write_text(TOY)
    (folder / "broken.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path / "code")
    monkeypatch.setattr(components, "_allowed", set())
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "toy"]:
        del sys.modules[name]


@pytest.fixture
def hostile(package, tmp_path):
    """The name of a network whose import leaves a mark; the import must not happen."""
    marker = tmp_path / "imported"
    (package / "__init__.py").write_text(f"import pathlib; pathlib.Path({str(marker)!r}).touch()")
    yield "toy.parts:Net"
    assert not marker.exists() and "toy" not in sys.modules


def dsr(*arguments):
    return CliRunner().invoke(cli.main, [str(argument) for argument in arguments])


def refuse(*arguments):
    """The command ends with exit code 2 and says how the code would be allowed."""
    answer = dsr(*arguments)
    assert answer.exit_code == 2 and answer.output.endswith("--allow-code toy\n"), answer.output
    assert len(answer.output.splitlines()) == 1


# what a config may name


def test_a_config_that_the_user_names_chooses_their_own(package):
    found = config.load(SMALL, ['dsr.model={"name": "toy.parts:Net", "width": 5}', "dsr.loss=toy.parts:Cost"])
    assert (found.dsr.model.name, found.dsr.model.width, found.dsr.loss.name) == ("toy.parts:Net", 5, "toy.parts:Cost")
    assert components.packages(found.dsr) == ["toy"]
    written = found.resolved()["dsr"]
    assert (written["model"], written["loss"]) == ({"name": "toy.parts:Net", "width": 5}, "toy.parts:Cost")
    assert config.validate(found.resolved(), "again") == found


def test_another_component_inherits_no_settings(package):
    assert config.load(SMALL, ["dsr.model.name=toy.parts:Net"]).dsr.model.width == 3
    assert config.load(SMALL, ["dsr.model.name=deepdownscale"]).dsr.model.width == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("dsr.model=toy.parts:Nothing", "dsr.model toy.parts:Nothing is not a network: .* dsr.models.networks.Network"),
        ("dsr.model=toy.parts:Other", "is not a network"),
        ("dsr.model=toy.parts:Cost", "is not a network"),
        ("dsr.loss=toy.parts:Net", "is not a loss"),
        ("dsr.model=toy.broken:Net", r"toy.broken cannot be imported \(ZeroDivisionError: division by zero\)"),
        ("dsr.model=no_such_package:Net", "No module named 'no_such_package'.* on PYTHONPATH"),
        ('dsr.model={"name": "toy.parts:Net", "widht": 5}', r"unknown key widht; did you mean width\?"),
        ('dsr.model={"name": "toy.parts:Net", "width": "5"}', "width: Input should be a valid integer"),
        ("dsr.model=toy.parts:", "package.module:Class"),
        ("dsr.model=../toy:Net", "package.module:Class"),
        ("dsr.loss=mean", "dsr.loss 'mean' is not one of mse, mae"),
        ("dsr.model=5", 'must be a name, or {"name"'),
    ],
)
def test_what_is_no_component_is_refused_in_words(package, change, message):
    with pytest.raises(UserError, match=message):
        config.load(SMALL, [change])


@pytest.mark.parametrize("family", [NETWORKS, LOSSES, RULES], ids=lambda family: family.key)
def test_the_schema_lists_every_component_with_its_settings(family):
    schema = config.json_schema()
    place = schema["properties"]
    for part in family.key.split("."):
        place = place[part]
        place = schema["$defs"][place["$ref"].rpartition("/")[2]] if "$ref" in place else place
        place = place.get("properties", place)
    listed = {b["properties"]["name"].get("const"): b for b in place["anyOf"] if "properties" in b}
    for name in family.table:
        kind = family.find(name)
        assert issubclass(kind, family.base) and kind.__doc__
        assert set(listed[name]["properties"]) == set(kind.model_fields)


def test_all_components_are_found_without_torch():
    code = """
import sys
from dsr.cluster.launchers import LAUNCHERS
from dsr.config import json_schema
from dsr.models.losses import LOSSES
from dsr.models.networks import NETWORKS
from dsr.scaling.rules import RULES
from dsr.verify.baselines import BASELINES
from dsr.verify.metrics import METRICS

json_schema()
families = (BASELINES, LAUNCHERS, LOSSES, METRICS, NETWORKS, RULES)
found = [family.find(name) for family in families for name in family.table]
print(len(found), [name for name in ("torch", "deepspeed") if name in sys.modules])
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.stdout.endswith(" []\n"), answer


# what nothing else may name


def test_an_experiment_that_was_not_named_imports_nothing(hostile):
    values = json.loads(SMALL.read_text())
    for key, value in (("model", hostile), ("loss", hostile), ("scaling", {"rule": hostile})):
        with pytest.raises(UserError, match=f"somewhere: dsr.{key}.* --allow-code toy"):
            config.validate({**values, "dsr": {**values["dsr"], key: value}}, "somewhere")


@pytest.fixture
def hostile_run(hostile, tiny_store, tmp_path):
    """A run's folder whose every part names the network."""
    run, store = Run(tmp_path / "run"), Store(tiny_store)
    run.folder.mkdir()
    features, domain = Features.of(store, Data()), Domain.of(store)
    arrays = {name: torch.from_numpy(array.copy()) for name, array in (features.arrays() | domain.arrays()).items()}
    parts = {"features": features.to_json(), "domain": domain.to_json(), "fingerprint": store.fingerprint}
    run.save_model({"w": torch.ones(2)}, arrays, {"network": {"name": hostile}, **parts})
    run.save_checkpoint("update-00000001", {"network": {"w": torch.ones(2)}}, {"updates": 1, "model": hostile})
    values = json.loads(SMALL.read_text())
    values["dsr"] |= {"model": hostile, "loss": hostile, "data": {"store": str(tiny_store)}}
    run.experiment.write_text(json.dumps(values))
    run.plan.write_text(
        json.dumps({"format": 2, "mode": "strong", "gpus": 1, "slots": 8, "samples": 40, "rule": hostile})
    )
    run.set_status("running")
    return run


def test_a_hostile_run_is_not_predicted_with(hostile_run, tiny_store, tmp_path):
    refuse("predict", hostile_run.folder, tiny_store, "-o", tmp_path / "out.nc")


def test_a_hostile_run_is_not_evaluated(hostile_run):
    refuse("evaluate", hostile_run.folder)


def test_a_hostile_run_is_not_resumed(hostile_run):
    refuse("launch", "--resume", "--run-dir", hostile_run.folder)


def test_a_hostile_run_is_not_resumed_with_an_honest_config(hostile_run, tiny_store):
    sets = ["--set", "dsr.budget.updates=3", "--set", "gradient_accumulation_steps=8"]
    answer = dsr("launch", SMALL, *sets, "--data", tiny_store, "--resume", "--run-dir", hostile_run.folder)
    assert answer.exit_code == 2, answer.output


def test_a_study_collects_nothing_from_a_hostile_run(hostile_run):
    with pytest.raises(UserError, match="--allow-code toy"):
        results.test_error(hostile_run)


def test_what_is_allowed_is_imported_and_nothing_beside_it(package, tmp_path):
    with pytest.raises(UserError, match="--allow-code toy"):
        NETWORKS.make("toy.parts:Net")
    components.allow(["toy"])
    assert NETWORKS.make("toy.parts:Net").width == 3
    with pytest.raises(UserError, match="--allow-code toyota"):
        NETWORKS.make("toyota.parts:Net")


# what is recorded


def test_the_code_is_recorded_with_the_hash_of_its_whole_package(package):
    before = components.source("toy")
    assert before["version"] is None and len(before["sha256"]) == 64 and "toy" not in sys.modules
    (package / "__pycache__").mkdir()
    (package / "__pycache__/parts.pyc").write_bytes(b"x")
    (package / "notes.txt").write_text("not code")
    assert components.source("toy") == before
    (package / "deep").mkdir()
    (package / "deep/more.py").write_text("")
    assert components.source("toy") != before
    assert components.source("json")["sha256"] and components.source("no_such_package")["sha256"] is None


def test_a_resume_says_that_the_code_changed(package):
    before = json.loads(json.dumps(environment("", "", 1, "", ["toy"])))
    assert before["components"]["toy"] == components.source("toy")
    assert changes(before, environment("", "", 1, "", ["toy"])) == []
    (package / "parts.py").write_text(TOY + "\n")
    assert changes(before, environment("", "", 1, "", ["toy"])) == ["the code of toy"]


# what CONTRIBUTING.md says


CONTRIBUTING = Path(__file__).parents[1] / "CONTRIBUTING.md"


def test_the_files_that_the_guide_links_are_there():
    links = re.findall(r"\]\(([^)]+)\)", CONTRIBUTING.read_text())
    assert len(links) > 15
    assert [link for link in links if not (CONTRIBUTING.parent / link).exists()] == []


def test_the_guide_s_network_works(package):
    (package / "nets.py").write_text(re.findall(r"```python\n(.*?)```", CONTRIBUTING.read_text(), re.S)[0])
    network = config.load(SMALL, ['dsr.model={"name": "toy.nets:Convolution", "size": 5}']).dsr.model
    assert network.build(features(3, variables=2))(torch.ones(1, 3, 8, 8)).shape == (1, 2, 8, 8)
