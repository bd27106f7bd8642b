"""What many tests share."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from dsr.data.grid import Grid
from dsr.data.manifest import MANIFEST, PROVENANCE, SUMS, checksum, write_manifest
from dsr.data.store import Layout, Variable
from dsr.data.writer import Writer


def pytest_addoption(parser: pytest.Parser) -> None:
    text = "where ranks of tests compute; on cuda tests of more than one rank need as many GPUs, and skip without"
    parser.addoption("--device", choices=("cpu", "cuda"), default="cpu", help=text)


def pytest_configure(config: pytest.Config) -> None:
    os.environ["DSR_TEST_DEVICE"] = config.getoption("--device")  # for the ranks, which are processes of their own


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real weather data beside the checkout; the test is skipped where it is absent."""
    folder = Path(os.environ.get("DSR_TEST_DATA", Path(__file__).resolve().parents[1] / "../shared/data"))
    if not folder.is_dir():
        pytest.skip(f"real weather data is not at {folder}")
    return folder.resolve()


@pytest.fixture(scope="session")
def tiny_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small paired store: 3 members of two low variables on 6 x 6, two high ones on 24 x 24, 40 training samples."""
    path = tmp_path_factory.mktemp("store") / "tiny.zarr"
    write_tiny_store(path)
    return path


def write_tiny_store(path: Path, region: np.ndarray | None = None) -> None:
    """Smooth waves over a hill: `t` stands in both, `p` (bounded below) only in the high data."""
    low_x, high_x = np.arange(6) * 4.0 + 1.5, np.arange(24) * 1.0
    index = tuple(np.meshgrid((high_x - 1.5) / 4, (high_x - 1.5) / 4, indexing="ij"))
    hill = np.exp(-((high_x[:, None] - 10) ** 2 + (high_x - 14) ** 2) / 20)
    inits = np.arange(60) * 86400
    layout = Layout(
        high_variables=[Variable("t", "K", "air_temperature"), Variable("p", "kg m-2", lower=0.0)],
        low_variables=[Variable("t", "K", "air_temperature"), Variable("u", "m s-1", "eastward_wind")],
        high_grid=_plane(high_x),
        low_grid=_plane(low_x),
        time=inits + 3600,
        low_init_time=inits,
        low_lead_time=np.full(60, 3600),
        high_index=np.arange(60),
        split=np.repeat([0, 1, 2], [40, 10, 10]),
        low_index=index,
        factor=4,
        pairing="same-run",
        splits={"by": "time"},
        provenance={"source": "tests"},
        members=3,
        region=region,
        static={"h": hill},
        static_variables=[Variable("h", "m", "surface_altitude")],
    )
    random = np.random.default_rng(0)
    with Writer(path, layout) as writer:
        for i in range(60):
            phase, wind = random.uniform(0, 6), random.normal()
            for group, x in ((writer.low, low_x), (writer.high, high_x)):
                t = 280 + np.sin(x / 4 + phase) + np.cos(x[:, None] / 5 - phase)
                if group is writer.low:
                    noise = random.normal(scale=0.1, size=(3, 1, 1))
                    group[i] = np.stack([t + noise, np.full((3, 6, 6), wind)], 1)
                else:
                    rain = np.maximum(wind * np.gradient(hill, axis=1), 0)
                    group[i] = np.stack([t - hill * np.tanh(wind), rain])


def sign(store: Path) -> None:
    """Write a store's manifest anew, for what its files hold now: as if they had been written so."""
    provenance = json.loads((store / "provenance.json").read_text())
    names = {str(file.relative_to(store)): file for file in store.rglob("*") if file.is_file()}
    ours = {
        name: checksum(file.read_bytes()) for name, file in names.items() if name not in (SUMS, MANIFEST, PROVENANCE)
    }
    write_manifest(store, ours, provenance)


def _plane(x: np.ndarray) -> Grid:
    return Grid(x * 1000, x * 1000, {})
