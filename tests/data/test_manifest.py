"""Verified reads: whatever byte of a store is changed, an error names the file and nothing is read from it."""

import hashlib
import json
import multiprocessing
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import fsspec
import numpy as np
import pytest
import xarray as xr
import xxhash
import zarr

import dsr.data.store as stores
from dsr.data.manifest import Changed
from dsr.data.store import Store
from dsr.errors import UserError
from tests.stores import write_four_samples


@pytest.fixture
def path(tmp_path):
    write_four_samples(tmp_path / "a.zarr")
    return tmp_path / "a.zarr"


def read_everything(path):
    """Every array as bytes, and the attributes."""
    store = Store(path)
    arrays = {name: member for name, member in store.group.members(max_depth=None) if isinstance(member, zarr.Array)}
    found = {name: np.asarray(array[...]).tolist() for name, array in arrays.items()}
    found |= {"high": store.high[:].tolist(), "low": store.low[:].tolist()}
    grids = [store.grid(name).to_dataset().to_dict() for name in ("high", "low")]
    return found, grids, store.attributes, stores.open(path).load().to_dict()


def test_the_manifest_by_hand(path):
    manifest = json.loads((path / "manifest.json").read_text())
    files = {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()}
    assert set(manifest) == files - {"manifest.json", "provenance.json", "SHA256SUMS"}
    for name, told in manifest.items():
        content = (path / name).read_bytes()
        assert told == f"{xxhash.xxh3_128(content).hexdigest()} {len(content)}"
    assert Store(path).fingerprint == hashlib.sha256((path / "manifest.json").read_bytes()).hexdigest()
    assert Store(path).attributes["fingerprint"] == Store(path).fingerprint
    subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=path, check=True, capture_output=True)


@pytest.mark.slow
def test_no_file_can_be_edited_and_its_content_read(path):
    whole = repr(read_everything(path))
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        was = file.read_bytes()
        middle = len(was) // 2
        harmless = file.name == "zarr.json" and file.parent != path  # a copy is in the root's
        for edited in (was[:middle] + bytes([was[middle] ^ 1]) + was[middle + 1 :], was[:-2], None):
            file.unlink() if edited is None else file.write_bytes(edited)
            try:
                found = repr(read_everything(path))
            except UserError as error:
                assert re.search("prepare|open it again|no store there|not a dsr store", str(error))
            else:
                assert harmless and found == whole, file
            file.write_bytes(was)
    assert repr(read_everything(path)) == whole


@pytest.mark.parametrize("how", ["edited", "exchanged", "removed"])
def test_a_rotten_chunk_is_named_by_array_row_and_valid_time(path, how):
    store, chunk = Store(path), path / "high/field/c/3/0/0/0"
    if how == "removed":
        chunk.unlink()
    elif how == "exchanged":
        shutil.copy(path / "high/field/c/2/0/0/0", chunk)  # whole, but another time's
    else:
        chunk.write_bytes(chunk.read_bytes()[:-1] + b"\0")
    assert np.array_equal(store.high[:3], np.arange(48).reshape(3, 1, 4, 4))
    with pytest.raises(UserError, match=r"row 3 of high/field \(valid 1970-01-01T03:00\).*edited or rotten.*prepare"):
        store.high[np.array([1, 3])]
    with pytest.raises(UserError, match="high/field/c/3/0/0/0 is not what was written"):
        stores.open(path)["high"]["t"].load()


def test_a_chunk_of_another_calendar_is_named_by_its_date(tmp_path):
    days = np.arange(58, 62) * 86400  # 28 February of a year of 360 days is its day 57
    store = write_four_samples(tmp_path / "a.zarr", calendar="360_day", time=days)
    (tmp_path / "a.zarr/high/field/c/1/0/0/0").unlink()
    with pytest.raises(UserError, match=r"row 1 of high/field \(valid 1970-02-30T00:00\)"):
        store.high[1]


def test_a_store_that_was_replaced_says_so(path, tmp_path):
    store = Store(path)
    write_four_samples(tmp_path / "b.zarr", high=np.ones((4, 1, 4, 4), np.float32))
    shutil.rmtree(path)
    (tmp_path / "b.zarr").rename(path)
    assert np.array_equal(store.low[:], Store(path).low[:])
    with pytest.raises(Changed, match="has changed since it was opened: open it again"):
        store.high[0]


@pytest.mark.parametrize(
    ("found", "remedy"),
    [(1, "prepare it again"), (3, "update dsr"), ("x", "prepare it again"), (None, "not a dsr")],
)
def test_another_format_is_refused_with_what_to_do(path, found, remedy):
    root = json.loads((path / "zarr.json").read_text())
    root["attributes"]["dsr_store"] = found
    if found is None:
        del root["attributes"]["dsr_store"]
    (path / "zarr.json").write_text(json.dumps(root))
    with pytest.raises(UserError, match=remedy):
        Store(path)


def test_fields_of_another_layout_are_refused(path):
    metadata = json.loads((path / "high/field/zarr.json").read_text())
    metadata["codecs"] = metadata["codecs"][:1]
    text = json.dumps(metadata).encode()
    (path / "high/field/zarr.json").write_bytes(text)
    store = Store(path)
    store.files.sums["high/field/zarr.json"] = f"{xxhash.xxh3_128_hexdigest(text)} {len(text)}"
    with pytest.raises(UserError, match="high/field does not have the layout that dsr writes"):
        store.high  # noqa: B018


def test_rows_are_chosen_as_numpy_chooses_them(path):
    store, whole = Store(path), np.arange(64, dtype=np.float32).reshape(4, 1, 4, 4)
    for rows in (2, -1, slice(None), slice(3, None, -2), [3, 1, 1], np.array([[0], [2]]), np.arange(4) > 1, ..., []):
        chosen = np.array(rows, int) if isinstance(rows, list) else rows
        assert np.array_equal(store.high[chosen], whole[chosen])
        assert store.high[chosen].shape == whole[chosen].shape
    with pytest.raises(IndexError):
        store.high[4]


def test_a_url_is_read_and_verified_alike(path):
    memory = fsspec.filesystem("memory")
    memory.put(str(path), "/stores/a.zarr", recursive=True)
    remote, local = Store("memory://stores/a.zarr"), Store(path)
    assert remote.fingerprint == local.fingerprint
    assert np.array_equal(remote.low[:], local.low[:]) and np.array_equal(remote.time, local.time)
    assert remote.grid("low").to_dataset().identical(local.grid("low").to_dataset())
    assert xr.testing.assert_identical(stores.open("memory://stores/a.zarr"), stores.open(path)) is None
    memory.pipe_file("/stores/a.zarr/low/field/c/0/0/0/0", b"other")
    with pytest.raises(UserError, match="row 0 of low/field"):
        remote.low[0]
    with pytest.raises(UserError, match="no store there"):
        Store("memory://stores/b.zarr")


def test_threads_and_forked_processes_read_the_same_open_store(path):
    store = Store(path)
    whole = store.high[:]
    with ThreadPoolExecutor(4) as pool:
        assert all(np.array_equal(found, whole) for found in pool.map(lambda _: store.high[:], range(50)))
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=lambda: sys.exit(not np.array_equal(store.high[:], whole))) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
