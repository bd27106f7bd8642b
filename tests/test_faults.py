"""The fault matrix: what can hit a run, with the real launcher and real ranks; each test's name is the event.

One run is hit by one event after the other and resumed after each, on another number of GPUs and devices. Wherever it
was left, it must end with the weights of the run that nothing hit.
"""

import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import zarr

from dsr.cluster.processes import GRACE
from dsr.data.fields import Chunks
from dsr.data.store import Store
from dsr.run import Run, checkpoints, launches
from tests.launched import Launched, instead_of_training, unused_shared_memory, wait_until
from tests.stores import sign

pytestmark = pytest.mark.slow

UPDATES = 240
CONFIG = {
    "train_micro_batch_size_per_gpu": 1,
    "gradient_accumulation_steps": 12,
    "gradient_clipping": 0.05,
    "optimizer": {"type": "Adam", "params": {"lr": 0.002}},
    "dsr": {
        "budget": {"updates": UPDATES},
        "checkpoint": {"every": 1},
        "validation": {"every": UPDATES},
        "log": {"every": 1},
        "model": {"width": 24, "blocks": 1, "dropout": 0.2},
    },
}
SHAPES = [(2, 2), (4, 2), (3, 3), (1, 1), (6, 2), (12, 1)]  # GPUs, devices: strong scaling, so the bits are the same
SLURM = 30  # seconds that it gives

# What takes the place of dsr.train in a launch that a test has changed.
RECORDING = """
from dsr.train import loop as train
from dsr.run import Run
from dsr.run.checkpoints import weights_sha256
save = Run.save_checkpoint

def record(run, name, tensors, state, **more):
    everything = {f"{group}.{key}": tensor for group, those in tensors.items() for key, tensor in those.items()}
    with (run.folder / "hashes").open("a") as file:
        file.write(f"{name} {weights_sha256(everything)}\\n")
    return save(run, name, tensors, state, **more)

Run.save_checkpoint = record
train.main()
"""
HANGING = """
import ctypes
from dsr.train import loop as train
checked, calls = train.check_finite, []

def hang_here(totals, update, *rest):
    if train.dist.get_rank() == 1 and len(calls) == 3:
        ctypes.PyDLL(None).sleep(600)  # with the interpreter's lock in its hand
    calls.append(update)
    checked(totals, update, *rest)

train.check_finite = hang_here
train.main()
"""


class Home:
    """A module's folder, its store, what nothing hit, and the run that is hit, which has begun."""

    def __init__(self, folder, store):
        self.folder, self.store, self.chain = folder, folder / "store.zarr", folder / "run"
        shutil.copytree(store, self.store)
        self.config = folder / "config.json"
        self.config.write_text(json.dumps(CONFIG))
        self.events = 0
        reference = folder / "reference"
        with self.launched(folder=reference, shape=(2, 2), **self.instead_of_training("recording", RECORDING)) as one:
            assert one.end() == 0, one.said()
        self.reference, self.sha256 = self.lines(reference), Run(reference).status()["weights_sha256"]
        self.hashes = dict(line.split() for line in (reference / "hashes").read_text().splitlines())
        self.begin()

    def begin(self):
        """Start the chain's run, and stop it."""
        shutil.rmtree(self.chain, ignore_errors=True)
        with self.launched() as one:
            one.wait_for_updates(2)
            one.process.terminate()
            assert one.end() == 75, one.said()

    def launched(self, *more, folder=None, shape=None, **options):
        """Start the chain's run, or go on with it, on the next number of GPUs and devices."""
        folder = folder or self.chain
        gpus, devices = shape or SHAPES[self.events % len(SHAPES)]
        self.events += 1
        given = [self.config, "--data", self.store, "--gpus", gpus, "--devices", devices, *more]
        resume = ["--resume"] if (folder / "status.json").exists() else []
        return Launched(folder, *given, *resume, **options)

    def instead_of_training(self, name, code):
        """Options of a launch whose ranks run this code."""
        return instead_of_training(self.folder, name, code)

    @staticmethod
    def lines(folder):
        keys = ("update", "loss", "gradient_norm", "learning_rate")
        return [[line[key] for key in keys] for line in Run(folder).logged() if "loss" in line]

    def check(self, event):
        """Nothing is corrupt: each update so far, whoever played it, and each checkpoint, is the reference's."""
        lines = self.lines(self.chain)
        assert lines == self.reference[: len(lines)]
        assert len(lines) < UPDATES, "it ended before the event"
        for path in Run(self.chain).list_checkpoints():
            tensors, state = checkpoints.read_checkpoint(path)
            found = {f"{group}.{key}": tensor for group, those in tensors.items() for key, tensor in those.items()}
            assert checkpoints.weights_sha256(found) == self.hashes[path.name]
            assert checkpoints.checkpoint_name(state["updates"]) == path.name
        print(f"{event}: update {state['updates']} is saved and has the bits of the run that nothing hit")
        if len(lines) > UPDATES / 2:  # so that the next launch, too, is hit before it ends
            self.begin()


@pytest.fixture(scope="module")
def home(tiny_store, tmp_path_factory):
    before = set(Path("/dev/shm").iterdir())
    yield Home(tmp_path_factory.mktemp("faults"), tiny_store)
    new = set(Path("/dev/shm").iterdir()) - before
    wait_until(lambda: not unused_shared_memory(new))


@pytest.fixture
def event(request):
    return request.node.callspec.id if hasattr(request.node, "callspec") else request.node.name


PARTS = ["rank", "inner launcher", "runner", "dsr launch"]
SAVED = (75, "stopped", "stopped from outside")
DEAD = {
    "rank": (1, "failed", "a rank was ended by SIGKILL"),
    "inner launcher": (1, "failed", "not every rank said"),
    "runner": SAVED,  # the ranks live on, and are asked to stop
    "dsr launch": (-9, "failed", "dsr launch is gone without a word"),
}


@pytest.mark.parametrize("victim", PARTS)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_signal(home, event, number, victim):
    code, state, reason = DEAD[victim] if number == signal.SIGKILL else SAVED
    with home.launched() as one:
        one.wait_for_updates(2)
        os.kill(one.pid(victim), number)
        if victim == "dsr launch" and number == signal.SIGKILL:
            one.process.wait()
            wait_until(lambda: not launches.processes(one.mark))  # the ranks notice
        assert one.end() == code, one.said()
        status = one.run.status()
        assert (status["state"], reason in status["reason"]) == (state, True), status
        if victim != "dsr launch" or number != signal.SIGKILL:
            assert one.said().splitlines()[-1].startswith(f"{state}: ")
        if state == "stopped":
            assert one.run.load_checkpoint()[1]["updates"] == status["updates"]
    home.check(event)


def test_slurm_ends_the_job_with_SIGTERM_to_all_and_SIGKILL_after_30_s(home, event):
    assert GRACE < SLURM  # so that what takes longer to save is told as failed, by us
    with home.launched() as one:
        one.wait_for_updates(2)
        for process in [*launches.processes(one.mark), one.process]:
            process.send_signal(signal.SIGTERM)
        assert one.end() == 75, one.said()
    home.check(event)


def test_SIGKILL_to_dsr_launch_while_its_ranks_are_frozen_and_resumed_at_once(home, event):
    """Its ranks cannot notice; the new launch ends them before it starts its own, so that two never write."""
    with home.launched() as one:
        one.wait_for_updates(2)
        ranks = one.members()["ranks"]
        for pid in ranks:
            os.kill(pid, signal.SIGSTOP)
        one.process.kill()
        one.process.wait()
        with home.launched() as two:
            wait_until(lambda: two.members()["runner"])
            assert launches.processes(one.mark) == []
            two.wait_for_updates(2)
            two.process.terminate()
            assert two.end() == 75, two.said()
    home.check(event)


def test_two_runs_in_one_folder(home, event):
    with home.launched() as one:
        one.wait_for_updates(1)
        for how in ("--resume", "--force"):
            with Launched(home.chain, home.config, "--data", home.store, "--gpus", 2, how) as two:
                assert two.end() == 2 and "in use by another dsr launch" in two.said()
        one.wait_for_updates(3)
        one.process.terminate()
        assert one.end() == 75, one.said()
    home.check(event)


def damage(home, how):
    path = Run(home.chain).list_checkpoints()[-1] / "network.safetensors"
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content if how == "flipped" else content[: len(content) // 2])
    return path


@pytest.mark.parametrize("how", ["truncated", "flipped"])
def test_last_checkpoint(home, event, how):
    path = damage(home, how)
    with home.launched() as one:
        one.wait_for_updates(1)
        assert f"{path} is damaged" in one.said() and "taking the checkpoint before it" in one.said()
        one.process.terminate()
        assert one.end() == 75, one.said()
    home.check(event)


QUICK = ["--set", "dsr.watchdog.minutes=0.25"]


def test_a_rank_that_hangs_frozen(home, event):
    with home.launched(*QUICK, shape=(2, 2)) as one:
        one.wait_for_updates(2)
        os.kill(one.members()["ranks"][1], signal.SIGSTOP)
        assert one.end() == 1, one.said()
        status = one.run.status()
        assert status["state"] == "failed"
        assert status["reason"].startswith("no progress (dsr.watchdog.minutes): rank 1 left no stack")
        assert "reduce.py" in (one.run.last_words / "rank0.txt").read_text()  # it waits for rank 1
    home.check(event)


def test_a_rank_that_hangs_in_C_code(home, event):
    with home.launched(*QUICK, shape=(2, 2), **home.instead_of_training("hanging", HANGING)) as one:
        assert one.end() == 1, one.said()
        status = one.run.status()
        assert status["state"] == "failed"
        assert "rank 1 hangs in " in status["reason"] and "hanging.py:8 (hang_here)" in status["reason"], status
        assert "rank 0" not in status["reason"]
        assert "rank 1, all threads" in one.said()
    home.check(event)


def test_port_is_taken(home, event):
    code = (
        "import socket\n"
        "from dsr import cli\n"
        "from dsr.cluster import processes\n"
        "other = socket.socket()\n"
        "other.bind(('', 0))\n"
        "other.listen()\n"
        "ports, free_port = [other.getsockname()[1]], processes.free_port\n"
        "processes.free_port = lambda: ports.pop() if ports else free_port()\n"
        "cli.main()\n"
    )
    with home.launched(code=code) as one:
        one.wait_for_updates(1)
        assert "was taken by another program" in one.said()
        one.process.terminate()
        assert one.end() == 75, one.said()
    home.check(event)


def test_data_hold_NaN(home, event):
    """`--force`, since a store of other content is refused before anything starts."""
    whole = zarr.open_group(home.store, mode="r")["low/field"][:40]
    fields = Chunks(home.store, "low/field", Store(home.store).low.shape, {})
    for row in range(3, 40, 4):
        fields[row] = np.nan
    sign(home.store)
    try:
        with home.launched("--force") as one:
            assert one.end() == 1, one.said()
            reason = one.run.status()["reason"]
            assert "low-resolution values are missing" in reason, one.said()
    finally:
        for row in range(3, 40, 4):
            fields[row] = whole[row]
        sign(home.store)
    with home.launched("--force") as one:
        one.wait_for_updates(1)
        one.process.terminate()
        assert one.end() == 75, one.said()
    home.check(event)


def test_disk_is_full(home, event, tmp_path):
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", tmp_path]).returncode:
        pytest.skip("only root may mount a small disk")
    folder = tmp_path / "run"
    try:
        shutil.copytree(home.chain, folder)
        with home.launched(folder=folder) as one:
            one.wait_for_updates(2)
            while one.process.poll() is None:  # what it frees is taken too: not even status.json can be written
                fill(tmp_path / "full")
                time.sleep(0.01)
            assert one.end() == 1, one.said()
            assert "No space left on device" in one.said()
            assert one.run.status()["state"] == "failed"
        (tmp_path / "full").unlink()
        shutil.rmtree(home.chain)
        shutil.copytree(folder, home.chain)
    finally:
        subprocess.run(["umount", tmp_path], check=True)
    home.check(event)


def fill(path):
    with path.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        for size in (1 << 16, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))


def test_no_permission_to_write_a_checkpoint(home, event):
    def be_anybody():  # root may write everywhere, unless it gives up CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
        if not os.geteuid():
            for capability in (1, 2):
                ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)

    place = home.chain / "checkpoints"
    with home.launched(before=be_anybody) as one:
        one.wait_for_updates(2)
        place.chmod(0o500)
        try:
            assert one.end() == 1, one.said()
        finally:
            place.chmod(0o755)
        status = one.run.status()
        assert status["state"] == "failed" and "Permission denied" in status["reason"], status
    home.check(event)


# after all of them; in another order, after those that were before


def test_the_run_that_all_of_them_hit_ends_with_the_weights_of_the_one_that_none_hit(home, tmp_path):
    folder = shutil.copytree(home.chain, tmp_path / "run")  # so that others can hit the chain again
    with home.launched(folder=folder, shape=(2, 2)) as one:
        assert one.end() == 0, one.said()
    status = Run(folder).status()
    assert (status["updates"], status["weights_sha256"]) == (UPDATES, home.sha256)
    assert home.lines(folder) == home.reference
    print(f"after {home.events} launches {status['weights_sha256']}, as the reference's {home.sha256}")
