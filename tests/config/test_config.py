"""Experiment files: extends, --set, what is refused and in which words, and numbers that no run can use."""

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from dsr import config
from dsr.errors import UserError
from dsr.models.networks import Network

SMALL = Path(__file__).parents[1] / "small.json"
CONFIGS = Path(__file__).parents[2] / "ds_configs"
BASE = {
    "train_micro_batch_size_per_gpu": 2,
    "gradient_accumulation_steps": 4,
    "optimizer": {"type": "Adam", "params": {"lr": 0.01, "betas": [0.9, 0.99], "adam_w_mode": False}},
    "dsr": {"budget": {"epochs": 3}, "data": {"low": ["t", "u"]}, "model": {"name": "deepdownscale", "width": 8}},
}


class Other(Network):
    size: int = 1


@pytest.fixture
def write(tmp_path):
    def write(name: str, values: dict) -> Path:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(values))
        return tmp_path / name

    write("base.json", BASE)
    return write


def refused(path: Path | None, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        config.load(path, overrides)
    assert str(caught.value).count("\n") <= 1
    return str(caught.value)


def changed(**change: object) -> dict:
    return {key: value for key, value in {**BASE, **change}.items() if value is not None}


def test_extends_merges_objects_and_replaces_lists(write):
    write("parts/middle.json", {"extends": "../base.json", "dsr": {"data": {"low": ["q"]}, "seed": 7}})
    path = write("top.json", {"extends": "parts/middle.json", "optimizer": {"params": {"lr": 0.5, "betas": [0, 0]}}})
    found = config.load(path)
    assert found.deepspeed["optimizer"] == {
        "type": "Adam",
        "params": {"lr": 0.5, "betas": [0, 0], "adam_w_mode": False},
    }
    assert found.dsr.data.low == ["q"] and found.dsr.seed == 7 and found.dsr.budget.epochs == 3
    assert "extends" not in found.resolved()


def test_an_extends_loop_names_its_chain(write):
    write("b.json", {"extends": "c.json"})
    write("c.json", {"extends": "a.json"})
    message = refused(write("a.json", {"extends": "b.json"}))
    assert message.endswith("`extends` goes in a circle: a.json -> b.json -> c.json -> a.json")


def test_files_that_cannot_be_read(write, tmp_path):
    assert refused(tmp_path / "none.json") == f"{tmp_path / 'none.json'}: no such file"
    assert refused(write("a.json", {"extends": "gone.json"})) == f"{tmp_path / 'gone.json'}: no such file"
    assert "extends must be the name of a file" in refused(write("a.json", {"extends": ["base.json"]}))
    (tmp_path / "a.json").write_text('{"dsr": {},\n "oops" 1}')
    assert "not JSON, line 2" in refused(tmp_path / "a.json")
    (tmp_path / "a.json").write_text("[1, 2]")
    assert "must hold a JSON object" in refused(tmp_path / "a.json")
    assert "cannot be read" in refused(tmp_path)


def test_set_takes_json_or_text(write):
    sets = [
        "dsr.seed=5",
        "dsr.loss=mae",
        'dsr.data.high=["p"]',
        "dsr.data.store=/data/my store.zarr",
        "bf16.enabled=true",
    ]
    found = config.load(write("a.json", BASE), sets)
    assert (found.dsr.seed, found.dsr.loss.name, found.dsr.data.high) == (5, "mae", ["p"])
    assert found.dsr.data.store == "/data/my store.zarr"
    assert found.deepspeed["bf16"] == {"enabled": True}
    assert "write it as KEY=VALUE" in refused(None, "dsr.seed")
    assert "write it as KEY=VALUE" in refused(None, "=3")


def test_the_newer_budget_wins(write):
    path = write("a.json", {"extends": "base.json", "dsr": {"budget": {"updates": 50}}})
    assert config.load(path).dsr.budget == config.Budget(updates=50)
    assert config.load(path, ["dsr.budget.epochs=2"]).dsr.budget == config.Budget(epochs=2)
    assert config.load(path, ['dsr.budget={"epochs": 4}']).dsr.budget == config.Budget(epochs=4)
    assert "give either epochs or updates" in refused(
        write("b.json", changed(dsr={"budget": {"epochs": 1, "updates": 1}}))
    )
    assert "dsr.budget" in refused(path, "dsr.budget=5")


def test_epochs_and_updates_elsewhere_are_settings_like_others(write):
    growth = {"scaling": {"growth": {"epochs": [2], "factor": 4}}, "labels": {"data": "a", "epochs": "few"}}
    path = write("a.json", {"extends": "base.json", "dsr": growth})
    grown = config.load(path, ["dsr.scaling.growth.epochs=[1]", "dsr.labels.updates=many"]).dsr
    assert (grown.scaling.growth.epochs, grown.scaling.growth.factor) == ([1], 4)
    assert grown.labels == {"data": "a", "epochs": "few", "updates": "many"}


def test_another_optimizer_sheds_what_it_does_not_know(write):
    path = write("a.json", BASE)
    found = config.load(path, ["optimizer.type=SGD", "optimizer.params.momentum=0.9"])
    assert found.deepspeed["optimizer"] == {"type": "SGD", "params": {"lr": 0.01, "momentum": 0.9}}
    assert "unknown key optimizer.params.beta" in refused(path, 'optimizer={"type": "SGD", "params": {"beta": 1}}')


def test_another_component_inherits_no_settings(write):
    settings = {"name": "tests.config.test_config:Other", "size": 3}
    model = config.load(write("a.json", {"extends": "base.json", "dsr": {"model": settings}})).dsr.model
    assert model == Other(**settings)
    assert config.load(write("b.json", BASE), ["dsr.model.blocks=1"]).dsr.model.width == 8


def test_a_resolved_experiment_reads_back_as_itself(write):
    found = config.load(write("a.json", BASE), ["dsr.budget.updates=9"])
    again = config.validate(json.loads(json.dumps(found.resolved())), "again")
    assert again == found


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimiser.type=Adam", "unknown key optimiser; did you mean optimizer?"),
        ("train_micro_batch_size_per_gpus=2", "did you mean train_micro_batch_size_per_gpu?"),
        ("bf16.enabeld=true", "unknown key bf16.enabeld; did you mean enabled?"),
        ("zero_optimization.stages=1", "unknown key zero_optimization.stages; did you mean stage?"),
        ("optimizer.parms.lr=1", "unknown key optimizer.parms; did you mean params?"),
        ("optimizer.params.weight_deccay=1", "unknown key optimizer.params.weight_deccay; did you mean weight_decay?"),
        ('scheduler={"type": "WarmupLR", "params": {"warmup_steps": 1}}', "did you mean warmup_"),
        ("dsr.budgets.epochs=1", "unknown key dsr.budgets; did you mean budget?"),
        ("dsr.scaling.warm_up_epochs=1", "unknown key dsr.scaling.warm_up_epochs; did you mean warmup_epochs?"),
        ("dsr.data.stor=x", "unknown key dsr.data.stor; did you mean store?"),
        ("dsrr.seed=1", "unknown key dsrr; did you mean dsr?"),
        ("dsr.zzzzzz=1", "valid here: budget, checkpoint, data"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_name(override, message):
    assert message in refused(SMALL, override)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("dsr.seed=one", 'dsr.seed: Input should be a valid integer (given: "one")'),
        ("dsr.seed=1.0", "dsr.seed"),
        ("dsr.seed=9223372036854775808", "dsr.seed must be a number of at most 64 bits (given: 64 bits)"),
        ("dsr.data.high=[]", "dsr.data.high: List should have at least 1 item"),
        ("optimizer.params.betas=0.9", "optimizer.params.betas must be two numbers in [0, 1) (given: 0.9)"),
        ("extends=other.json", "extends is for files"),
        ("dsr.seed=-1", "dsr.seed: Input should be greater than or equal to 0 (given: -1)"),
        ("dsr.budget.epochs=0", "dsr.budget.epochs: Input should be greater than 0"),
        (
            "dsr.scaling.rule=cubic",
            "dsr.scaling.rule 'cubic' is not one of none, linear, sqrt, adascale, adam-sde; one of your own is written",
        ),
        ("dsr.scaling.exact=1", "dsr.scaling.exact"),
        ("dsr.data.low=t", "dsr.data.low"),
        ('dsr.data.extras=["moon"]', "dsr.data.extras.0"),
        ("dsr=5", "dsr: "),
        ("train_micro_batch_size_per_gpu=1.5", "must be a positive whole number (given: 1.5)"),
        ("gradient_accumulation_steps=true", "must be a positive whole number (given: true)"),
        ("gradient_accumulation_steps=0", "must be a positive whole number (given: 0)"),
        ("optimizer.params.lr=fast", 'optimizer.params.lr must be a finite number of 0 or more (given: "fast")'),
        ("optimizer.params.lr=0", "optimizer.params.lr must be a positive number"),
        ("optimizer.params.lr=NaN", "optimizer.params.lr must be a finite number (given: NaN)"),
        ("optimizer=Adam", "optimizer must be"),
        ("optimizer.type=Lion", 'optimizer.type "Lion" is not one of Adam, AdamW'),
        ("optimizer.type=[1]", "is not one of"),
        ("gradient_clipping=-1", "gradient_clipping must be 0 (none) or a positive number"),
        ("gradient_clipping=true", "gradient_clipping must be 0 (none) or a positive number"),
        ("zero_optimization=true", "zero_optimization must be an object"),
        ("bfloat16=true", "bfloat16 must be an object"),
        ("managed_gradient_accumulation=false", "managed_gradient_accumulation must be true"),
        ("zero_optimization.stage=4", "zero_optimization.stage must be 0, 1, 2 or 3 (given: 4)"),
        ("train_batch_size=33", "train_batch_size 33 is not 1 x 32"),
        ("amp.enabled=true", "amp was removed from DeepSpeed 0.19"),
        ("elasticity.enabled=true", "elasticity was removed from DeepSpeed 0.19"),
        ('scheduler={"type": "WarmupDecayLR", "params": {}}', "scheduler.params.total_num_steps is missing"),
        ('scheduler={"type": "WarmupLR", "params": {"warmup_num_steps": "ten"}}', "must be a positive whole number"),
        ("scheduler=null", "scheduler must be"),
    ],
)
def test_a_wrong_value_is_refused_with_its_key(override, message):
    assert message in refused(SMALL, override)


@pytest.mark.parametrize(
    "value", ["Infinity", "-Infinity", "NaN", "1e999", "1" * 400, "true", '"2"', "null", "[2]", "{}"]
)
@pytest.mark.parametrize(
    "key",
    [
        "train_micro_batch_size_per_gpu",
        "gradient_clipping",
        "gradient_predivide_factor",
        "optimizer.params.lr",
        "optimizer.params.weight_decay",
        "scheduler.params.total_num_steps",
        "scheduler.params.cos_min_ratio",
        "zero_optimization.stage",
        "zero_optimization.reduce_bucket_size",
        "fp16.loss_scale",
        "dsr.seed",
        "dsr.data.noise",
        "dsr.checkpoint.every",
        "dsr.scaling.warmup_epochs",
        "dsr.watchdog.minutes",
    ],
)
def test_what_is_no_number_is_refused_with_its_key(key, value):
    assert f": {key}" in refused(None, f"{key}={value}")


def test_a_number_of_thousands_of_digits_is_refused(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(BASE).replace('"width": 8', '"width": ' + "8" * 5000))
    assert f"{path}: cannot be read (Exceeds the limit" in refused(path)
    assert "dsr.seed: Input should be a valid integer" in refused(None, "dsr.seed=" + "8" * 5000)
    assert "aio.queue_depth must be a finite number (given: Infinity)" in refused(None, "aio.queue_depth=1e999")


SGD = 'optimizer={"type": "SGD", "params": {"lr": 0.1, "momentum": 0.9}}'


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["dsr.optimizer.type=LARS"], 'takes its parameters from an optimizer.type of SGD (given: "Adam")'),
        ([SGD, "dsr.optimizer.type=LAMB"], 'from an optimizer.type of Adam or AdamW (given: "SGD")'),
        (["dsr.optimizer.type=Lamb"], "dsr.optimizer.type: Input should be 'LARS' or 'LAMB'"),
        ([SGD, "dsr.optimizer.type=LARS", "dsr.optimizer.trust=0"], "dsr.optimizer.trust: Input should be greater"),
        (
            [SGD, "dsr.optimizer.type=LARS", "optimizer.params.nesterov=true"],
            "optimizer.params.nesterov has no meaning",
        ),
        (["dsr.optimizer.type=LAMB", "optimizer.params.amsgrad=true"], "optimizer.params.amsgrad has no meaning"),
        (["dsr.optimizer.type=LAMB", "dsr.optimizer.trust=0.1"], "dsr.optimizer.trust is LARS's"),
        (["dsr.optimizer.type=LAMB", "optimizer.params.weight_decay=0.1"], "LAMB's weight decay is AdamW's"),
        (["dsr.optimizer.type=LAMB", "zero_optimization.stage=2"], "and ZeRO stage 2 cuts them into flat shards"),
    ],
)
def test_an_own_optimizer_that_does_not_fit_is_refused_with_the_reason(overrides, message):
    assert message in refused(SMALL, *overrides)


def test_an_own_optimizer_takes_the_blocks_parameters():
    assert config.load(SMALL, [SGD, "dsr.optimizer.type=LARS"]).dsr.optimizer == config.Optimizer(type="LARS")
    found = config.load(SMALL, ["dsr.optimizer.type=LAMB"])
    assert found.deepspeed["optimizer"]["type"] == "Adam" and found.dsr.optimizer.type == "LAMB"


GROWTH = 'dsr.scaling.growth={"epochs": [2, 4]}'


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["fp16.enabled=true"], "fp16.enabled: dsr trains in float32 or bfloat16"),
        (["torch_autocast.enabled=true"], "torch_autocast.dtype null"),
        (["torch_autocast.enabled=true", "torch_autocast.dtype=float16"], 'torch_autocast.dtype "float16"'),
        (["zero_optimization.stage=2", "zero_optimization.cpu_offload=true"], "zero_optimization.cpu_offload"),
        (["bf16.enabled=true", "optimizer.params.torch_adam=false"], "torch_adam must be true with bf16"),
        (["bf16.enabled=true", "data_types.grad_accum_dtype=fp32"], "data_types.grad_accum_dtype: at ZeRO stage 0"),
    ],
)
def test_a_precision_or_place_that_cannot_be_saved_is_refused(overrides, message):
    assert message in refused(None, *overrides)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (['dsr.scaling.growth={"epochs": [4, 2]}'], "dsr.scaling.growth: the epochs must rise"),
        (['dsr.scaling.growth={"epochs": [2, 2]}'], "dsr.scaling.growth: the epochs must rise"),
        (['dsr.scaling.growth={"epochs": []}'], "dsr.scaling.growth.epochs: List should have at least 1 item"),
        (['dsr.scaling.growth={"epochs": [0]}'], "dsr.scaling.growth.epochs.0: Input should be greater than 0"),
        ([GROWTH, "dsr.scaling.growth.factor=1"], "dsr.scaling.growth.factor: Input should be greater than or equal"),
        ([GROWTH, "dsr.scaling.rule=adascale"], "growth keeps the rate, and the rule adascale does not"),
        ([GROWTH, "zero_optimization.stage=1"], "changes the accumulation in training, which ZeRO fixes"),
        (
            [GROWTH, 'scheduler={"type": "WarmupCosineLR", "params": {"total_num_steps": 9}}'],
            "stands in for a decaying rate, and scheduler.type WarmupCosineLR decays it too",
        ),
    ],
)
def test_growth_that_contradicts_the_rest_is_refused(overrides, message):
    assert message in refused(SMALL, *overrides)


def test_missing_numbers(write):
    assert "gradient_accumulation_steps is missing" in refused(
        write("a.json", changed(gradient_accumulation_steps=None))
    )
    assert "optimizer is missing; it must be {" in refused(write("a.json", changed(optimizer=None)))
    without = {"type": "Adam", "params": {}}
    assert "optimizer.params.lr must be a positive number (given: null)" in refused(
        write("a.json", changed(optimizer=without))
    )


def test_clipping_is_deepspeeds_default_where_it_is_left_out(write):
    assert config.load(write("a.json", BASE)).clipping == 1.0
    assert config.load(write("a.json", BASE), ["gradient_clipping=0"]).clipping == 0.0


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ([], ""),
        (["zero_optimization.stage=1"], ""),
        (["zero_optimization.stage=2", "optimizer.params.fused=false"], ""),
        (["optimizer.params.fused=true"], ""),
        (["dsr.scaling.exact=false"], "dsr.scaling.exact is off"),
        (["zero_optimization.stage=1", "optimizer.params.fused=true"], "optimizer.params.fused: how a fused step"),
        (["zero_optimization.stage=3"], "ZeRO stage 3 shards the weights"),
    ],
)
def test_what_is_exact(write, changes, reason):
    experiment = config.load(write("a.json", BASE), changes)
    assert experiment.exact == (not reason) and experiment.inexact.startswith(reason)


def test_the_default_plans_every_mode_up_to_32():
    default = config.load()
    assert default.accumulation >= 32 and default.accumulation * default.micro_batch <= 40


def test_the_schema_is_one_and_refuses_what_we_refuse():
    schema = config.json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    default = json.loads((CONFIGS / "default.json").read_text())
    for broken in ({"optimiser": {}}, {"dsr": {"sed": 1}}, {"dsr": {"seed": "1"}}, {"dsr": {"budget": {"epochs": 0}}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**default, **broken}, schema)


def test_reading_an_experiment_imports_nothing_heavy():
    heavy = ["torch", "deepspeed", "numpy", "xarray"]
    code = f"import sys, dsr.config, dsr.scaling; dsr.config.load(); print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
