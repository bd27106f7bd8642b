"""The decoded rows on disk: the same values, whoever reads and writes them at once, is killed, or edits them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from dsr.data import cache
from dsr.data.store import Store
from dsr.errors import UserError
from tests.stores import write_four_samples

READER = """
import sys, hashlib, numpy as np
from dsr.data import cache
from dsr.data.store import Store
store = Store(sys.argv[1])
told = cache.attach(store, 1)
assert not told, told
print("ready", flush=True)
rows = np.random.default_rng(int(sys.argv[2])).permutation(len(store.high))
for _ in range(int(sys.argv[3])):
    for row in rows:
        store.high[[row]], store.low[[row]]
print(hashlib.sha256(store.high[:].tobytes() + store.low[:].tobytes()).hexdigest())
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("DSR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache/decoded"


@pytest.fixture
def path(tmp_path):
    write_four_samples(tmp_path / "a.zarr")
    return tmp_path / "a.zarr"


def opened(path, gigabytes=1.0):
    store = Store(path)
    assert cache.attach(store, gigabytes) == ""
    return store


def remove_chunks(path):
    for chunk in [*path.glob("high/field/c/*/0/0/0"), *path.glob("low/field/c/*/0/0/0")]:
        chunk.unlink()


def test_rows_are_the_stores_and_are_decoded_once_for_every_process(path):
    plain, first = Store(path), opened(path)
    high, low = plain.high[:], plain.low[:]
    for rows in ([3, 0, 3], [1, 2], [0, 1, 2, 3]):
        assert np.array_equal(first.high[rows], high[rows]) and np.array_equal(first.low[rows], low[rows])
    remove_chunks(path)
    second = opened(path)
    for rows in ([2, 2, 1], [-1], slice(None)):
        assert np.array_equal(second.high[rows], high[rows]) and np.array_equal(second.low[rows], low[rows])
    with pytest.raises(UserError, match="row 0 of high/field"):
        plain.high[0]


def test_parts_of_rows(path):
    plain = Store(path).high[:]
    for store in (Store(path), opened(path), opened(path)):
        out, rows = np.empty((3, 1, 2, 3), np.float32), np.array([2, 0, 2])
        places = [(slice(None), slice(y, y + 2), slice(x, x + 3)) for y, x in ((0, 1), (2, 0), (1, 1))]
        store.high.read(rows, out, places)
        assert all(np.array_equal(got, plain[row][place]) for got, row, place in zip(out, rows, places, strict=True))


def test_a_rotten_row_is_found_and_written_again(path, folder):
    high = opened(path).high[:]
    file = next(folder.glob("*-high.*"))
    content = bytearray(file.read_bytes())
    content[-3] ^= 1  # of the last row
    file.write_bytes(content)
    assert np.array_equal(opened(path).high[:], high)
    remove_chunks(path)
    assert np.array_equal(opened(path).high[:], high)


def test_a_rotten_chunk_is_named_and_never_kept(path):
    chunk = path / "low/field/c/1/0/0/0"
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"\0")
    for _ in range(2):
        with pytest.raises(UserError, match="row 1 of low/field"):
            opened(path).low[:]


def test_another_store_has_files_of_its_own(path, tmp_path):
    opened(path).high[:]
    other = write_four_samples(tmp_path / "b.zarr", high=np.ones((4, 1, 4, 4), np.float32))
    assert np.array_equal(opened(other.path).high[:], np.ones((4, 1, 4, 4)))


def test_the_folder_is_bounded_and_deleted_files_stay_readable(path, tmp_path, folder):
    user = opened(path)
    high = user.high[:]
    for file in folder.glob(f"{user.fingerprint}*"):
        os.utime(file, (1, 1))
    other = write_four_samples(tmp_path / "b.zarr", low=np.ones((4, 2, 2, 2), np.float32))
    size = sum(file.stat().st_size for file in folder.iterdir())
    opened(other.path, 1.5 * size / 1e9)
    assert {file.name[:64] for file in folder.glob("*-*")} == {other.fingerprint}
    remove_chunks(path)
    assert np.array_equal(user.high[:], high)
    assert "dsr.data.cache is" in cache.attach(Store(path), 0.5 * size / 1e9)
    assert cache.attach(Store(path), 0) and len(list(folder.glob("*-*"))) == 2


def test_a_folder_that_cannot_be_written_is_told(path, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DSR_CACHE", str(tmp_path / "file"))
    store = Store(path)
    assert "no cache" in cache.attach(store, 1) and store.high.decoded is None


def test_on_a_full_disk_reading_goes_on(path, folder):
    """A limit on the size of files stands in for it: the rows of the second page cannot be written."""
    opened(path)
    limit = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    limited = READER.replace('print("ready"', "resource.setrlimit(resource.RLIMIT_FSIZE, (4200, 4200)); print('ready'")
    done = subprocess.run([sys.executable, "-c", limit + limited, path, "0", "1"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    high = Store(path).high[:]
    remove_chunks(path)
    held = opened(path).high.decoded
    assert [row for row in range(4) if held.find(row) is not None] != list(range(4))
    assert all(found is None or np.array_equal(found, high[row]) for row, found in enumerate(map(held.find, range(4))))


@pytest.mark.parametrize("killed", [False, True])
def test_processes_at_once(tmp_path, folder, killed):
    """Four read and write all rows in orders of their own; where one is killed, nothing is left of it."""
    random = np.random.default_rng(0)
    fields = {"low": random.normal(size=(4, 2, 2, 2)), "high": random.normal(size=(4, 1, 4, 4))}
    path = write_four_samples(tmp_path / "c.zarr", **{k: v.astype(np.float32) for k, v in fields.items()}).path
    command = [sys.executable, "-c", READER, str(path)]
    processes = [subprocess.Popen([*command, str(seed), "50"], stdout=subprocess.PIPE, text=True) for seed in range(3)]
    if killed:
        endless = subprocess.Popen([*command, "9", "1000000000"], stdout=subprocess.PIPE, text=True)
        assert endless.stdout.readline() == "ready\n"
        time.sleep(0.05)
        endless.send_signal(signal.SIGKILL)
        endless.communicate()
    ends = {process.communicate()[0].split()[-1] for process in processes}
    assert len(ends) == 1
    assert {file.name for file in folder.iterdir()} == {
        "lock", *(f"{Store(path).fingerprint}-{name}.{cache.VERSION}" for name in ("low", "high"))
    }  # fmt: skip
    plain, last = Store(path), opened(path)
    assert np.array_equal(last.high[:], plain.high[:]) and np.array_equal(last.low[:], plain.low[:])


def test_what_a_killed_process_left_half_made_is_removed(path, folder):
    folder.mkdir(parents=True)
    (folder / ".x-high.1.999.partial").write_bytes(b"0")
    opened(path)
    assert not list(folder.glob(".*"))
