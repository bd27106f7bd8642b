"""`dsr data info --bench`: who waits for whom, the network or the reader."""

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from dsr import bench
from dsr.cli import main


@pytest.mark.parametrize("cached", [True, False])
def test_rates_and_the_bottleneck_are_told(tiny_store, tmp_path, monkeypatch, cached):
    monkeypatch.setattr(bench, "SECONDS", 0.05)
    monkeypatch.setenv("DSR_CACHE", str(tmp_path))
    config = tmp_path / "a.json"
    base = Path(__file__).with_name("small.json")
    config.write_text(json.dumps({"extends": str(base), "dsr": {"data": {"cache": 8 if cached else 0}}}))
    result = CliRunner().invoke(main, ["data", "info", str(tiny_store), "--bench", "--config", str(config)])
    assert result.exit_code == 0, result.output
    rates = [float(rate.replace(",", "")) for rate in re.findall(r"([\d,]+) samples/s", result.output)]
    assert len(rates) == 3 + cached and min(rates) > 0
    assert ("decoded rows are not cached: decoded, it needs" in result.output) == (not cached)
    told = "network" if rates[-1] < rates[-2] else "reading"
    assert f"{told} is the bottleneck" in result.output


def test_a_config_without_bench_is_refused(tiny_store):
    result = CliRunner().invoke(main, ["data", "info", str(tiny_store), "--config", "x.json"])
    assert result.exit_code == 2 and "add --bench" in result.output
