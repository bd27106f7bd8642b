"""The loader: which samples a slot holds, on any number of ranks; patches, masks, and what goes wrong."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import zarr

from dsr.config import Data
from dsr.data import cache
from dsr.data.buffers import Buffers
from dsr.data.features import Features
from dsr.data.order import order
from dsr.data.store import Store
from dsr.data.stream import Stream, training_fields, training_samples
from dsr.errors import UserError
from dsr.models.downscaler import Downscaler
from tests.stores import DAY, HOUR, make, sign, thirds, write_tiny_store


def stream(path, split="train", seed=5, **data):
    store, chosen = Store(path), Data(**data)
    return Stream(store, Features.of(store, chosen), chosen, split, seed)


def dealt(source, first, updates, ranks, slots=6, micro_batch=2):
    """{(update, slot): sample numbers}, played by `ranks` ranks."""
    found = {}
    for rank in range(ranks):
        mine = range(rank * slots // ranks, (rank + 1) * slots // ranks)
        for update, _, batches in source.slots(first, updates, slots, micro_batch, mine):
            for slot, batch in zip(mine, batches, strict=True):
                found[update, slot] = batch.samples.tolist()
    return found


def test_a_slot_holds_the_same_samples_whichever_rank_plays_it(tiny_store):
    source = stream(tiny_store)
    one = dealt(source, 0, 7, 1)
    assert len(one) == 7 * 6
    for ranks in (2, 3, 6):
        assert dealt(source, 0, 7, ranks) == one


@pytest.mark.parametrize("ranks", [1, 2, 3, 8, 32])
def test_the_sequence_of_96_slots_is_one_on_any_number_of_ranks_and_after_a_resume(tiny_store, ranks, monkeypatch):
    """360 patches: 3 updates an epoch. Only the numbers of the samples are looked at."""
    source = stream(tiny_store, patch=8)
    monkeypatch.setattr(source, "read", lambda epoch, samples, buffers: SimpleNamespace(samples=samples))
    epochs = [order(5, epoch, 360, np.arange(288)).reshape(3, 96, 1) for epoch in range(3)]
    updates = np.concatenate(epochs)[:8].tolist()
    expected = {(update, slot): samples for update, each in enumerate(updates) for slot, samples in enumerate(each)}
    for first in (0, 2, 7):
        coming = {key: samples for key, samples in expected.items() if key[0] >= first}
        assert dealt(source, first, 8, ranks, slots=96, micro_batch=1) == coming


def test_an_epoch_plays_each_sample_at_most_once_and_drops_its_tail(tiny_store):
    one = dealt(stream(tiny_store), 0, 6, 1)  # 40 samples, 12 an update: 3 updates an epoch, 4 samples dropped
    for epoch in range(2):
        played = [s for (update, _), samples in one.items() if update // 3 == epoch for s in samples]
        assert len(played) == len(set(played)) == 36
        assert played == order(5, epoch, 40, np.arange(36)).tolist()


def test_fewer_samples_are_whole_runs_spread_over_the_training_split_only(tmp_path):
    random = np.random.default_rng(0)
    init, lead = np.repeat(np.arange(10) * DAY, 3), np.tile([0, HOUR, 2 * HOUR], 10)
    high = random.normal(size=(30, 1, 8, 8))
    store = make(tmp_path / "s.zarr", high, high[..., ::4, ::4], thirds(24, 3, 3), init=init, lead=lead)
    few, fewer = (training_fields(store, Data(samples=n)).tolist() for n in (13, 6))
    assert few == [0, 1, 2, 6, 7, 8, 12, 13, 14, 18, 19, 20]  # 4 of 8 runs, every other one: 13 holds no fifth
    assert fewer == [0, 1, 2, 12, 13, 14] and set(fewer) < set(few)
    assert training_fields(store, Data(samples=24)).tolist() == list(range(24))
    source = stream(tmp_path / "s.zarr", samples=6)
    assert source.count == training_samples(store, Data(samples=6)) == 6
    assert np.array_equal(
        source.read(0, np.array([3])).truth, stream(tmp_path / "s.zarr").read(0, np.array([12])).truth
    )
    for split in ("validation", "test"):
        assert stream(tmp_path / "s.zarr", split, samples=6).count == 3
    assert training_samples(store, Data(samples=6, patch=4)) == 6 * 4
    with pytest.raises(UserError, match=r"samples 25: the training split has 24"):
        training_fields(store, Data(samples=25))
    with pytest.raises(UserError, match="runs stay whole"):
        training_fields(store, Data(samples=2))


def test_beginning_in_mid_epoch_gives_the_rest_of_the_same_sequence(tiny_store):
    source = stream(tiny_store)
    whole = dealt(source, 0, 9, 2)
    for first in (1, 3, 4, 8):
        assert dealt(source, first, 9, 3) == {key: value for key, value in whole.items() if key[0] >= first}
    assert dealt(source, 9, 9, 1) == {}


def test_a_batch_is_what_the_store_holds(tiny_store):
    source, rows = stream(tiny_store, extras=["lead_time"]), np.array([31, 2])
    store, batch = source.store, source.read(0, rows)
    low, scalars = source.features.arguments(store.low[rows], store.low_init_time[rows], store.low_lead_time[rows])
    assert batch.low.tobytes() == low.tobytes() and batch.scalars.tobytes() == scalars.tobytes()
    assert batch.truth.tobytes() == store.high[rows].tobytes() and batch.mask.all()
    assert {array.dtype for array in (batch.low, batch.scalars, batch.truth, batch.mask)} == {np.dtype(np.float32)}
    assert batch.windows is batch.seeds is None


def test_other_splits_begin_at_their_own_first_sample(tiny_store):
    source = stream(tiny_store, "test", patch=8)
    batch = source.read(0, np.array([0]))
    assert source.count == 10 and batch.windows is None  # patches are for training only
    assert np.array_equal(batch.truth[0], source.store.high[50])


def test_chosen_variables_come_in_the_order_asked_for(tiny_store):
    both, turned = stream(tiny_store), stream(tiny_store, low=["u", "t"], high=["p", "t"])
    one, other = both.read(0, np.array([4])), turned.read(0, np.array([4]))
    assert np.array_equal(other.low[:, :, ::-1], one.low)
    assert np.array_equal(other.truth[:, ::-1], one.truth)


def test_missing_targets_are_masked(tmp_path):
    write_tiny_store(tmp_path / "a.zarr", missing=True)
    source = stream(tmp_path / "a.zarr")
    batch = source.read(0, np.array([1]))
    assert (batch.mask[0, 1] == 0).sum() == 9 * 19 and not batch.mask[0, 1, 1:10, 1:20].any()
    assert (batch.mask[0, 0] == 0).sum() == 24 and not batch.mask[0, 0, 1].any()
    example = Downscaler(source.features, torch.nn.Identity()).example(batch)
    assert example.target.isfinite().all() and torch.equal(example.mask, torch.from_numpy(batch.mask))
    assert not example.target[example.mask == 0].any()


# ---- patches, and a split by region


def test_patches_are_keyed_on_seed_epoch_and_sample(tiny_store):
    source = stream(tiny_store, patch=8)
    assert source.count == training_samples(Store(tiny_store), Data(patch=8)) == 40 * 9
    together, alone = source.read(1, np.array([7, 100])), source.read(1, np.array([100]))
    assert together.truth.shape == together.mask.shape == (2, 2, 8, 8)
    assert together.truth[1:].tobytes() == alone.truth.tobytes() and together.windows[1:] == alone.windows
    again = stream(tiny_store, patch=8).read(1, np.array([100]))
    assert again.windows == alone.windows
    others = [source.read(2, np.array([100])), stream(tiny_store, seed=6, patch=8).read(1, np.array([100]))]
    assert all(other.windows != alone.windows for other in others)
    places = [source.read(1, np.array([sample])).windows[0] for sample in range(30)]
    assert len({(rows.start, columns.start) for rows, columns in places}) > 20


def test_a_patch_is_a_crop_of_its_field(tiny_store):
    source = stream(tiny_store, patch=8)
    patch, field = source.read(0, np.array([22])), stream(tiny_store).read(0, np.array([2]))
    window, module = patch.windows[0], Downscaler(source.features, torch.nn.Identity())
    assert np.array_equal(patch.truth[0], field.truth[0][:, *window])
    assert torch.equal(module.example(patch).target[0], module.example(field).target[0][:, *window])


@pytest.fixture
def regional(tmp_path):
    """The tiny store split by region: columns 0-11 are for training, 12-13 the gap, the rest for the others."""
    region = np.repeat([0, -1, 1, 2], [12, 2, 5, 5]).astype(np.int8)
    write_tiny_store(tmp_path / "a.zarr", np.tile(region, (24, 1)))
    return tmp_path / "a.zarr"


def test_patches_lie_inside_the_training_region(regional):
    source = stream(regional, patch=8)
    assert source.count == 60 * (12 * 24 // 64)
    seen = set()
    for sample in range(120):
        batch = source.read(0, np.array([sample]))
        assert (batch.mask == 1).all()
        seen |= {window.start for window in source._window(0, sample)[1:]}
    assert seen == set(range(5))  # every column where 8 fit into 12


def test_whole_fields_are_masked_to_their_region(regional):
    for split, columns in (("train", range(12)), ("validation", range(14, 19)), ("test", range(19, 24))):
        mask = stream(regional, split).read(0, np.array([0, 59])).mask
        assert np.flatnonzero(mask.any((0, 1, 2))).tolist() == list(columns)


def test_patches_that_do_not_fit_are_refused(tiny_store, regional):
    with pytest.raises(UserError, match=r"dsr.data.patch 25 is larger than the high grid of 24 x 24"):
        stream(tiny_store, patch=25)
    with pytest.raises(UserError, match=r"dsr.data.patch 13: no such square lies inside the training region"):
        training_samples(Store(regional), Data(patch=13))


# ---- how many values the targets have


@pytest.mark.parametrize("patch", [None, 8])
@pytest.mark.parametrize("by_region", [False, True])
def test_counts_are_those_of_the_masks_on_any_number_of_ranks(tmp_path, patch, by_region):
    """Known beforehand for whole fields; of patches each rank counts its own, one update ahead."""
    region = np.tile(np.repeat([0, -1, 1, 2], [12, 2, 5, 5]).astype(np.int8), (24, 1)) if by_region else None
    write_tiny_store(tmp_path / "a.zarr", region, missing=True)
    source = stream(tmp_path / "a.zarr", patch=patch, high=["p", "t"])
    assert source.knows_counts == (patch is None)
    found = {}
    for ranks in (1, 3):
        for rank in range(ranks):
            mine = range(rank * 6 // ranks, (rank + 1) * 6 // ranks)
            for update, counts, batches in source.slots(0, 4, 6, 2, mine):
                masks = [batch.mask.sum((0, 2, 3)) for batch in batches]
                own = counts[mine.start : mine.stop] if source.knows_counts else counts
                assert own.dtype == np.int64 and own.tolist() == np.array(masks).tolist()
                found.setdefault((ranks, update), []).extend(own.tolist())
    assert all(found[3, update] == found[1, update] for update in range(4))
    assert len({tuple(slot) for counts in found.values() for slot in counts}) > 10


def test_counts_of_complete_fields_need_no_masks(tiny_store, monkeypatch):
    source = stream(tiny_store, patch=8)
    assert source.knows_counts
    monkeypatch.setattr(source, "store", None)  # nothing more is read
    assert source.counted(0, np.array([[3, 200]])).tolist() == [[128, 128]]


def test_an_older_store_is_counted_when_training_opens_it(tmp_path):
    write_tiny_store(tmp_path / "new.zarr", missing=True)
    shutil.copytree(tmp_path / "new.zarr", tmp_path / "old.zarr")
    shutil.rmtree(tmp_path / "old.zarr/high/count")
    zarr.consolidate_metadata(tmp_path / "old.zarr")
    sign(tmp_path / "old.zarr")
    old, new = (stream(tmp_path / name) for name in ("old.zarr", "new.zarr"))
    assert old.store.counts is None and new.store.counts is not None
    before, beats = old.store.fingerprint, []
    old.beat = lambda: beats.append(1)
    assert old.counts.tolist() == new.counts.tolist() and beats
    assert Store(tmp_path / "old.zarr").fingerprint == before


# ---- how it is read


def test_batches_are_the_same_however_far_ahead_and_from_the_cache(tiny_store, tmp_path, monkeypatch):
    def batches(source):
        return [
            [value.tobytes() if isinstance(value, np.ndarray) else value for value in vars(batch).values()]
            for _, _, several in source.slots(0, 2, 6, 2, range(6))
            for batch in several
        ]

    monkeypatch.setenv("DSR_CACHE", str(tmp_path))
    for data in ({}, {"patch": 8, "high": ["p"], "low": ["u"]}):
        plain, decoded = stream(tiny_store, **data), stream(tiny_store, **data)
        assert cache.attach(decoded.store, 1) == ""
        expected = batches(plain)
        for most, source in ((1, plain), (1, decoded), (8, decoded)):
            monkeypatch.setattr("dsr.data.stream.AHEAD", most)
            assert batches(source) == expected


def test_what_is_read_ahead_is_bounded(tiny_store, monkeypatch):
    whole, patches = stream(tiny_store), stream(tiny_store, patch=8, low=["t"])
    sample = 4 * (3 * 2 * 36 + 2 * 24 * 24), 4 * (3 * 36 + 2 * 64)
    for source, size in zip((whole, patches), sample, strict=True):
        for given, most in ((0, 1), (5 * 3 * size, 5), (5 * 3 * size - 1, 4), (100 * size, 8)):
            monkeypatch.setattr("dsr.data.stream.BYTES", given)
            assert source.ahead(3) == most


def test_patches_of_one_field_share_its_decoding(tiny_store, monkeypatch):
    source, names = stream(tiny_store, patch=8), []
    source.read(0, np.array([0]))
    read = source.store.files.read
    monkeypatch.setattr(source.store.files, "read", lambda name, what: names.append(name) or read(name, what))
    source.read(0, np.array([9, 10, 11, 18]))
    chunks = [f"{field}/field/c/{row}" for field in ("high", "low") for row in (1, 2)]
    assert sorted(name.removesuffix("/0" * (name.count("/") - 3)) for name in names) == chunks


def test_buffers_are_used_again(tiny_store):
    fields, buffers, rows = Store(tiny_store).low, Buffers(), np.array([7, 3, 7])
    for variables in ([0, 1], [1], [1, 0]):
        first = buffers.read(fields, rows, variables, None)
        assert np.array_equal(first, fields[rows][:, :, variables])
        again = buffers.read(fields, rows[::-1], variables, None)
        assert again is first and np.array_equal(again, fields[rows[::-1]][:, :, variables])


# ---- what goes wrong


def test_an_error_of_the_reader_surfaces(tmp_path):
    write_tiny_store(tmp_path / "a.zarr")
    broken = int(order(5, 0, 40, np.array([14]))[0])
    chunk = next((tmp_path / "a.zarr/low/field").glob(f"c/{broken}/**/0"))
    while chunk.is_dir():
        chunk /= "0"
    chunk.write_bytes(b"not a chunk")
    source = stream(tmp_path / "a.zarr")
    played = []
    with pytest.raises(UserError, match=f"row {broken} of low/field"):
        for update, _, batches in source.slots(0, 3, 12, 1, range(12)):
            for batch in batches:
                played.append((update, batch.samples.item()))
    assert [sample for _, sample in played] == order(5, 0, 40, np.arange(14)).tolist()


def test_leaving_early_ends_the_reader(tiny_store):
    import threading

    before = threading.active_count()
    for _, _, batches in stream(tiny_store).slots(0, 100, 12, 1, range(12)):
        next(batches)
        break
    assert threading.active_count() <= before + 1
