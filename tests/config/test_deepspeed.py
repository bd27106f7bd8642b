"""DeepSpeed's keys as dsr has them, against the DeepSpeed that is installed."""

import contextlib
import copy
import functools
import inspect
import json
from pathlib import Path

import pytest

from dsr import config
from dsr.config import deepspeed
from dsr.errors import UserError

CONFIGS = Path(__file__).parents[2] / "ds_configs"


class Recording(dict):
    """A configuration that remembers which keys were asked for."""

    def __init__(self, *values, **more):
        super().__init__(*values, **more)
        self.asked = set()

    def get(self, key, default=None):
        self.asked.add(key)
        return super().get(key, default)

    def __contains__(self, key):
        self.asked.add(key)
        return super().__contains__(key)

    def __getitem__(self, key):
        self.asked.add(key)
        return super().__getitem__(key)

    def pop(self, key, *default):
        self.asked.add(key)
        return super().pop(key, *default)


@pytest.fixture(scope="module")
def deepspeed_config_class():
    from deepspeed.runtime.config import DeepSpeedConfig

    return DeepSpeedConfig


def test_deepspeed_asks_for_no_key_that_we_do_not_know(deepspeed_config_class):
    values = json.loads((CONFIGS / "default.json").read_text())
    recording = Recording({**values, "train_batch_size": 32})
    deepspeed_config_class(recording)
    known = deepspeed.KEYS.keys() | deepspeed.REMOVED.keys()
    assert len(recording.asked) > 40  # it records
    assert {key for key in recording.asked if isinstance(key, str)} - known == set()


@pytest.mark.parametrize("name", sorted(deepspeed.REMOVED.keys() - {"quantize_training"}))
def test_deepspeed_refuses_the_blocks_that_it_removed(deepspeed_config_class, name):
    with pytest.raises(Exception, match=r"removed|no longer"):
        deepspeed_config_class({"train_batch_size": 1, name: {"enabled": True}})


def test_a_file_without_extends_is_what_deepspeed_reads(deepspeed_config_class):
    found = config.load(CONFIGS / "default.json")
    read = deepspeed_config_class(str(CONFIGS / "default.json"))
    assert (read.train_micro_batch_size_per_gpu, read.gradient_accumulation_steps) == (
        found.micro_batch,
        found.accumulation,
    )
    assert read.train_batch_size == found.micro_batch * found.accumulation
    assert read.gradient_clipping == found.clipping


def test_the_clipping_default_is_deepspeeds(deepspeed_config_class):
    assert deepspeed_config_class({"train_batch_size": 1}).gradient_clipping == 1.0


@pytest.fixture
def default():
    return json.loads((CONFIGS / "default.json").read_text())


KEYS = [
    *deepspeed.KEYS,
    *(f"{block}.{key}" for block, known in deepspeed.BLOCKS.items() for key in known if key != "bf16_optimizer_states"),
    *(f"optimizer.params.{key}" for key in deepspeed.OPTIMIZER_PARAMS["Adam"]),
    *(f"scheduler.params.{key}" for key in deepspeed.SCHEDULER_PARAMS["WarmupCosineLR"]),
]


VALUES = ("ten", "mean", "bf16", True, False, 0, 1, -1, 2.5, 10**10, None, [], [0.5, 0.9], {})
NEED_ZERO = ("bf16_master_weights_and_grads", "fp16_master_weights_and_grads", "compute_grad_norm")


@pytest.mark.parametrize("key", KEYS)
def test_what_we_accept_deepspeed_accepts(deepspeed_config_class, default, key):
    accepted = 0
    for value in VALUES:
        *blocks, name = key.split(".")
        values = {**copy.deepcopy(default), "zero_optimization": {"stage": int(name in NEED_ZERO)}}
        functools.reduce(lambda part, block: part.setdefault(block, {}), blocks, values)[name] = copy.deepcopy(value)
        with contextlib.suppress(UserError):
            deepspeed_config_class(config.validate(values, "test").deepspeed)
            accepted += 1
    assert accepted or key in ("train_batch_size", "optimizer", "scheduler")


def test_block_names_are_deepspeeds():
    from deepspeed.runtime.precision_config import DeepSpeedBF16Config, DeepSpeedFP16Config
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    classes = {"bf16": DeepSpeedBF16Config, "fp16": DeepSpeedFP16Config, "zero_optimization": DeepSpeedZeroConfig}
    for block, kind in classes.items():
        assert deepspeed.BLOCKS[block].keys() == {field.alias or name for name, field in kind.model_fields.items()}


@pytest.mark.parametrize("name", deepspeed.OPTIMIZER_PARAMS)
def test_optimizer_settings_are_torchs(name):
    import torch

    accepted = set(inspect.signature(getattr(torch.optim, name)).parameters)
    deepspeeds = {"torch_adam", "adam_w_mode"} if name in ("Adam", "AdamW") else set()
    assert deepspeed.OPTIMIZER_PARAMS[name].keys() - deepspeeds <= accepted


@pytest.mark.parametrize("name", deepspeed.SCHEDULER_PARAMS)
def test_scheduler_settings_are_deepspeeds(name):
    from deepspeed.runtime import lr_schedules

    accepted = set(inspect.signature(getattr(lr_schedules, name)).parameters) - {"optimizer"}
    assert deepspeed.SCHEDULER_PARAMS[name].keys() == accepted
