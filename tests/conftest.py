"""What many tests share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real weather data beside the checkout; the test is skipped where it is absent."""
    folder = Path(os.environ.get("DSR_TEST_DATA", Path(__file__).resolve().parents[1] / "../shared/data"))
    if not folder.is_dir():
        pytest.skip(f"real weather data is not at {folder}")
    return folder.resolve()
