"""What many tests share."""

import os
from pathlib import Path

import pytest

from tests.stores import write_tiny_store


def pytest_addoption(parser: pytest.Parser) -> None:
    text = "where ranks of tests compute; on cuda tests of more than one rank need as many GPUs, and skip without"
    parser.addoption("--device", choices=("cpu", "cuda"), default="cpu", help=text)


def pytest_configure(config: pytest.Config) -> None:
    os.environ["DSR_TEST_DEVICE"] = config.getoption("--device")  # for the ranks, which are processes of their own


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that hold slow tests, so that none of them is left for one process at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


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
