"""The command line of each launcher, its hosts, and how its ranks learn their numbers."""

import os
import subprocess
import sys

import pytest

from dsr import config
from dsr.cluster.devices import CPU, Devices, find_devices
from dsr.cluster.processes import command, variables
from dsr.run import Run
from dsr.train import watch
from tests.cluster.conftest import write
from tests.launched import ROOT


def test_the_command_names_a_hostfile_of_ours_and_this_host(experiment, tmp_path):
    devices = Devices({"localhost": [0, 1]}, CPU)
    line = command(devices, Run(tmp_path), 1234)
    assert line[:3] == [sys.executable, "-m", "deepspeed.launcher.runner"]
    assert line[line.index("--hostfile") + 1] == str(tmp_path / "hostfile")
    assert line[-5:] == ["--no_local_rank", "--module", "dsr.train", "--run-dir", str(tmp_path)]
    assert devices.first(2).hostfile() == "localhost slots=2\n"
    assert variables(devices, 1234, config.load(experiment))["OMP_NUM_THREADS"] == "1"


@pytest.mark.parametrize("launcher", ["pdsh", "openmpi", "slurm", "mpich", "mvapich"])
def test_deepspeed_understands_the_command(launcher, tmp_path):
    """Its own parser, and its own backend, make of our command a start of `python -u -m dsr.train --run-dir DIR`."""
    from deepspeed.launcher import multinode_runner, runner

    devices = find_devices(write(tmp_path / "hosts", "a slots=2\nb slots=2\n"), launcher)
    arguments = runner.parse_args(command(devices, Run(tmp_path), 1234)[3:])
    assert arguments.launcher == launcher and arguments.force_multi and arguments.no_local_rank
    pool = runner._parse_hostfile(devices.hostfile().splitlines())
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
    devices = find_devices(hosts, include="b:1,2@a:0,3")
    assert devices.launcher.name == "pdsh" and devices.count == 4
    line = command(devices.first(4), Run(tmp_path), 1)
    assert line[line.index("--include") + 1] == "a:0,3@b:1,2"
    assert find_devices(hosts, exclude="a@b:0").hosts == {"b": [1, 2, 3]}
    assert find_devices(hosts).first(6).hostfile() == "a slots=4\nb slots=2\n"


def test_a_slurm_allocation_gives_hosts_and_ranks(tmp_path, monkeypatch):
    write(tmp_path / "scontrol", "#!/bin/sh\nprintf 'n1\\nn2\\nn3\\n'\n").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "n[1-3]")
    monkeypatch.setenv("SLURM_TASKS_PER_NODE", "4(x2),1")
    devices = find_devices(launcher="slurm")
    assert {host: len(numbers) for host, numbers in devices.hosts.items()} == {"n1": 4, "n2": 4, "n3": 1}
    rank = {"SLURM_PROCID": "5", "SLURM_NTASKS": "8", "SLURM_LOCALID": "1", "SLURM_STEP_NODELIST": "n[02-03,7],x"}
    rank["DSR_LAUNCHER"] = "slurm"
    watch.rank_environment(rank)
    assert [rank[key] for key in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR")] == ["5", "8", "1", "n02"]
    rank = {"RANK": "0", "SLURM_PROCID": "3", "MASTER_ADDR": "here", "DSR_LAUNCHER": "slurm"}
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
    devices = find_devices(write(tmp_path / "hosts", "localhost slots=2\n"), "slurm")
    code, status, said = stand_in("obey(lambda: os.kill(launcher, signal.SIGTERM))", devices=devices)
    assert (code, status["state"]) == (75, "stopped"), said
    assert [(tmp_path / "run" / f"rank{rank}").read_text() for rank in (0, 1)] == ["localhost", "localhost"]
