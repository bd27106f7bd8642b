"""Hostfiles and filters, and what happens where there are fewer devices than GPUs."""

import pytest

from dsr.cluster.devices import CPU, Devices, find_devices
from dsr.cluster.start import rehearsal
from dsr.errors import UserError
from tests.cluster.conftest import plan_of, write


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("a slots=x\n", {}, "line 1"),
        ("a slots=1\na slots=2\n", {}, "listed twice"),
        ("-oProxyCommand=x slots=2\n", {}, "line 1: -oProxyCommand=x is not a host's name"),
        ("# none\n", {}, "names no host"),
        ("a slots=2\n", {"launcher": "local"}, "starts ranks on this host alone, and not on a"),
        ("a slots=2\n", {"include": "c"}, "no host c"),
        ("a slots=2\n", {"include": "a:5"}, "no device 5"),
        ("a slots=2\n", {"exclude": "a"}, "leaves no device"),
        ("a slots=2\n", {"launcher": "rsh"}, "is not one of"),
        ("a slots=2\n", {"launcher": "openmpi", "include": "a"}, "takes no --include"),
    ],
)
def test_a_wrong_hostfile_or_filter_is_refused(tmp_path, text, options, message):
    with pytest.raises(UserError, match=message):
        find_devices(write(tmp_path / "hosts", text), **options)


def test_fewer_devices_rehearse_and_say_so(experiment):
    devices = Devices({"localhost": [0, 1, 2]}, CPU)
    plan = plan_of(experiment, devices)
    assert (plan.devices, plan.rehearsal) == (2, True)
    line = rehearsal(plan, devices)
    assert "\n" not in line and "4 GPUs asked, 3 CPU cores here: rehearsing on 2" in line and "2 times the time" in line
    assert plan_of(experiment, devices, use=4).devices == 4  # more ranks than cores, if asked
    with pytest.raises(UserError, match="4 GPUs asked, but this host has 3 CPU cores"):
        plan_of(experiment, devices, strict=True)


def test_a_hostfile_that_is_too_small_is_an_error_unless_devices_are_named(experiment, tmp_path):
    devices = find_devices(write(tmp_path / "hosts", "a slots=2\n"))
    with pytest.raises(UserError, match="--devices 2 rehearses"):
        plan_of(experiment, devices)
    assert plan_of(experiment, devices, use=2).rehearsal
    with pytest.raises(UserError, match="there are only 2"):
        plan_of(experiment, devices, use=4)
