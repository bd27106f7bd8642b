"""Writing by many processes, killed at any moment: the same bytes as by one that was left alone."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import psutil
import pytest

from dsr.data.store import Store
from dsr.data.workers import write_rows
from dsr.data.writer import Writer
from dsr.errors import UserError
from tests.stores import four_samples

pytestmark = pytest.mark.slow

JOBS = [[0, 2], [3], [1]]  # rows of low and high


class Fill:
    """A reader of files that do not exist; `halt` is a file at whose presence the last job waits."""

    def __init__(self, halt=None, fail=None):
        self.halt, self.fail = halt, fail

    def __call__(self):
        return self.fill

    def fill(self, job, put):
        if self.halt and job == JOBS[-1]:
            while Path(self.halt).exists():
                time.sleep(0.02)
        if job == self.fail:
            raise UserError(f"job {job}: the file ends early")
        for row in job:
            put("high", row, np.arange(16.0).reshape(1, 4, 4) + row)
            put("low", row, np.arange(8.0).reshape(2, 2, 2) * row)
        return Counter({("t", "clipped"): len(job), "read": 1})


def write(path, workers=1, plan="", **how):
    with Writer(path, four_samples(), plan) as writer:
        return write_rows(writer, JOBS, Fill(**how), workers)


def content(path):
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_many_processes_write_the_same_bytes_as_one(tmp_path):
    counted = [write(tmp_path / f"{workers}.zarr", workers) for workers in (1, 2, 3)]
    assert counted == [Counter({("t", "clipped"): 4, "read": 3})] * 3
    one, two, three = (content(tmp_path / f"{workers}.zarr") for workers in (1, 2, 3))
    assert one == two == three
    store = Store(tmp_path / "3.zarr")
    assert np.array_equal(store.high[:][:, 0, 0, 0], [0, 1, 2, 3]) and np.array_equal(store.low[2][1, 1], [12, 14])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.zarr", "2.zarr", "3.zarr"]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_exception_arrives_as_it_was_raised_and_leaves_nothing(tmp_path, workers):
    with pytest.raises(UserError, match=r"^job \[3\]: the file ends early$"):
        write(tmp_path / "a.zarr", workers, plan="p", fail=[3])
    assert list(tmp_path.iterdir()) == []


def test_a_row_that_nobody_wrote_is_an_error(tmp_path):
    with (
        pytest.raises(RuntimeError, match="row 1 of high/field was never written"),
        Writer(tmp_path / "a.zarr", four_samples()) as writer,
    ):
        write_rows(writer, JOBS[:2], Fill(), 1)
    assert list(tmp_path.iterdir()) == []


# ---- killed


def start(path, plan, halt, workers=2):
    """A preparation in a process of its own, which waits in its last job."""
    halt.touch()
    code = "from pathlib import Path; from tests.data.test_writer import write\nif __name__ == '__main__':\n"
    code += f"    write(Path({str(path)!r}), {workers}, {plan!r}, halt={str(halt)!r})"
    return subprocess.Popen([sys.executable, "-c", code], start_new_session=True)


def wait_for(what, process):
    while not what():
        assert process.poll() is None
        time.sleep(0.02)


def journal(path, lines):
    file = path.with_name(f".{path.name}.partial") / "journal"
    return lambda: file.exists() and file.read_text().count("\n") >= lines


@pytest.fixture
def halted(tmp_path):
    """A preparation with the plan "p" that has finished two jobs of three; its path."""
    path, halt = tmp_path / "a.zarr", tmp_path / "halt"
    process = start(path, "p", halt)
    wait_for(journal(path, 2), process)
    yield path, halt, process
    halt.unlink(missing_ok=True)
    process.kill()
    process.wait()


def test_a_living_writer_is_not_disturbed(halted):
    path, halt, process = halted
    with pytest.raises(UserError, match="another process is writing it"):
        write(path, plan="p")
    halt.unlink()
    assert process.wait() == 0
    write(path.with_name("b.zarr"))
    assert content(path) == content(path.with_name("b.zarr"))


def test_after_a_kill_the_same_plan_goes_on(halted):
    path, halt, process = halted
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 2
    process.kill()
    process.wait()
    psutil.wait_procs(children, timeout=600)
    assert not any(child.is_running() for child in children)  # no orphan
    halt.unlink()
    assert [left.name for left in path.parent.iterdir()] == [".a.zarr.partial"]
    kept = path.with_name(".a.zarr.partial") / "store/high/field/c/3/0/0/0"
    before = kept.stat().st_ino, kept.stat().st_mtime_ns
    assert write(path, plan="p") == Counter({("t", "clipped"): 4, "read": 3})
    after = (path / "high/field/c/3/0/0/0").stat()
    assert (after.st_ino, after.st_mtime_ns) == before
    write(path.with_name("b.zarr"))
    assert content(path) == content(path.with_name("b.zarr"))
    assert sorted(left.name for left in path.parent.iterdir()) == ["a.zarr", "b.zarr"]


@pytest.mark.parametrize("plan", ["q", ""])
def test_after_a_kill_another_plan_begins_anew(halted, plan):
    path, halt, process = halted
    process.kill()
    process.wait()
    halt.unlink()
    old = path.with_name(".a.zarr.partial") / "store/high/field/c/3/0/0/0"
    before = old.stat().st_mtime_ns
    write(path, plan=plan)
    assert (path / "high/field/c/3/0/0/0").stat().st_mtime_ns != before
    assert [left.name for left in path.parent.iterdir()] == ["a.zarr"]


def test_a_rotten_chunk_of_a_killed_writer_is_made_again(halted):
    path, halt, process = halted
    process.kill()
    process.wait()
    halt.unlink()
    (path.with_name(".a.zarr.partial") / "store/high/field/c/3/0/0/0").write_bytes(b"")
    write(path, plan="p")
    assert Store(path).high[3].shape == (1, 4, 4)


def test_an_interrupted_writer_goes_on_and_one_without_a_plan_leaves_nothing(tmp_path):
    for plan, left in (("p", [".a.zarr.partial"]), ("", [])):
        with pytest.raises(KeyboardInterrupt), Writer(tmp_path / "a.zarr", four_samples(), plan):
            raise KeyboardInterrupt
        assert [path.name for path in tmp_path.iterdir()] == left


def files(folder):
    return sum(len(names) for _, _, names in os.walk(folder))


def test_killed_again_and_again_it_ends_in_the_same_bytes(tmp_path):
    """Killed when it has written some more files, wherever that is."""
    path, whole = tmp_path / "a.zarr", tmp_path / "b.zarr"
    write(whole)
    random = np.random.default_rng(0)
    for _ in range(6):
        process = start(path, "p", tmp_path / "halt", workers=int(random.integers(1, 3)))
        (tmp_path / "halt").unlink()
        partial = path.with_name(".a.zarr.partial")
        aim = files(partial) + int(random.integers(1, 40))
        while process.poll() is None and files(partial) < aim and not path.exists():
            time.sleep(0.001)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if path.exists():
            break
        assert {left.name for left in tmp_path.iterdir()} <= {".a.zarr.partial", "b.zarr"}
    if not path.exists():
        write(path, plan="p")
    assert content(path) == content(whole)
