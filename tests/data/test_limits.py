"""What no field on the earth can hold is refused with counts, rounding is clipped and counted."""

import numpy as np
import pytest

from dsr.data.limits import limit, within
from dsr.data.store import Variable
from dsr.errors import UserError

RAIN = Variable("rr", "mm", "precipitation_amount")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        (Variable("tas", "K", "air_temperature"), 6.0),
        (Variable("tas", "degC", "air_temperature"), 288.0),  # Kelvin that is called Celsius
        (Variable("tas", "K", "air_temperature"), 15.0),  # Celsius that is called Kelvin
        (RAIN, -3.0),
        (Variable("psl", "Pa", "air_pressure_at_mean_sea_level"), 1013.0),  # hPa that is called Pa
        (Variable("hurs", "%", "relative_humidity"), 250.0),
    ],
)
def test_impossible_values_are_refused_with_their_count(variable, value):
    field = np.full((4, 5), np.nan, np.float32)
    field[0, :3] = value
    with pytest.raises(UserError, match=rf"here: 3 of 20 values are outside .* such as {value:g}; set .missing"):
        within(field, limit(variable), 0, False, "here")


def test_rounding_below_zero_is_clipped_and_counted_and_larger_falls_are_not():
    field = np.array([[0.0, -5e-4, 1.0], [-2e-3, 2.0, np.nan]], np.float32)
    with pytest.raises(UserError, match="1 of 6 values are outside 0"):
        within(field, limit(RAIN), 0, False, "x")
    clipped, count = within(field, limit(RAIN), rounding=0.01, clip=False, where="x")
    np.testing.assert_array_equal(clipped, [[0, 0, 1], [0, 2, np.nan]])
    assert count == 2
    field[1, 0] = -7
    assert within(field, limit(RAIN), 0, True, "x")[1] == 2


def test_what_is_not_used_is_neither_judged_nor_changed():
    field = np.array([[-9.0, 1.0, -1e-4]], np.float32)
    kept, count = within(field, limit(RAIN), 0, False, "x", (slice(None), slice(1, 3)))
    np.testing.assert_array_equal(kept, np.array([[-9, 1, 0]], np.float32))
    assert count == 1


def test_differences_and_unknown_quantities_have_no_limits():
    assert limit(Variable("x", "K", "air_temperature_anomaly")) is None
    assert limit(Variable("x", "1", "")) is None
