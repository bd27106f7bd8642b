"""What a network sees and learns, as a module: against double precision, in any company, in patches and with noise."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dsr.config import Data
from dsr.data import interpolate
from dsr.data.calendar import year_angle
from dsr.data.features import Features
from dsr.data.interpolate import Index
from dsr.data.store import Store
from dsr.data.stream import Batch, Stream
from dsr.data.sun import declination, hour_angle
from dsr.models.downscaler import Downscaler

EVERYTHING = ["lead_time", "solar_zenith", "day_of_year"]
ROWS = np.array([0, 3, 17, 42])


class Nothing(torch.nn.Module):
    """A network that says the same of every channel's mean: enough to see what comes out at the other end."""

    def __init__(self, outputs):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.linspace(1, 2, outputs)[:, None, None])

    def forward(self, inputs):
        return inputs.mean(1, keepdim=True) * self.weight


@pytest.fixture(params=["separable", "another projection", "large, of another projection", "round"])
def features(request, tiny_store, monkeypatch):
    """Features with every extra, spread, and a target that the low data lack, on several grids."""
    found = Features.of(Store(tiny_store), Data(extras=["lead_time"]))
    found.extras = EVERYTHING
    found.latitude, found.longitude = np.mgrid[40:52:24j, -10:10:24j]
    rows, columns = found.low_index
    if "large" in request.param:
        monkeypatch.setattr(interpolate, "KEPT", 10)
        monkeypatch.setattr(interpolate, "TILE", 100)
    if "projection" in request.param:
        return replace(found, low_index=Index(rows + 0.1 * columns - 0.5, columns - 0.05 * rows))
    return replace(found, low_index=Index(rows, columns, 6), periodic=True) if request.param == "round" else found


def given(features, store, rows=ROWS):
    return features.arguments(store.low[rows], store.low_init_time[rows], store.low_lead_time[rows])


def tensors(arrays):
    return [torch.from_numpy(array) for array in arrays]


def reference(features, low, init, lead):
    """In double precision and in physical units up to the last step, as it reads in a paper: (inputs, base)."""
    tiles = [taps for _, taps in interpolate.tiles(features.low_index, features.low_shape, "bicubic")]
    index, weights = (np.concatenate(parts) for parts in zip(*tiles, strict=True))

    def bicubic(fields):
        high = (fields.reshape(*fields.shape[:2], -1)[..., index] * weights).sum(-1)
        return high.reshape(*fields.shape[:2], *features.shape)

    def of(group, variables, key):
        return features.statistic(group, variables, key).astype(float)[:, None, None]

    mean, std = (of("low", features.low, key) for key in ("mean", "std"))
    fields = bicubic(low.astype(float).mean(1))
    parts = [(fields - mean) / std, bicubic(low.astype(float).std(1, ddof=1)) / std]
    static = (features.static_fields - of("static", features.static, "mean")) / of("static", features.static, "std")
    parts.append(np.broadcast_to(static, (len(low), *static.shape)))
    year = year_angle(init + lead, features.calendar)[:, None, None]
    hour = hour_angle((init + lead)[:, None, None], year) + np.radians(features.longitude) - np.pi
    phi, delta = np.radians(features.latitude), declination(year)
    sun = np.sin(phi) * np.sin(delta) + np.cos(phi) * np.cos(delta) * np.cos(hour)
    numbers = [lead[:, None, None] / 86400, sun, np.sin(year), np.cos(year)]
    parts += [np.broadcast_to(part, sun.shape)[:, None] for part in numbers]
    names = [v.name for v in features.low]
    base = np.stack([
        fields[:, names.index(v.name)] if v.name in names
        else np.full(sun.shape, features.statistics["high"][v.name]["mean"])
        for v in features.high
    ], 1)  # fmt: skip
    return np.concatenate(parts, 1), base


def ulps(found, expected, std):
    """The largest difference, in units of the last place of float32 where the standard deviation is 1."""
    return np.abs(found - expected).max() / std / np.finfo(np.float32).eps


def test_inputs_and_targets_lose_nothing_against_double_precision(features, tiny_store):
    store = Store(tiny_store)
    expected, base = reference(features, store.low[ROWS], store.low_init_time[ROWS], store.low_lead_time[ROWS])
    module = Downscaler(features, Nothing(2))
    found = module.inputs(*tensors(given(features, store))).numpy()
    assert found.shape == expected.shape and found.dtype == np.float32
    assert found.shape[1] == len(features.channels)
    for channel, name in enumerate(features.channels):
        std = 1.0 if channel < 5 else 0.5  # normalised, and what is between -1 and 1
        assert ulps(found[:, channel], expected[:, channel], std) <= 4, name
    truth = store.high[ROWS]
    example = module.example(Batch(ROWS, *given(features, store), truth, np.ones_like(truth), None, None))
    assert (example.mask == 1).all() and torch.equal(example.inputs, torch.from_numpy(found))
    residual = example.target.numpy().astype(float) * features.scale[:, None, None]
    for i, variable in enumerate(features.high):
        std = features.statistics["low" if variable.name == "t" else "high"][variable.name]["std"]
        assert ulps(residual[:, i], truth[:, i] - base[:, i], std) <= 4, variable.name


def test_the_prediction_is_the_base_and_what_the_network_adds_within_bounds(features, tiny_store):
    store = Store(tiny_store)
    _, base = reference(features, store.low[ROWS], store.low_init_time[ROWS], store.low_lead_time[ROWS])
    module = Downscaler(features, Nothing(2))
    predicted, found = module.predict(*given(features, store))
    np.testing.assert_allclose(found, base, rtol=1e-6)
    output = module.network(module.inputs(*tensors(given(features, store)))).detach().numpy()
    expected = base + features.scale[:, None, None] * output
    np.testing.assert_allclose(predicted[:, 0], expected[:, 0], rtol=1e-6)
    assert (expected[:, 1] < 0).any()
    np.testing.assert_allclose(predicted[:, 1], np.maximum(expected[:, 1], 0), rtol=1e-5, atol=1e-5)  # p has a bound
    assert {predicted.dtype, found.dtype} == {np.dtype(np.float32)}


def test_the_bits_do_not_depend_on_the_batch(features, tiny_store):
    store, rows = Store(tiny_store), np.arange(16)
    module = Downscaler(features, Nothing(2))
    low, scalars = tensors(given(features, store, rows))
    together = module.inputs(low, scalars)
    for some in (slice(0, 1), slice(7, 8), slice(14, 16)):
        assert torch.equal(module.inputs(low[some], scalars[some]), together[some])


def test_patches_are_crops_to_the_bit(features, tiny_store):
    store = Store(tiny_store)
    module = Downscaler(features, Nothing(2))
    windows = [(slice(y, y + 8), slice(x, x + 8)) for y, x in ((0, 0), (3, 16), (16, 5), (9, 9))]
    low, scalars = tensors(given(features, store))
    whole, patches = module.inputs(low, scalars), module.inputs(low, scalars, windows)
    for field, patch, window in zip(whole, patches, windows, strict=True):
        assert torch.equal(field[:, *window], patch)


@pytest.mark.parametrize("members", ["mean", "control"])
def test_members_enter_as_asked(tiny_store, members):
    store = Store(tiny_store)
    features = Features.of(store, Data(members=members, static=[]))
    low = given(features, store)[0]
    found = Downscaler(features, Nothing(2)).inputs(*tensors(given(features, store)))
    alone = replace(features, ensemble=False)
    chosen = low.astype(float).mean(1).astype(np.float32) if members == "mean" else low[:, 0]
    expected = Downscaler(alone, Nothing(2)).inputs(torch.from_numpy(chosen), torch.zeros(len(low), 0))
    assert found.shape[1] == len(features.channels) == 2
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)


def test_noise_is_on_the_low_fields_alone_and_each_samples_own(tiny_store):
    store, data = Store(tiny_store), Data(noise=0.5)
    features = Features.of(store, data)
    module, samples = Downscaler(features, Nothing(2)), np.array([3, 17])
    stream, other = (Stream(store, features, data, "train", seed) for seed in (5, 6))
    batch = stream.read(2, samples)
    clean, noisy = module.example(batch), module.example(batch, 0.5)
    added, channels = noisy.inputs - clean.inputs, features.static_channels.start
    assert (added[:, :channels].std((2, 3)) - 0.5).abs().max() < 0.1
    assert not added[:, channels:].any() and torch.equal(noisy.target, clean.target)
    assert torch.equal(module.example(stream.read(2, samples[::-1]), 0.5).inputs, noisy.inputs.flip(0))
    for unlike in (stream.read(3, samples), other.read(2, samples)):
        assert (module.example(unlike, 0.5).inputs[:, :channels] != noisy.inputs[:, :channels]).all()
    assert Stream(store, features, data, "validation", 5).read(2, samples[:1] - 3).seeds is None


def test_only_the_network_is_learned_and_only_it_is_cast(tiny_store):
    """In bf16 the inputs are made in float32; what is saved is the network's alone."""
    store = Store(tiny_store)
    features = Features.of(store, Data())
    module = Downscaler(features, torch.nn.Conv2d(5, 2, 1))
    assert list(module.state_dict()) == ["network.weight", "network.bias"]
    low, scalars = tensors(given(features, store))
    before = module.inputs(low, scalars)
    module.network.bfloat16()
    assert torch.equal(module.inputs(low, scalars), before) and before.dtype == torch.float32
    assert {field.dtype for field in module(low, scalars)} == {torch.float32}


@pytest.mark.slow
def test_it_can_be_exported(tiny_store):
    store = Store(tiny_store)
    features = Features.of(store, Data(extras=["lead_time"]))
    module, arguments = Downscaler(features, torch.nn.Conv2d(6, 2, 1)), tensors(given(features, store))
    program = torch.export.export(module, tuple(arguments), dynamic_shapes=({0: torch.export.Dim("n")},) * 2)
    for some in (slice(0, 4), slice(1, 3)):
        few = [argument[some] for argument in arguments]
        for found, expected in zip(program.module()(*few), module(*few), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-5)
