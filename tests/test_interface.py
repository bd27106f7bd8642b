"""The Python interface: light to import, in a process of its own to train, and the same numbers as the command line."""

import contextlib
import doctest
import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import xarray as xr

import dsr
import dsr.interface
from dsr.data.output import export_forecast
from dsr.data.simulate import Settings
from dsr.data.store import Store
from dsr.errors import UserError

PACKAGE = Path(dsr.__file__).parent
MODULES = [
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    for path in sorted(PACKAGE.rglob("*.py"))
    if ">>>" in path.read_text()
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the examples of docstrings run: it has the store that they name."""
    path = tmp_path_factory.mktemp("examples")
    dsr.simulate(path / "small.zarr", Settings(size=24, train=4, validation=1, test=1, leads=3, members=2, spinup=1))
    return path


@pytest.fixture(scope="module")
def store(folder: Path) -> Path:
    return folder / "small.zarr"


@pytest.fixture(scope="module")
def run(folder: Path) -> dsr.Run:
    """The run that the example of `launch` leaves, and the other examples name."""
    with contextlib.chdir(folder):
        run_examples("dsr.interface", lambda name: name == "dsr.interface.launch")
    return dsr.Run(folder / "runs/small")


@pytest.fixture(scope="module")
def low(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("low") / "low.nc"
    export_forecast(Store(store), "test", path)
    return path


def test_a_store_opens_as_a_tree(store: Path) -> None:
    tree = dsr.open_store(store)
    assert tree["high"]["t2m"].attrs["units"] == "K"
    assert tree["high"].sizes["y"] == 4 * tree["low"].sizes["y"]


def test_importing_dsr_imports_no_library() -> None:
    code = "import sys; before = set(sys.modules); import dsr; print(*(set(sys.modules) - before))"
    names = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names) <= {"dsr"}


def test_no_submodule_has_the_name_of_a_function() -> None:
    assert not {path.stem for path in Path(dsr.__file__).parent.iterdir()} & set(dsr.__all__)


@pytest.mark.slow
def test_a_run_has_metrics(run: dsr.Run) -> None:
    assert run.status()["state"] == "finished"
    metrics = run.metrics()
    assert metrics.index.name == "update"
    assert metrics["loss"].notna().any()


@pytest.mark.filterwarnings("ignore:caution")
@pytest.mark.slow
def test_a_loaded_network_gives_what_dsr_predict_writes(run: dsr.Run, low: Path, tmp_path: Path) -> None:
    from dsr.predict import predict

    predict(run.path, [str(low)], tmp_path / "high.nc")
    with xr.open_dataset(low, decode_timedelta=True) as dataset:
        given = dsr.load(run.path)(dataset)
    with xr.open_dataset(tmp_path / "high.nc", decode_timedelta=True, decode_coords="all") as written:
        assert {"t2m", "tp"} <= set(written.data_vars)
        xr.testing.assert_equal(given, written)
        for name in ("t2m", "tp", "time"):
            assert given[name].dims == written[name].dims
        assert given["t2m"].attrs["standard_name"] == written["t2m"].attrs["standard_name"] == "air_temperature"


@pytest.mark.filterwarnings("ignore:caution")
@pytest.mark.slow
def test_dask_arrays_stay_lazy(run: dsr.Run, low: Path) -> None:
    pytest.importorskip("dask")
    downscale = dsr.load(run.path)
    with xr.open_dataset(low, decode_timedelta=True) as dataset:
        whole, lazy = downscale(dataset), downscale(dataset.chunk(time=1))
        assert lazy["t2m"].chunks is not None
        xr.testing.assert_identical(lazy.compute(), whole)


def test_a_launch_that_cannot_be_says_why(tmp_path: Path, store: Path) -> None:
    with pytest.raises(UserError, match="unknown key widht; did you mean width"):
        dsr.launch(run_dir=tmp_path / "run", store=store, overrides=["dsr.model.widht=3"])
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


@pytest.mark.slow
@pytest.mark.parametrize("module", MODULES)
def test_the_examples_in_docstrings(module: str, folder: Path, run: dsr.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    run_examples(module, lambda name: name != "dsr.interface.launch")


def run_examples(module: str, chosen: Callable[[str], bool]) -> None:
    """Run the examples of the docstrings with these names in a module, of which there is at least one."""
    runner = doctest.DocTestRunner()
    for test in doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(module)):
        if chosen(test.name):
            runner.run(test)
    assert runner.summarize(verbose=False).failed == 0
    assert runner.tries > 0
