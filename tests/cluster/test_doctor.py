"""`dsr doctor`: what it finds, and that it takes the command `dsr` back from DeepSpeed."""

import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

import pytest
from click.testing import CliRunner

from dsr import cli
from dsr.cluster import doctor


def take(scripts: Path) -> None:
    """Put DeepSpeed's script `dsr` there, as its upgrade does."""
    files = metadata.files("deepspeed") or []
    report = next(Path(file.locate()) for file in files if file.name == "ds_report")
    script = scripts / "dsr"
    script.write_text(report.read_text())
    script.chmod(0o755)


def help_of(script: Path) -> str:
    root = Path(__file__).parents[2]
    return subprocess.run([script, "--help"], capture_output=True, text=True, env={"PYTHONPATH": str(root)}).stdout


def test_a_script_that_deepspeed_took_is_mended(tmp_path):
    take(tmp_path)
    assert "deepspeed" in (tmp_path / "dsr").read_text()
    assert "ours again" in doctor.own_command(tmp_path)
    assert "downscaling" in help_of(tmp_path / "dsr")
    assert "is ours" in doctor.own_command(tmp_path)


def test_another_programs_script_is_left_alone(tmp_path):
    assert "not in" in doctor.own_command(tmp_path)
    (tmp_path / "dsr").write_text("#!/bin/sh\necho digital signal repeater\n")
    assert "another program" in doctor.own_command(tmp_path)
    assert "repeater" in (tmp_path / "dsr").read_text()


def test_the_installed_command_is_ours():
    script = Path(sysconfig.get_path("scripts")) / "dsr"
    try:
        metadata.version("dsr")
    except metadata.PackageNotFoundError:
        pytest.skip("dsr runs from a checkout that is not installed")
    assert "from dsr.cli import main" in script.read_text()


def test_doctor_shows_the_machine(monkeypatch, tmp_path):
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    result = CliRunner().invoke(cli.main, ["doctor"])
    assert result.exit_code == 0, result.output
    for word in ("devices", "gloo", "pdsh", "torch", "command dsr", sys.version.split()[0]):
        assert word in result.output


def test_a_library_out_of_range_is_named(monkeypatch):
    monkeypatch.setattr(metadata, "requires", lambda name: ["click<1", "nowhere>=2", 'ruff; extra == "test"'])
    assert [line.split(" ")[0] for line in doctor.out_of_range()] == ["click", "nowhere"]
