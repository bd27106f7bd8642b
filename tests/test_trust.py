"""Nothing that a config, a store, an archive, a checkpoint or a run's folder holds is executed, or writes elsewhere."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from dsr import cli, config
from dsr.cluster import processes
from dsr.cluster.devices import find_devices
from dsr.data.codecs import refuse_pickle
from dsr.data.store import Store, Variable
from dsr.errors import UserError
from dsr.models.networks import NETWORKS
from dsr.run import Run, checkpoints
from tests.data.archives import write_grib
from tests.stores import sign, write_tiny_store

pytestmark = pytest.mark.slow

SMALL = Path(__file__).parent / "small.json"


class Payload:
    """Unpickled, it makes the file `marker`."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


@pytest.fixture
def marker(tmp_path):
    """A file that must never appear; the payload that makes it does so when it is loaded carelessly."""
    path = tmp_path / "executed"
    pickle.loads(payload(path))
    assert path.exists()
    path.unlink()
    yield path
    assert not path.exists()


def payload(marker: Path) -> bytes:
    return pickle.dumps(Payload(marker))


def dsr(*arguments):
    """The command, in this process: what a payload would do is done here."""
    return CliRunner().invoke(cli.main, [str(argument) for argument in arguments])


def refuse(file, *arguments):
    """The command fails with a clear error that names the file."""
    answer = dsr(*arguments)
    assert answer.exit_code in (1, 2), answer.output
    assert str(file) in answer.output.replace("\n", ""), answer.output
    assert answer.output.startswith("error: ") and len(answer.output.splitlines()) <= 2, answer.output


# a checkpoint and a model


def seal(folder):
    """Write the checksums anew: they protect from damage, not from people."""
    files = sorted(path for path in folder.iterdir() if path.name != "SHA256SUMS" and path.is_file())
    (folder / "SHA256SUMS").write_text("".join(f"{checkpoints.file_sha256(file)}  {file.name}\n" for file in files))


@pytest.mark.parametrize(
    "file", ["x.pt", "x.bin", "x", "network.safetensors", "state.json", "SHA256SUMS", "t.safetensors"]
)
def test_a_pickle_in_a_checkpoint_is_refused(tmp_path, marker, capfd, file):
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    for update in (1, 2):
        folder = run.save_checkpoint(
            checkpoints.checkpoint_name(update), {"network": {"w": torch.ones(2)}}, {"updates": update}
        )
    if file == "t.safetensors":
        torch.save(Payload(marker), folder / file)
    else:
        (folder / file).write_bytes(payload(marker))
    if file != "SHA256SUMS":
        seal(folder)
    with pytest.raises(checkpoints.Damaged, match=str(folder / file)):
        checkpoints.read_checkpoint(folder)
    assert run.load_checkpoint()[1] == {"updates": 1}
    assert file in capfd.readouterr().err


@pytest.mark.parametrize("file", ["model.safetensors", "features.safetensors", "model.json", "x.pkl"])
def test_a_pickle_in_a_model_is_refused(tmp_path, marker, tiny_store, file):
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    run.save_model({"w": torch.ones(2)}, {"a": torch.ones(2)}, {"network": {"name": "deepdownscale"}})
    (run.model / file).write_bytes(payload(marker))
    seal(run.model)
    refuse(run.model / file, "predict", run.folder, tiny_store, "-o", tmp_path / "out.nc")
    refuse(run.model / file, "evaluate", run.folder)


def test_no_rank_can_unpickle(tmp_path, marker, tiny_store):
    """Whatever calls torch.load in a rank, DeepSpeed with weights_only=False included."""
    torch.save(Payload(marker), tmp_path / "x.pt")
    variables = processes.variables(find_devices(), 1, config.load(SMALL))
    code = f"import torch; torch.load({str(tmp_path / 'x.pt')!r}, weights_only=False)"
    answer = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **variables}, capture_output=True, text=True
    )
    assert answer.returncode == 1 and "Weights only load failed" in answer.stderr


def test_links_in_a_checkpoint_are_not_followed(tmp_path):
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    folder = run.save_checkpoint(checkpoints.checkpoint_name(1), {"network": {"w": torch.ones(2)}}, {"updates": 1})
    (tmp_path / "secret.json").write_text("{}")
    (folder / "more.json").symlink_to(tmp_path / "secret.json")
    seal(folder)
    with pytest.raises(checkpoints.Damaged, match=r"more.json is not a plain file"):
        checkpoints.read_checkpoint(folder)
    (folder / "more.json").unlink()
    os.mkfifo(folder / "more.json")  # reading it would never end
    with pytest.raises(checkpoints.Damaged, match=r"more.json is not a plain file"):
        checkpoints.read_checkpoint(folder)
    (folder / "more.json").unlink()
    (folder / "SHA256SUMS").write_text(f"{'0' * 64}  ../../../secret.json\n")
    with pytest.raises(checkpoints.Damaged, match="damaged"):
        checkpoints.read_checkpoint(folder)
    (run.checkpoints / checkpoints.checkpoint_name(2)).symlink_to(tmp_path)
    with pytest.raises(checkpoints.Damaged, match="not a plain file"):
        checkpoints.read_checkpoint(run.checkpoints / checkpoints.checkpoint_name(2))
    for update in (3, 4):  # and what drops out of the last two is removed, not what it points to
        run.save_checkpoint(checkpoints.checkpoint_name(update), {"network": {"w": torch.ones(2)}}, {"updates": update})
    assert (tmp_path / "secret.json").exists()


# a run's folder


@pytest.mark.parametrize("name", ["experiment.json", "plan.json", "status.json", "environment.json", "metrics.jsonl"])
def test_a_pickle_in_a_runs_folder_is_refused(tmp_path, marker, tiny_store, monkeypatch, name):
    given = [SMALL, "--data", tiny_store, "--run-dir", tmp_path / "run"]
    monkeypatch.setattr(processes, "play", lambda run, *_: run.set_status("stopped", updates=1))
    assert dsr("launch", *given).exit_code == 75
    (tmp_path / "run" / name).write_bytes(payload(marker) + b"\n")
    if name == "metrics.jsonl":
        with pytest.raises(UserError, match=name):
            Run(tmp_path / "run").logged()
    elif name == "status.json":
        with pytest.raises(UserError, match=name):
            Run(tmp_path / "run").status()
    else:
        refuse(tmp_path / "run" / name, "launch", *given, "--resume")


@pytest.mark.parametrize(
    "name", ["checkpoints", "model", "hostfile", "deepspeed_env", "metrics.jsonl", "last_words", ".lock", ".writer"]
)
def test_a_link_in_a_runs_folder_is_not_written_through(tmp_path, tiny_store, monkeypatch, name):
    given = [SMALL, "--data", tiny_store, "--run-dir", tmp_path / "run"]
    monkeypatch.setattr(processes, "play", lambda run, *_: run.set_status("stopped", updates=1))
    assert dsr("launch", *given).exit_code == 75
    (tmp_path / "outside").mkdir()
    (tmp_path / "run" / name).unlink(missing_ok=True)
    (tmp_path / "run" / name).symlink_to(tmp_path / "outside" / "new" if "." in name else tmp_path / "outside")
    for how in ("--resume", "--force"):
        refuse(tmp_path / "run" / name, "launch", *given, how)
    assert list((tmp_path / "outside").iterdir()) == []


# an experiment


def test_an_experiment_that_is_a_pickle_is_refused(tmp_path, marker, tiny_store):
    given = ["--data", tiny_store, "--run-dir", tmp_path / "run"]
    (tmp_path / "x.json").write_bytes(payload(marker))
    (tmp_path / "y.json").write_text(json.dumps({"extends": "x.json"}))
    refuse(tmp_path / "x.json", "launch", tmp_path / "x.json", *given)
    refuse(tmp_path / "x.json", "launch", tmp_path / "y.json", *given)
    assert not (tmp_path / "run").exists()


PLACES = [
    'tensorboard={"enabled": true, "output_path": "/tmp/x"}',
    'tensorboard={"enabled": true}',
    'tensorboard.output_path="x"',
    "csv_monitor.enabled=true",
    'csv_monitor={"enabled": true, "output_path": "../x"}',
    "wandb.enabled=true",
    "comet.enabled=true",
    'flops_profiler={"enabled": true, "output_file": "/tmp/x"}',
    "autotuning.enabled=true",
    'autotuning.results_dir="../x"',
    'autotuning.exps_dir="../x"',
    "data_efficiency.enabled=true",
    'data_efficiency.data_sampling.curriculum_learning.data_cluster_path="/tmp/x"',
    'zero_optimization={"stage": 3, "offload_param": {"device": "nvme", "nvme_path": "/tmp/x"}}',
    'zero_optimization={"stage": 2, "offload_optimizer": {"device": "nvme", "nvme_path": "/tmp/x"}}',
    'torch_autocast={"enabled": true, "lower_precision_safe_modules": ["antigravity.x"]}',
]


@pytest.mark.parametrize("change", PLACES)
def test_deepspeed_writes_nowhere_and_imports_nothing(change):
    with pytest.raises(UserError, match=change.partition("=")[0].partition(".")[0]):
        config.load(SMALL, [change])


def test_what_deepspeed_may_say_stays():
    config.load(SMALL, ["tensorboard.enabled=false", "flops_profiler.enabled=true", "comms_logger.enabled=true"])
    config.load(SMALL, ["dump_state=true", 'torch_autocast.lower_precision_safe_modules=["torch.nn.Conv2d"]'])


def test_a_network_is_one_of_ours():
    with pytest.raises(UserError, match="is not one of"):
        NETWORKS.make({"name": "..run"})


# a store and an archive


@pytest.mark.parametrize("name", ["../../x", "/tmp/x", "a/b", "..", "a\nb", "a\0b", ""])
def test_a_variable_whose_name_is_a_path_is_refused(name):
    with pytest.raises(UserError, match="a variable is named"):
        Variable(name)


def hostile_store(folder, change):
    write_tiny_store(folder)
    change(folder)
    return folder


def test_a_store_whose_variables_are_paths_is_refused(tmp_path):
    import numpy as np
    import zarr

    write_tiny_store(tmp_path / "s.zarr")
    names = zarr.open_group(tmp_path / "s.zarr", mode="r+")["high/variable"]
    names[:] = np.array(["../../../x", "p"], dtype=object)
    sign(tmp_path / "s.zarr")
    answer = dsr("plan", "--data", tmp_path / "s.zarr")
    assert answer.exit_code == 2 and "'../../../x'" in answer.output, (answer.output, answer.exception)


@pytest.mark.parametrize("codec", [{"name": "numcodecs.pickle"}, {"name": "pickle", "configuration": {}}])
def test_a_store_with_pickle_for_a_codec_is_refused(tmp_path, marker, codec):
    write_tiny_store(tmp_path / "s.zarr")
    for name in ("high/field", "low/high_index"):
        array = tmp_path / "s.zarr" / name
        metadata = json.loads((array / "zarr.json").read_text())
        metadata["codecs"] = [codec]
        (array / "zarr.json").write_text(json.dumps(metadata))
        for chunk in (array / "c").rglob("*"):
            if chunk.is_file():
                chunk.write_bytes(payload(marker))
    shutil.rmtree(tmp_path / "s.zarr" / "consolidated", ignore_errors=True)
    root = json.loads((tmp_path / "s.zarr" / "zarr.json").read_text())
    root.pop("consolidated_metadata", None)
    (tmp_path / "s.zarr" / "zarr.json").write_text(json.dumps(root))
    sign(tmp_path / "s.zarr")
    refuse("pickle", "data", "info", tmp_path / "s.zarr")


def test_a_chunk_that_is_a_pickle_is_refused(tmp_path, marker):
    write_tiny_store(tmp_path / "s.zarr")
    chunks = [path for path in (tmp_path / "s.zarr/high/field/c").rglob("*") if path.is_file()]
    for chunk in chunks:
        chunk.write_bytes(payload(marker))
    sign(tmp_path / "s.zarr")
    with pytest.raises(RuntimeError, match="blosc decompression"):
        Store(tmp_path / "s.zarr").high[0]


ZARR2 = {"zarr_format": 2, "shape": [2], "chunks": [2], "compressor": None, "fill_value": 0, "order": "C"}


@pytest.mark.parametrize(
    "array",
    [
        {"dtype": "|O", "filters": [{"id": "pickle"}]},
        {"dtype": "<f4", "filters": [{"id": "pickle"}]},
        {"dtype": "<f4", "filters": None, "compressor": {"id": "pickle"}},
        {"dtype": "<f4", "filters": [{"id": "delta", "dtype": "<f4"}, {"id": "pickle"}]},
    ],
    ids=["objects", "filter", "compressor", "second filter"],
)
def test_a_zarr_archive_with_pickle_for_a_codec_is_refused(tmp_path, marker, monkeypatch, array):
    import numcodecs.pickles
    import numcodecs.registry

    monkeypatch.setattr(numcodecs.pickles, "ALLOW_UNSAFE_PICKLE_DECODE", True, raising=False)  # as older ones have it
    archive = tmp_path / "a.zarr"
    (archive / "t").mkdir(parents=True)
    (archive / ".zgroup").write_text('{"zarr_format": 2}')
    (archive / "t" / ".zattrs").write_text('{"_ARRAY_DIMENSIONS": ["time"]}')
    (archive / "t" / ".zarray").write_text(json.dumps(ZARR2 | array))
    (archive / "t" / "0").write_bytes(payload(marker))
    refuse(archive, "data", "prepare", "--high", archive, "--factor", 2, "-o", tmp_path / "s.zarr")
    refuse(archive, "data", "info", archive)
    assert not (tmp_path / "s.zarr").exists()
    assert "pickle" in numcodecs.registry.codec_registry  # which belongs to the whole process


def test_metadata_that_only_mention_pickle_are_read(tmp_path):
    variable = {"zarr_format": 3, "node_type": "group", "attributes": {"variables": [{"name": "pickle"}], "codecs": 1}}
    refuse_pickle("a.zarr", "zarr.json", json.dumps(variable).encode())
    sharded = {"name": "sharding_indexed", "configuration": {"codecs": [{"name": "numcodecs.pickle"}]}}
    with pytest.raises(UserError, match=r"a\.zarr: t/zarr\.json names pickle"):
        refuse_pickle("a.zarr", "t/zarr.json", json.dumps({"codecs": [sharded]}).encode())


@pytest.mark.parametrize("name", ["a.nc", "a.npy", "a.npz", "a.grib", "a.pkl"])
def test_an_archive_that_is_a_pickle_is_refused(tmp_path, marker, name):
    import numpy as np

    archive, objects = tmp_path / name, np.array([Payload(marker)], dtype=object)
    if name == "a.npy":
        np.save(archive, objects, allow_pickle=True)
    elif name == "a.npz":
        np.savez(archive, t=objects)
    else:
        archive.write_bytes(payload(marker))
    refuse(archive, "data", "prepare", "--high", archive, "--factor", 2, "-o", tmp_path / "s.zarr")
    good = ["--high", archive, "--static", archive, "--factor", 2]
    refuse(archive, "data", "prepare", *good, "-o", tmp_path / "s.zarr")
    refuse(archive, "data", "prepare", archive, "-o", tmp_path / "s.zarr")  # as a recipe


def test_an_index_beside_a_GRIB_file_is_not_read(tmp_path, marker):
    """cfgrib keeps its indices as pickles beside the files, and would load them."""
    import cfgrib

    archive = write_grib(tmp_path / "a.grib", [{"shortName": "2t", "value": 280.0}])
    cfgrib.open_datasets(str(archive))
    indices = list(tmp_path.glob("*.idx"))
    for index in indices:
        index.write_bytes(payload(marker))
    cfgrib.open_datasets(str(archive))
    assert marker.exists() and indices  # so it does
    marker.unlink()
    answer = dsr("data", "prepare", "--high", archive, "--factor", 2, "--dry-run")
    assert "2020-01-01T12" in answer.output, answer.output  # it was read
