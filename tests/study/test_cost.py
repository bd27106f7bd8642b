"""The predicted time of an update, against a case worked out by hand."""

import pytest

from dsr.study.ablation import Wires
from dsr.study.cost import predicted_update_seconds
from dsr.tree import cost


def test_an_update_is_its_share_of_slots_and_the_exchange():
    wires = Wires(latency_us=10, gbit_per_s=1)
    messages, sent = cost(8, 4, 1000)
    assert messages >= 2 and sent >= 4000 * 1.5  # no exchange of 1000 float32 on 4 ranks sends less
    expected = 2 * 0.01 + messages * 10e-6 + sent * 8e-9
    assert predicted_update_seconds(8, 4, 0.01, 1000, wires) == pytest.approx(expected)
    assert predicted_update_seconds(8, 1, 0.01, 1000, wires) == pytest.approx(0.08)
