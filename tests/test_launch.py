"""`dsr launch`: the command it builds, the devices it finds, and how a run ends when something kills a part of it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from dsr import config, launch, watch
from dsr.errors import UserError
from dsr.run import Run
from dsr.task import Task

ROOT = Path(__file__).parents[1]
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


def test_the_hostfile_to_copy_is_right(experiment, tiny_store, tmp_path):
    line = [sys.executable, "-m", "dsr", "launch", experiment, "--data", tiny_store, "--run-dir", tmp_path / "run"]
    line += ["--gpus", "8", "--mode", "weak", "--hostfile", "launch/hostfile", "--launcher", "pdsh", "--dry-run"]
    said = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "--force_multi --launcher pdsh" in said and "worker-0 slots=4\nworker-1 slots=4" in said
    assert not (tmp_path / "run").exists()


def test_the_slurm_script_to_copy_is_right(experiment, tiny_store, tmp_path):
    write(tmp_path / "scontrol", "#!/bin/sh\nprintf 'n1\\nn2\\nn3\\nn4\\n'\n").chmod(0o755)
    write(tmp_path / "dsr", f'#!/bin/sh\nexec {sys.executable} -m dsr "$@"\n').chmod(0o755)
    variables = {"SLURM_JOB_NODELIST": "n[1-4]", "SLURM_TASKS_PER_NODE": "2(x4)", "SLURM_NTASKS": "8"}
    variables |= {"SLURM_JOB_ID": "77", "PYTHONPATH": str(ROOT), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    line = ["bash", ROOT / "launch/slurm.sh", experiment, "--mode", "weak", "--data", tiny_store, "--dry-run"]
    said = subprocess.run(line, cwd=tmp_path, env=variables, capture_output=True, text=True, check=True).stdout
    assert "--force_multi --launcher slurm" in said and "n4 slots=2" in said and "runs/slurm-77" in said


# how a run ends: with ranks that train


class Launched:
    """`dsr launch` with two training ranks, in a session of its own."""

    def __init__(self, experiment, store, folder):
        self.run = Run(folder)
        self.errors = (folder.parent / "stderr").open("w+")
        line = [sys.executable, "-m", "dsr", "launch", experiment, "--data", store, "--run-dir", folder]
        line += ["--gpus", "2", "--devices", "2"]
        self.process = subprocess.Popen(line, cwd=ROOT, stderr=self.errors, start_new_session=True)
        self.mark = watch.mark(self.process.pid)

    def members(self, what=""):
        """The pids of the processes of this launch, but for itself, whose command line holds `what`."""
        found = [process.info for process in psutil.process_iter(["pid", "cmdline", "environ"])]
        ours = [info for info in found if (info["environ"] or {}).get(watch.MARK) == self.mark]
        return [info["pid"] for info in ours if what in " ".join(info["cmdline"])]

    def wait_for_a_checkpoint(self):
        deadline = time.monotonic() + 120
        while len(self.run.logged()) < 6:
            assert self.process.poll() is None and time.monotonic() < deadline, self.said()
            time.sleep(0.05)

    def said(self):
        self.errors.seek(0)
        return self.errors.read()


@pytest.fixture
def launched(experiment, tiny_store, tmp_path):
    one = Launched(experiment, tiny_store, tmp_path / "run")
    one.wait_for_a_checkpoint()
    yield one
    for pid in one.members():
        os.kill(pid, signal.SIGKILL)
    one.process.kill()
    one.process.wait()
    one.errors.close()


@pytest.mark.parametrize(
    ("victim", "number", "code", "state", "reason"),
    [
        ("dsr launch", signal.SIGTERM, 75, "stopped", "stopped from outside"),
        ("deepspeed.launcher.launch ", signal.SIGKILL, 1, "failed", "not every rank said"),
    ],
)
def test_a_signal_to_one_part_ends_the_whole_and_says_so(launched, victim, number, code, state, reason):
    pid = launched.process.pid if victim == "dsr launch" else launched.members(victim)[-1]
    os.kill(pid, number)
    assert launched.process.wait(60) == code, launched.said()
    assert launched.members() == []
    status = launched.run.status()
    assert (status["state"], reason in status["reason"]) == (state, True), status
    assert launched.said().splitlines()[-1].startswith(f"{state}: ")
    _, saved = launched.run.load_checkpoint()
    if state == "stopped":
        assert saved["updates"] == status["updates"] >= 6
    environment = json.loads(launched.run.environment.read_text())
    assert environment["devices"] == "2 CPU cores" and environment["threads"] == 1


# how a run ends: with ranks that do what training never does

PROLOGUE = """
import os, signal, socket, sys, time
from pathlib import Path
import psutil
from dsr import watch
from dsr.run import Run
watch.rank_environment(os.environ)
run, rank = Run(Path(sys.argv[2])), int(os.environ["RANK"])
launcher = int(os.environ[watch.MARK].split(":")[2])

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
        assert launch._processes(watch.mark(os.getpid())) == []
        return code, Run(tmp_path / "run").status(), capfd.readouterr().err

    yield start
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("code", "ended", "state", "reason"),
    [
        ("sys.exit(3 if rank else time.sleep(600))", 1, "failed", "exit code 3"),
        ("pass", 1, "failed", "not every rank said"),
        (STUBBORN + "rank or os.kill(launcher, signal.SIGTERM); time.sleep(600)", 1, "failed", "no time to save"),
        ("obey(lambda: os.kill(launcher, signal.SIGINT))", 75, "stopped", "saved"),
        ("obey(psutil.Process().parent().parent().terminate)", 75, "stopped", "saved"),
        ("obey(psutil.Process().parent().parent().kill)", 75, "stopped", "saved"),
        (LOSER, 1, "failed", "a rank was ended by SIGKILL"),
        (STUBBORN + "run.set_status('finished') if rank == 0 else time.sleep(600)", 0, "finished", ""),
    ],
    ids=["exits", "no mark", "ignores SIGTERM", "SIGINT", "runner SIGTERM", "runner SIGKILL", "rank SIGKILL", "hangs"],
)
def test_every_other_end_is_told_truthfully(stand_in, code, ended, state, reason):
    code, status, said = stand_in(code, grace=2.0 if STUBBORN in code else 30.0)
    assert (code, status["state"]) == (ended, state), said
    assert reason in status["reason"]
    assert said.splitlines()[-1].startswith(f"{state}: ")


def test_a_port_that_is_taken_is_left_for_another(stand_in, monkeypatch):
    free_port = launch._free_port
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        ports = [other.getsockname()[1]]
        monkeypatch.setattr(launch, "_free_port", lambda: ports.pop() if ports else free_port())
        code = (
            "if rank == 0:\n"
            "    socket.socket().bind(('', int(os.environ['MASTER_PORT'])))\n"
            "    run.set_status('finished', updates=1)"
        )
        assert stand_in(code)[0] == 0


def test_ranks_notice_that_dsr_launch_was_killed(tmp_path):
    """The rank's own eye, without DeepSpeed: its `dsr launch` dies, its parent lives on."""
    with subprocess.Popen(["sleep", "60"]) as other:
        mark = watch.mark(other.pid)
        code = (
            "from dsr import watch; import time; watch.SECONDS = 0.05; watch.start(); print(flush=True); time.sleep(60)"
        )
        line, variables = [sys.executable, "-c", code], {**os.environ, watch.MARK: mark, "RANK": "3"}
        rank = subprocess.Popen(line, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT)
        rank.stdout.readline()
        assert rank.poll() is None
        other.kill()
    _, errors = rank.communicate(timeout=10)
    assert rank.returncode == 1 and b"rank 3: dsr launch is gone" in errors


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
