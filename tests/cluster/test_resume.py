"""What may change when a run is resumed, and what is refused."""

import json

import pytest

from dsr.cluster import processes
from dsr.cluster.resume import TOLERANCE
from dsr.cluster.start import start
from dsr.errors import UserError
from dsr.run import Run


@pytest.fixture
def stopped(experiment, tiny_store, tmp_path):
    """A run as `dsr launch` leaves it, but for its training; and how it is started again: what `launch` gets."""

    def again(*overrides, **more):
        asked = {"mode": "strong", "gpus": 2, "run_dir": tmp_path / "run", "resume": (tmp_path / "run").exists()}
        return start(experiment, overrides=overrides, store=str(tiny_store), **asked | more)

    return again


@pytest.fixture
def untrained(monkeypatch):
    def play(run, *_):
        run.set_status("stopped", "here", updates=1)
        return 0

    monkeypatch.setattr(processes, "play", play)


def changed_environment(tmp_path, **values):
    path = Run(tmp_path / "run").environment
    environment = json.loads(path.read_text())
    environment["packages"] |= values.pop("packages", {})
    path.write_text(json.dumps(environment | values))


@pytest.mark.parametrize(
    ("then", "told"),
    [
        ({"sources": "0"}, "dsr's own code"),
        ({"packages": {"torch": "2.0.0"}}, r"torch \(2.0.0, now 2"),
        ({"packages": {"numpy": "1.0"}}, r"numpy \(1.0, now"),
        ({"packages": {"deepspeed": "0.1"}}, r"deepspeed \(0.1, now"),
        ({"packages": {"dsr": "0.0"}}, r"dsr \(0.0, now"),
        ({"device": "NVIDIA H100"}, r"the kind of device \(NVIDIA H100, now"),
        ({"threads": 4}, r"the number of threads \(4, now 1\)"),
        ({"fingerprint": "0"}, "the store's content"),
    ],
    ids=lambda value: "" if isinstance(value, str) else "-".join(value.get("packages", value)),
)
def test_resume_names_what_would_change_the_result(stopped, untrained, tmp_path, capfd, then, told):
    assert stopped() == 75
    changed_environment(tmp_path, **then)
    before = {path: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()}
    with pytest.raises(UserError, match=f"^--resume: {told}.* not as in .*; --force goes on all the same$"):
        stopped()
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()}
    assert stopped(force=True) == 75
    said = capfd.readouterr().err
    assert "--force: going on" in said and TOLERANCE in said
    assert stopped() == 75  # what it goes on with is recorded


def test_a_plan_of_another_format_is_refused(stopped, untrained, tmp_path):
    assert stopped() == 75
    path = Run(tmp_path / "run").plan
    plan = json.loads(path.read_text())
    assert plan.pop("format") == 2
    path.write_text(json.dumps(plan))
    with pytest.raises(UserError, match=r"plan\.json: of format 1, and this dsr reads format 2: start it anew"):
        stopped()


def test_resume_with_force_keeps_the_checkpoints(stopped, untrained, tmp_path):
    assert stopped() == 75
    (tmp_path / "run" / "checkpoints").mkdir()
    assert stopped("dsr.seed=7", force=True) == 75
    assert (tmp_path / "run" / "checkpoints").exists()
    assert stopped("dsr.seed=7", force=True, resume=False) == 75
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_what_changes_no_bit_may_change(stopped, untrained):
    assert stopped(gpus=4) == 75
    assert stopped("dsr.watchdog.minutes=1", "dsr.checkpoint.every=2", "dsr.log.every=3", gpus=2) == 75
    assert stopped(gpus=4, devices=1) == 75
    with pytest.raises(UserError, match=r"dsr.seed, optimizer.params.lr are not as in"):
        stopped("optimizer.params.lr=0.1", "dsr.seed=3")


def test_weak_scaling_keeps_its_gpus_and_may_change_its_devices(stopped, untrained):
    assert stopped(mode="weak", gpus=2, devices=2) == 75
    assert stopped(mode="weak", gpus=2, devices=1) == 75
    with pytest.raises(UserError, match="gpus are not as in"):
        stopped(mode="weak", gpus=4)


@pytest.mark.parametrize("change", ["dsr.scaling.exact=false", "zero_optimization.stage=3"])
def test_where_exactness_cannot_be_had_the_launch_says_so(stopped, untrained, capfd, change):
    assert stopped(change) == 75
    said = capfd.readouterr().err
    assert "not exact: " in said and TOLERANCE in said
