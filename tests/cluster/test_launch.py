"""`dsr launch`: the command it builds, the devices it finds, and how a run ends when something kills a part of it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dsr import config
from dsr.cluster import launch
from dsr.errors import UserError
from dsr.run import Run, last_words, launches
from dsr.task import Task
from dsr.train import watch

ROOT = Path(__file__).parents[2]
LONG = 100_000  # updates: nobody waits for the end


@pytest.fixture
def experiment(tmp_path):
    """A config of 4 slots whose network takes no time, which saves a checkpoint every 5 updates."""
    path = tmp_path / "tiny.json"
    dsr = {
        "budget": {"updates": LONG},
        "checkpoint": {"every": 5},
        "validation": {"every": LONG},
        "log": {"every": 1},
        "model": {"name": "deepdownscale", "width": 4, "blocks": 1},
    }
    optimizer = {"type": "Adam", "params": {"lr": 0.002}}
    sizes = {"train_micro_batch_size_per_gpu": 1, "gradient_accumulation_steps": 4}
    path.write_text(json.dumps({**sizes, "optimizer": optimizer, "dsr": dsr}))
    return path


# the command


def plan_of(experiment, devices, gpus=4, **more):
    return launch.plan_run(config.load(experiment), devices, mode="strong", gpus=gpus, samples=40, **more)


def write(path, text):
    path.write_text(text)
    return path


def test_the_command_names_a_hostfile_of_ours_and_this_host(experiment, tmp_path):
    devices = launch.Devices({"localhost": [0, 1]}, launch.CPU)
    line = launch.command(devices, Run(tmp_path), 1234)
    assert line[:3] == [sys.executable, "-m", "deepspeed.launcher.runner"]
    assert line[line.index("--hostfile") + 1] == str(tmp_path / "hostfile")
    assert line[-5:] == ["--no_local_rank", "--module", "dsr.train", "--run-dir", str(tmp_path)]
    assert launch.hostfile(devices.first(2)) == "localhost slots=2\n"
    assert launch.variables(devices, 1234, config.load(experiment))["OMP_NUM_THREADS"] == "1"


@pytest.mark.parametrize("launcher", ["pdsh", "openmpi", "slurm", "mpich", "mvapich"])
def test_deepspeed_understands_the_command(launcher, tmp_path):
    """Its own parser, and its own backend, make of our command a start of `python -u -m dsr.train --run-dir DIR`."""
    from deepspeed.launcher import multinode_runner, runner

    devices = launch.find_devices(write(tmp_path / "hosts", "a slots=2\nb slots=2\n"), launcher)
    arguments = runner.parse_args(launch.command(devices, Run(tmp_path), 1234)[3:])
    assert arguments.launcher == launcher and arguments.force_multi and arguments.no_local_rank
    pool = runner._parse_hostfile(launch.hostfile(devices).splitlines())
    if launcher == "pdsh":
        backend = multinode_runner.PDSHRunner(arguments, "WORLD")
        line, _, _ = backend.get_cmd({}, pool)
        assert line[-5:] == ["--no_local_rank", "--enable_each_rank_log=None", "dsr.train", "--run-dir", str(tmp_path)]
        return
    backend = runner.LAUNCHER_CLASSES[launcher] if launcher != "mvapich" else multinode_runner.MVAPICHRunner
    line = backend(arguments, "WORLD", pool).get_cmd({}, {host: range(count) for host, count in pool.items()})
    if launcher != "mpich":  # which goes through a helper of its own
        assert line[-6:] == [sys.executable, "-u", "-m", "dsr.train", "--run-dir", str(tmp_path)]


def test_filters_and_fewer_devices_reach_the_command(experiment, tmp_path):
    hosts = write(tmp_path / "hosts", "# two hosts\na slots=4\n\nb slots=4\n")
    devices = launch.find_devices(hosts, include="b:1,2@a:0,3")
    assert devices.launcher == "pdsh" and devices.count == 4
    line = launch.command(devices.first(4), Run(tmp_path), 1)
    assert line[line.index("--include") + 1] == "a:0,3@b:1,2"
    assert launch.find_devices(hosts, exclude="a@b:0").hosts == {"b": [1, 2, 3]}
    assert launch.hostfile(launch.find_devices(hosts).first(6)) == "a slots=4\nb slots=2\n"


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("a slots=x\n", {}, "line 1"),
        ("a slots=1\na slots=2\n", {}, "twice"),
        ("# none\n", {}, "names no host"),
        ("a slots=2\n", {"include": "c"}, "no host c"),
        ("a slots=2\n", {"include": "a:5"}, "no device 5"),
        ("a slots=2\n", {"exclude": "a"}, "leaves no device"),
        ("a slots=2\n", {"launcher": "rsh"}, "must be one of"),
        ("a slots=2\n", {"launcher": "openmpi", "include": "a"}, "takes no --include"),
    ],
)
def test_a_wrong_hostfile_or_filter_is_refused(tmp_path, text, options, message):
    with pytest.raises(UserError, match=message):
        launch.find_devices(write(tmp_path / "hosts", text), **options)


def test_fewer_devices_rehearse_and_say_so(experiment):
    devices = launch.Devices({"localhost": [0, 1, 2]}, launch.CPU)
    plan = plan_of(experiment, devices)
    assert (plan.devices, plan.rehearsal) == (2, True)
    line = launch.rehearsal(plan, devices)
    assert "\n" not in line and "4 GPUs asked, 3 CPU cores here: rehearsing on 2" in line and "2 times the time" in line
    assert plan_of(experiment, devices, use=4).devices == 4  # more ranks than cores, if asked
    with pytest.raises(UserError, match="4 GPUs asked, but here are 3 CPU cores"):
        plan_of(experiment, devices, strict=True)


def test_a_hostfile_that_is_too_small_is_an_error_unless_devices_are_named(experiment, tmp_path):
    devices = launch.find_devices(write(tmp_path / "hosts", "a slots=2\n"))
    with pytest.raises(UserError, match="--devices 2 rehearses"):
        plan_of(experiment, devices)
    assert plan_of(experiment, devices, use=2).rehearsal
    with pytest.raises(UserError, match="there are only 2"):
        plan_of(experiment, devices, use=4)


def test_a_slurm_allocation_gives_hosts_and_ranks(tmp_path, monkeypatch):
    write(tmp_path / "scontrol", "#!/bin/sh\nprintf 'n1\\nn2\\nn3\\n'\n").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "n[1-3]")
    monkeypatch.setenv("SLURM_TASKS_PER_NODE", "4(x2),1")
    devices = launch.find_devices(launcher="slurm")
    assert {host: len(numbers) for host, numbers in devices.hosts.items()} == {"n1": 4, "n2": 4, "n3": 1}
    rank = {"SLURM_PROCID": "5", "SLURM_NTASKS": "8", "SLURM_LOCALID": "1", "SLURM_STEP_NODELIST": "n[02-03,7],x"}
    watch.rank_environment(rank)
    assert [rank[key] for key in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR")] == ["5", "8", "1", "n02"]
    rank = {"RANK": "0", "SLURM_PROCID": "3", "MASTER_ADDR": "here"}
    watch.rank_environment(rank)
    assert rank["RANK"] == "0" and rank["MASTER_ADDR"] == "here"


@pytest.mark.slow
def test_the_hostfile_to_copy_is_right(experiment, tiny_store, tmp_path):
    line = [sys.executable, "-m", "dsr", "launch", experiment, "--data", tiny_store, "--run-dir", tmp_path / "run"]
    line += ["--gpus", "8", "--mode", "weak", "--hostfile", "launch/hostfile", "--launcher", "pdsh", "--dry-run"]
    said = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "--force_multi --launcher pdsh" in said and "worker-0 slots=4\nworker-1 slots=4" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_slurm_script_to_copy_is_right(experiment, tiny_store, tmp_path):
    write(tmp_path / "scontrol", "#!/bin/sh\nprintf 'n1\\nn2\\nn3\\nn4\\n'\n").chmod(0o755)
    write(tmp_path / "dsr", f'#!/bin/sh\nexec {sys.executable} -m dsr "$@"\n').chmod(0o755)
    variables = {"SLURM_JOB_NODELIST": "n[1-4]", "SLURM_TASKS_PER_NODE": "2(x4)", "SLURM_NTASKS": "8"}
    variables |= {"SLURM_JOB_ID": "77", "PYTHONPATH": str(ROOT), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    line = ["bash", ROOT / "launch/slurm.sh", experiment, "--mode", "weak", "--data", tiny_store, "--dry-run"]
    said = subprocess.run(line, cwd=tmp_path, env=variables, capture_output=True, text=True, check=True).stdout
    assert "--force_multi --launcher slurm" in said and "n4 slots=2" in said and "runs/slurm-77" in said


# how a run ends: with ranks that do what training never does

PROLOGUE = """
import os, signal, socket, sys, time
from pathlib import Path
import psutil
from dsr.train import watch
from dsr.run import Run
watch.rank_environment(os.environ)
run, rank = Run(Path(sys.argv[2])), int(os.environ["RANK"])
launcher = int(os.environ[launches.MARK].split(":")[2])

def obey(act):
    # Once both ranks listen, rank 0 does something; then both stop when they are asked to.
    watch.listen()
    (run.folder / f"rank{rank}").write_text(os.environ["MASTER_ADDR"])
    while len(list(run.folder.glob("rank?"))) < 2:
        time.sleep(0.05)
    rank or act()
    while not watch.stop_requested():
        time.sleep(0.05)
    rank or run.set_status("stopped", "saved", updates=9)

"""
STUBBORN = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
LOSER = "os.kill(os.getpid(), signal.SIGKILL) if rank else run.set_status('failed', 'connection closed by peer')"


@pytest.fixture
def stand_in(experiment, tmp_path, monkeypatch, capfd):
    """Launch two ranks that run the given code: (exit code, status, stderr). Nothing of them may be left."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell has it ignored

    def start(code, **options):
        (tmp_path / "stand_in.py").write_text(PROLOGUE + code)
        monkeypatch.setattr(launch, "TRAIN", "stand_in")
        monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
        devices = options.pop("devices", launch.find_devices())
        plan = plan_of(experiment, devices, gpus=2, use=2)
        task = Task(config.load(experiment), "none", 40, "fingerprint")
        code = launch.launch(task, plan, devices, tmp_path / "run", **options)
        assert launch._processes(launches.mark(os.getpid())) == []
        return code, Run(tmp_path / "run").status(), capfd.readouterr().err

    yield start
    signal.signal(signal.SIGINT, before)


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
    assert (code, status["reason"]) == (1, "no rank has come up in 2 s")


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


@pytest.mark.slow
def test_slurm_starts_the_ranks_without_deepspeeds_launcher(stand_in, tmp_path, monkeypatch):
    """With an srun of ours, since DeepSpeed's own way to it needs nothing else."""
    srun = (
        "#!/bin/bash\n"
        "count=$2; shift 3\n"  # -n COUNT --export=...
        "for i in $(seq 0 $((count - 1))); do\n"
        '  SLURM_PROCID=$i SLURM_NTASKS=$count SLURM_LOCALID=$i SLURM_STEP_NODELIST=localhost "$@" &\n'
        "done\n"
        "wait\n"
    )
    write(tmp_path / "srun", srun).chmod(0o755)
    write(tmp_path / "sinfo", "#!/bin/sh\n").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    devices = launch.find_devices(write(tmp_path / "hosts", "localhost slots=2\n"), "slurm")
    code, status, said = stand_in("obey(lambda: os.kill(launcher, signal.SIGTERM))", devices=devices)
    assert (code, status["state"]) == (75, "stopped"), said
    assert [(tmp_path / "run" / f"rank{rank}").read_text() for rank in (0, 1)] == ["localhost", "localhost"]


# resume


@pytest.fixture
def stopped(experiment, tiny_store, tmp_path):
    """A run as `dsr launch` leaves it, but for its training; and how it is started again: what `launch` gets."""

    def start(*overrides, mode="strong", gpus=2, **more):
        asked = {"mode": mode, "gpus": gpus, "devices": 0, "strict": False, "hostfile": None, "launcher": ""}
        asked |= {"launcher_args": "", "include": "", "exclude": "", "force": False, "dry_run": False}
        asked |= {"run_dir": tmp_path / "run", "resume": (tmp_path / "run").exists()}
        return launch.start(experiment, overrides, str(tiny_store), **asked | more)

    return start


@pytest.fixture
def untrained(monkeypatch):
    def attempt(run, *_):
        run.set_status("stopped", "here", updates=1)
        return 0

    monkeypatch.setattr(launch, "_attempt", attempt)


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
    assert "--force: going on" in said and launch.TOLERANCE in said
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


@pytest.mark.parametrize("change", ["dsr.scaling.exact=false", *(f"zero_optimization.stage={n}" for n in (1, 2, 3))])
def test_where_exactness_cannot_be_had_the_launch_says_so(stopped, untrained, capfd, change):
    assert stopped(change) == 75
    said = capfd.readouterr().err
    assert "not exact: " in said and launch.TOLERANCE in said
