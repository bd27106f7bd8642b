"""How a run ends when something kills a part of it, or a part hangs."""

import os
import signal
import subprocess
import sys

import pytest

from dsr.cluster.ended import reason, signal_of
from dsr.cluster.launchers import LAUNCHERS
from dsr.run import last_words, launches
from tests.launched import ROOT

STUBBORN = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
LOSER = "os.kill(os.getpid(), signal.SIGKILL) if rank else run.set_status('failed', 'connection closed by peer')"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "ended", "state", "reason"),
    [
        ("sys.exit(3 if rank else time.sleep(600))", 1, "failed", "exit code 3"),
        ("pass", 1, "failed", "not every rank said"),
        (STUBBORN + "rank or os.kill(launcher, signal.SIGTERM); time.sleep(600)", 1, "failed", "no time to save"),
        (LOSER, 1, "failed", "a rank was ended by SIGKILL"),
        (STUBBORN + "run.set_status('finished') if rank == 0 else time.sleep(600)", 0, "finished", ""),
    ],
    ids=["exits", "no mark", "ignores SIGTERM", "rank SIGKILL", "hangs"],
)
def test_every_other_end_is_told_truthfully(stand_in, code, ended, state, reason):
    code, status, said = stand_in(code, grace=2.0 if STUBBORN in code else 30.0)
    assert (code, status["state"]) == (ended, state), said
    assert reason in status["reason"]
    assert said.splitlines()[-1].startswith(f"{state}: ")


def test_ranks_notice_that_dsr_launch_was_killed(tmp_path):
    """The rank's own eye, without DeepSpeed: its `dsr launch` dies, its parent lives on."""
    with subprocess.Popen(["sleep", "3600"]) as other:
        mark = launches.mark(other.pid)
        code = (
            "from dsr.train import watch; import pathlib, time; watch.SECONDS = 0.05\n"
            "watch.start(pathlib.Path('no/where')); print(flush=True); time.sleep(3600)"
        )
        line, variables = [sys.executable, "-c", code], {**os.environ, launches.MARK: mark, "RANK": "3"}
        rank = subprocess.Popen(line, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT)
        rank.stdout.readline()
        assert rank.poll() is None
        other.kill()
    _, errors = rank.communicate()
    assert rank.returncode == 1 and b"rank 3: dsr launch is gone" in errors


def test_ranks_that_never_come_up_are_ended(stand_in, monkeypatch):
    monkeypatch.setattr(last_words, "STARTUP", 2.0)
    code, status, _ = stand_in("time.sleep(600)")
    assert (code, status["reason"]) == (1, "no rank has started in 2 s")


@pytest.mark.parametrize(
    ("code", "limit", "place"),
    [
        ("time.sleep(3600)", 1, "(<module>)"),  # before the first update, which has more time
        ("watch.beat(); ctypes.PyDLL(None).sleep(3600)", 1, "(<module>)"),
        ("[(watch.beat(), time.sleep(0.02)) for _ in range(250)]", 4, ""),
    ],
    ids=["starts", "hangs with the interpreter's lock", "gets on"],
)
def test_a_watchdog(tmp_path, code, limit, place):
    begin = "from dsr.train import watch; import ctypes, pathlib, time; watch.STARTUP = 3.0\n"
    begin += "watch.start(pathlib.Path('run/last_words')); watch._set -= 9\n"
    (tmp_path / "run").mkdir()
    variables = {**os.environ, last_words.LIMIT: str(limit), "RANK": "1", "PYTHONPATH": str(ROOT)}
    ended = subprocess.run([sys.executable, "-c", begin + code], env=variables, cwd=tmp_path)
    assert ended.returncode == (-signal.SIGALRM if place else 0)
    reason, stacks = last_words.read(tmp_path / "run" / "last_words", 2)
    assert place in reason and ("rank 1, all threads" in stacks) == bool(place)
    if place:
        assert "rank 0 left no stack" in reason and "rank 1 hangs in <string>:" in reason


def test_the_rank_that_hangs_is_told_from_those_that_wait(tmp_path):
    dump = 'Timeout (0:10:00)!\nThread 0x1 (most recent call first):\n  File "/a/stream.py", line 1 in read\n\n'
    dump += 'Thread 0x2 (most recent call first):\n  File "{}", line 7 in {}\n  File "/a/train.py", line 9 in main\n'
    for rank, where in enumerate([("/x/torch/distributed/c.py", "wait"), ("/a/dsr/engine.py", "step")]):
        (tmp_path / f"rank{rank}.txt").write_text(dump.format(*where))
    reason, stacks = last_words.read(tmp_path, 2)
    assert "rank 1 hangs in /a/dsr/engine.py:7 (step);" in reason and "rank 0" not in reason
    assert stacks.startswith("rank 1, all threads") and "stream.py" in stacks
    (tmp_path / "rank1.txt").write_text("UserError: the store is gone")
    assert last_words.read(tmp_path, 2) == ("rank 1: UserError: the store is gone", "")


def test_every_exit_code_has_a_reason():
    local, pdsh = LAUNCHERS.make("local"), LAUNCHERS.make("pdsh")
    texts = {code: reason(code, [], local) for code in range(-64, 256)}
    assert all(texts.values())
    assert {signal_of(code) for code in (137, 247)} == {signal.SIGKILL}
    assert texts[128 + 15] == texts[256 - 15] == "a rank was ended by SIGTERM"
    assert texts[128 + 40] == texts[256 - 40] == "a rank was ended by signal 40"
    assert texts[255] == "a rank ended with exit code 255"
    assert reason(255, [], pdsh) == "ssh could not reach a host, or lost it (exit code 255)"


@pytest.mark.slow
def test_a_users_tokens_are_carried_in_private_and_not_left(stand_in, tmp_path, monkeypatch):
    (tmp_path / "own_env").write_text("TOKEN=secret\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DS_ENV_FILE", "own_env")
    look = "carried = run.variables\n"
    look += "rank or run.set_status('stopped', f'{carried.stat().st_mode:o} {carried.read_text()}')"
    _, status, said = stand_in(look)
    assert status["reason"].startswith("100600 TOKEN=secret"), said
    assert not (tmp_path / "run" / "deepspeed_env").exists()
