"""The predicted time of an update, by hand."""

import subprocess
import sys

import pytest

from dsr.scaling.speed import Wires, exchange_seconds, update_seconds
from dsr.scaling.tree import cost


def test_an_update_is_its_share_of_slots_and_the_exchange():
    wires = Wires(latency_us=10, gbit_per_s=1)
    # 1000 parameters go whole: 4 ranks double twice, so 2 messages of 4000 bytes, 10 us and 32 us each
    assert cost(8, 4, 1000) == (2, 8000)
    assert exchange_seconds(8, 4, 1000, wires) == pytest.approx(2 * (10e-6 + 32e-6))
    assert update_seconds(8, 4, 0.01, 1000, wires) == pytest.approx(2 * 0.01 + 84e-6)
    assert update_seconds(8, 1, 0.01, 1000, wires) == 0.08


def test_it_needs_no_torch():
    code = "import sys, dsr.scaling.speed; print([m for m in ('torch', 'deepspeed', 'numpy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
