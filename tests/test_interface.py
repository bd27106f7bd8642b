"""The Python interface: light to import, in a process of its own to train, and the same numbers as the command line."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import dsr
import dsr.interface
from dsr.data.output import export_forecast
from dsr.data.store import Store
from dsr.errors import UserError

SMALL = ["dsr.budget.epochs=null", "dsr.budget.updates=2", "dsr.model.width=4", "dsr.model.blocks=1"]
FITTING = ["gradient_accumulation_steps=8", 'dsr.data.extras=["lead_time"]']


@pytest.fixture(scope="module")
def run(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> dsr.Run:
    folder = tmp_path_factory.mktemp("interface") / "run"
    return dsr.launch(run_dir=folder, store=tiny_store, overrides=[*SMALL, *FITTING])


@pytest.fixture(scope="module")
def low(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("low") / "low.nc"
    export_forecast(Store(tiny_store), "test", path)
    return path


def test_importing_dsr_imports_no_library() -> None:
    code = "import sys; before = set(sys.modules); import dsr; print(*(set(sys.modules) - before))"
    names = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names) <= {"dsr"}


def test_no_submodule_has_the_name_of_a_function() -> None:
    assert not {path.stem for path in Path(dsr.__file__).parent.iterdir()} & set(dsr.__all__)


def test_a_run_has_metrics(run: dsr.Run) -> None:
    assert run.status()["state"] == "finished"
    metrics = run.metrics()
    assert metrics.index.name == "update"
    assert metrics["loss"].notna().any()


def test_a_loaded_network_gives_what_dsr_predict_writes(run: dsr.Run, low: Path, tmp_path: Path) -> None:
    from dsr.predict import predict

    predict(run.path, [str(low)], tmp_path / "high.nc")
    with xr.open_dataset(low, decode_timedelta=True) as dataset, xr.open_dataset(tmp_path / "high.nc") as file:
        written = file.load()
        given = dsr.load(run.path)(dataset)
    assert set(given.data_vars) == set(written.data_vars)
    for name in ("t", "p"):
        assert given[name].dims == written[name].dims
        assert np.array_equal(given[name], written[name], equal_nan=True)
        assert given[name].attrs == written[name].attrs
    assert np.array_equal(given["time"], written["time"])


def test_dask_arrays_stay_lazy(run: dsr.Run, low: Path) -> None:
    pytest.importorskip("dask")
    downscale = dsr.load(run.path)
    with xr.open_dataset(low, decode_timedelta=True) as dataset:
        whole, lazy = downscale(dataset), downscale(dataset.chunk(time=1))
        assert lazy["t"].chunks is not None
        xr.testing.assert_identical(lazy.compute(), whole)


def test_a_launch_that_cannot_be_says_why(tmp_path: Path, tiny_store: Path) -> None:
    with pytest.raises(UserError, match="unknown key widht; did you mean width"):
        dsr.launch(run_dir=tmp_path / "run", store=tiny_store, overrides=["dsr.model.widht=3"])
    assert not list(tmp_path.iterdir())


def test_an_interrupt_reaches_the_command_and_then_the_caller() -> None:
    code = (
        "import os, signal, time\n"
        "signal.signal(signal.SIGINT, lambda *_: (print('saved', flush=True), os._exit(75)))\n"
        "print('ready', flush=True)\ntime.sleep(600)\n"
    )
    outer = (
        "import sys, signal, dsr.interface\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"try:\n    dsr.interface._follow([sys.executable, '-c', {code!r}])\n"
        "except KeyboardInterrupt:\n    print('interrupted', flush=True)\n"
    )
    line = [sys.executable, "-c", outer]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(2)
        assert process.stdout.read() == "saved\ninterrupted\n"
