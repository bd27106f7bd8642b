"""A run's folder: the lock, the status, whole checkpoints, and what damage is found."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading

import pytest
import torch

from dsr.errors import UserError
from dsr.files import clean
from dsr.run import Run, checkpoints, launches, lock
from dsr.run.lock import claim, clear, hold
from dsr.run.provenance import environment

STATE = {"update": 7, "seed": 1}


def tensors(value=1.0):
    return {"network": {"b": torch.full((3,), value), "a": torch.arange(4, dtype=torch.bfloat16)}}


@pytest.fixture
def run(tmp_path):
    with hold(tmp_path / "run") as held:
        held.set_status("running")
        yield held


def test_an_existing_run_is_refused_and_replaced_only_by_force(tmp_path):
    folder = tmp_path / "run"
    with hold(folder) as run:
        run.set_status("running")
        run.set_status("finished")
        run.log(update=1)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="already holds a run"), hold(folder):
        pass
    with hold(folder, resume=True) as run:
        assert run.logged() == [{"update": 1}]
    with hold(folder, force=True) as run:
        assert run.logged() == [{"update": 1}]  # nothing is lost yet
        clear(run)
        assert run.logged() == []
    assert (folder / "notes.txt").read_text() == "mine"


def test_what_a_kill_at_the_very_first_write_leaves_is_no_hindrance(tmp_path):
    (tmp_path / ".status.json.17.partial").write_text("{")
    with hold(tmp_path) as run:
        run.set_status("running")
    assert not list(tmp_path.glob("*.partial"))


def test_a_folder_of_something_else_is_refused_even_by_force(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match="holds no run"), hold(tmp_path, force=True):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["thesis.tex"]
    with pytest.raises(UserError, match="holds no run"), hold(tmp_path / "new", resume=True):
        pass
    assert not (tmp_path / "new").exists()


def test_two_in_one_folder_are_refused(run):
    with pytest.raises(UserError, match="in use"), hold(run.folder, force=True):
        pass
    assert run.status()["state"] == "running"


def test_one_who_only_looks_at_the_status_keeps_nobody_out(run, tmp_path):
    (tmp_path / "other").mkdir()
    file = (tmp_path / "other" / ".lock").open("w")
    fcntl.flock(file, fcntl.LOCK_SH)  # as Run.status does for a moment
    threading.Timer(0.1, file.close).start()
    with hold(tmp_path / "other"):
        pass


def test_a_run_that_ends_while_its_status_is_read_has_not_failed(run, monkeypatch):
    def is_held(self):
        self.set_status("finished")
        return False

    monkeypatch.setattr(Run, "_is_held", is_held)
    assert run.status()["state"] == "finished"


def test_running_without_its_launcher_reads_as_failed(tmp_path):
    folder = tmp_path / "run"
    code = (
        "import sys, time, pathlib; from dsr.run.lock import hold\n"
        "with hold(pathlib.Path(sys.argv[1])) as held:\n"
        "    held.set_status('running'); print(flush=True); time.sleep(3600)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, folder], stdout=subprocess.PIPE)
    process.stdout.readline()
    assert Run(folder).status()["state"] == "running"
    process.kill()
    process.wait()
    process.stdout.close()
    status = Run(folder).status()
    assert status["state"] == "failed" and "killed" in status["reason"]
    with hold(folder, resume=True):
        pass


def test_what_is_left_of_a_dead_launch_is_ended_before_another_writes_and_nothing_else(tmp_path):
    """A rank may be frozen, and cannot notice that its launch is dead; a folder may be the copy of a live run's."""
    for dead in (True, False):
        launcher = subprocess.Popen(["sleep", "3600"])
        mark = launches.mark(launcher.pid)
        rank = subprocess.Popen(["sleep", "3600"], env={**os.environ, launches.MARK: mark})
        os.kill(rank.pid, signal.SIGSTOP)
        if dead:
            launcher.kill()
            launcher.wait()
        folder = tmp_path / f"run {dead}"
        folder.mkdir()
        (folder / ".lock").write_text(mark)
        with hold(folder):
            assert (rank.poll() is not None) == dead
        for process in (rank, launcher):
            process.kill()
            process.wait()


def test_another_rank_0_that_still_writes_is_waited_for(tmp_path, monkeypatch):
    run = Run(tmp_path)
    held = claim(run)
    monkeypatch.setattr(lock.claim, "__defaults__", (0.2,))
    with pytest.raises(UserError, match="still writes"), hold(tmp_path):
        pass
    os.close(held)
    with hold(tmp_path):
        pass


def test_status_keeps_what_was_known(run):
    run.set_status("stopped", "SIGTERM", updates=12, weights_sha256="ab")
    run.set_status("failed", "disk full")
    status = run.status()
    assert (status["state"], status["reason"], status["updates"], status["weights_sha256"]) == (
        "failed",
        "disk full",
        12,
        "ab",
    )
    assert status["started"] <= status["ended"]


def test_metrics_are_whole_lines(run):
    run.log(update=1, loss=0.5)
    run.log(update=2, loss=0.25)
    with run.metrics.open("a") as file:
        file.write('{"update": 3, "lo')
    assert [line["update"] for line in run.logged()] == [1, 2]
    with pytest.raises(ValueError):
        run.log(loss=float("nan"))


def test_a_broken_last_line_of_metrics_is_dropped_by_a_resume(run):
    run.log(update=1, loss=0.5)
    for broken in ('{"update": 2, "lo', '{"update": 2, "lo\n', '{"upd{"update": 3, "loss": 0.1}\n'):
        with run.metrics.open("a") as file:
            file.write(broken)
        assert [line["update"] for line in run.logged()] == [1]
        run.rewind(1)
        run.log(update=2, loss=0.25)
        assert [line["update"] for line in run.logged()] == [1, 2]
        run.rewind(1)


def test_a_write_that_a_full_disk_cuts_short_leaves_no_half_line(run):
    """The limit on a file's size stands for the disk's: the kernel writes what fits, and refuses the rest."""
    run.log(update=1)
    size = run.metrics.stat().st_size
    code = (
        "import resource, signal, sys; from pathlib import Path; from dsr.run import Run\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({size + 5}, {size + 5}))\n"
        "Run(Path(sys.argv[1])).log(update=2)"
    )
    done = subprocess.run([sys.executable, "-c", code, run.folder], capture_output=True, text=True)
    assert done.returncode == 1 and "OSError" in done.stderr
    assert run.metrics.read_text() == '{"update": 1}\n'
    run.log(update=3)
    assert [line["update"] for line in run.logged()] == [1, 3]


def test_a_checkpoint_comes_back_as_it_was(run):
    run.save_checkpoint(checkpoints.checkpoint_name(7), tensors(), STATE)
    loaded, state = run.load_checkpoint()
    assert state == STATE
    assert checkpoints.weights_sha256(loaded["network"]) == checkpoints.weights_sha256(tensors()["network"])
    assert loaded["network"]["a"].dtype is torch.bfloat16


def test_the_last_two_stay(run):
    for update in (5, 10, 15):
        run.save_checkpoint(checkpoints.checkpoint_name(update), tensors(update), {"update": update})
    names = sorted(path.name for path in run.checkpoints.iterdir())
    assert names == ["update-00000010", "update-00000015"]


@pytest.mark.parametrize("file", ["network.safetensors", "state.json", "SHA256SUMS"])
@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing"])
def test_damage_is_found_and_the_one_before_is_taken(run, capfd, file, damage):
    for update in (5, 10):
        run.save_checkpoint(checkpoints.checkpoint_name(update), tensors(update), {"update": update})
    path = run.checkpoints / checkpoints.checkpoint_name(10) / file
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    else:
        path.write_bytes(content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])
    _, state = run.load_checkpoint()
    assert state == {"update": 5}
    assert "update-00000010" in capfd.readouterr().err


@pytest.mark.parametrize("left", [[], ["network.safetensors"], ["network.safetensors", "state.json"]])
def test_a_checkpoint_whose_checksums_are_empty_is_passed_over(run, capfd, left):
    for update in (5, 10):
        run.save_checkpoint(checkpoints.checkpoint_name(update), tensors(update), {"update": update})
    path = run.checkpoints / checkpoints.checkpoint_name(10)
    (path / "SHA256SUMS").write_text("")
    for file in path.iterdir():
        if file.name not in ("SHA256SUMS", *left):
            file.unlink()
    assert run.load_checkpoint()[1] == {"update": 5}
    assert f"{path}" in capfd.readouterr().err


def test_no_whole_checkpoint_is_an_error_and_none_at_all_is_none(run):
    assert run.load_checkpoint() is None
    run.save_checkpoint(checkpoints.checkpoint_name(5), tensors(), STATE)
    (run.checkpoints / checkpoints.checkpoint_name(5) / "state.json").unlink()
    with pytest.raises(checkpoints.Damaged, match="no whole checkpoint"):
        run.load_checkpoint()


def die_at(call: int, folder, write) -> bool:
    """Write in a child that SIGKILLs itself before its call number `call` into the system; whether it came so far."""
    names = {"open", "mkdir", "write", "close", "fsync", "replace", "rename", "unlink", "rmdir", "serialize_file"}
    names |= {"scandir", "remove", "renameat2", "__exit__", "flush"}
    pid = os.fork()
    if not pid:
        count = 0

        def profile(frame, event, function):
            nonlocal count
            name = getattr(function, "__name__", "")
            if event == "c_call" and name in names:
                count += 1
                if count == call:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.setprofile(profile)
        write()
        sys.setprofile(None)
        os._exit(0)
    return os.waitpid(pid, 0)[1] != 0


@pytest.mark.slow
def test_a_kill_at_every_stage_of_writing_a_checkpoint_leaves_the_old_or_the_new(run):
    def save(update):
        run.save_checkpoint(checkpoints.checkpoint_name(update), tensors(update), {"update": update})

    found, call = set(), 0
    while True:
        shutil.rmtree(run.checkpoints, ignore_errors=True)
        for update in (1, 2):
            save(update)
        call += 1
        died = die_at(call, run.folder, lambda: save(3))
        loaded, state = run.load_checkpoint()
        assert torch.all(loaded["network"]["b"] == state["update"])
        found.add(state["update"])
        for path in run.list_checkpoints():
            checkpoints.read_checkpoint(path)
        save(4)
        assert not list(run.checkpoints.glob(".*"))
        assert len(run.list_checkpoints()) == 2
        if not died:
            break
    assert call > 30 and found == {2, 3} and state["update"] == 3


@pytest.mark.slow
def test_a_kill_at_every_stage_of_replacing_the_model_leaves_the_old_or_the_new(run):
    def save(value):
        run.save_model(tensors(value)["network"], tensors(value)["network"], {"value": value})

    found, call, died = set(), 0, True
    while died:
        save(1)
        call += 1
        died = die_at(call, run.folder, lambda: save(2))
        parameters, _, description = checkpoints.read_model(run.model)
        assert torch.all(parameters["b"] == description["value"])
        found.add(description["value"])
    assert call > 30 and found == {1, 2}
    assert list(run.folder.glob(".model.*"))  # of those that died, until the next launch
    clean(run.folder)
    assert not list(run.folder.glob(".model.*"))


def test_the_model_comes_back(run):
    run.save_model(tensors()["network"], tensors()["network"], {"name": "tiny"})
    parameters, _, description = checkpoints.read_model(run.model)
    assert description == {"name": "tiny"}
    assert torch.equal(parameters["b"], torch.ones(3))


@pytest.mark.parametrize(
    ("found", "told"), [(None, "format 1, and this dsr reads format 2: train it again"), (3, "format 3.*: update dsr")]
)
def test_a_checkpoint_or_model_of_another_format_is_refused(run, found, told):
    run.save_model(tensors()["network"], tensors()["network"], {"name": "tiny"})
    run.save_checkpoint(checkpoints.checkpoint_name(7), tensors(), STATE)
    for file in (run.model / "model.json", run.checkpoints / checkpoints.checkpoint_name(7) / "state.json"):
        values = json.loads(file.read_text())
        assert values.pop("format") == 2
        file.write_text(json.dumps(values if found is None else values | {"format": found}))
        sums = file.with_name("SHA256SUMS")
        others = [line for line in sums.read_text().splitlines(keepends=True) if file.name not in line]
        sums.write_text("".join(others) + f"{checkpoints.file_sha256(file)}  {file.name}\n")
    with pytest.raises(UserError, match=rf"model\.json: of {told}"):
        checkpoints.read_model(run.model)
    with pytest.raises(UserError, match=rf"state\.json: of {told}"):
        run.load_checkpoint()


def test_the_weights_hash_knows_names_order_and_every_bit():
    one = {"a": torch.ones(2), "b": torch.zeros(())}
    assert checkpoints.weights_sha256(one) == checkpoints.weights_sha256(dict(reversed(one.items())))
    assert checkpoints.weights_sha256(one) != checkpoints.weights_sha256(
        {"a": torch.tensor([1.0, 1.0 + 2**-23]), "b": one["b"]}
    )


def test_the_environment_is_json_and_says_what_ran():
    value = json.loads(json.dumps(environment("2 CPU cores", "a model", 1, "abc")))
    assert value["packages"]["torch"] in (torch.__version__, torch.__version__.partition("+")[0])  # as its wheel says
    assert value["threads"] == 1 and value["command"] == sys.argv
