"""What an install rests on: the pins, the wheel's content, and that launch/install keeps a torch that is there."""

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]


def pins():
    lines = (ROOT / "launch/constraints.txt").read_text().splitlines()
    pairs = (line.split("==") for line in lines if not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pairs}


def test_every_dependency_is_pinned_inside_its_range():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = pins()
    for line in [*project["dependencies"], *project["optional-dependencies"]["test"]]:
        requirement = Requirement(line)
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), line


def test_the_wheel_ships_the_package_and_its_experiments(tmp_path):
    pytest.importorskip("hatchling")
    line = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", tmp_path, ROOT]
    subprocess.run(line, check=True)
    (wheel,) = tmp_path.glob("dsr-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    shipped = {"dsr/cli.py", "dsr/train/loop.py", "dsr/ds_configs/default.json", "_dsr_proj.py", "dsr_proj.pth"}
    assert shipped <= set(names)
    assert not [name for name in names if name.startswith(("tests/", "launch/", "ds_configs/"))]


STUB = """#!/bin/sh
case "$*" in
"-m pip --version") ;;
"-m pip install"*) echo "$@" >> {folder}/pip; for word; do case $word in /*) cat "$word" > {folder}/pins;; esac; done ;;
*) PYTHONPATH={folder}/packages exec {python} -S "$@" ;;
esac
"""


@pytest.mark.parametrize(("there", "kept"), [("2.12.1+cu130", True), ("2.9.0", False), (None, False)])
def test_an_existing_torch_in_range_is_kept_and_a_second_time_is_quick(tmp_path, there, kept):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python").write_text(STUB.format(folder=tmp_path, python=sys.executable))
    (tmp_path / "bin/python").chmod(0o755)
    if there:
        metadata = tmp_path / f"packages/torch-{there}.dist-info/METADATA"
        metadata.parent.mkdir(parents=True)
        metadata.write_text(f"Metadata-Version: 2.1\nName: torch\nVersion: {there}\n")
    for _ in range(2):
        variables = {**os.environ, "VIRTUAL_ENV": str(tmp_path)}
        python = subprocess.run([ROOT / "launch/install"], env=variables, capture_output=True, text=True, check=True)
        assert python.stdout.strip() == str(tmp_path / "bin/python")
    assert len((tmp_path / "pip").read_text().splitlines()) == 1
    torch = re.findall("^torch==(.*)$", (tmp_path / "pins").read_text(), re.MULTILINE)
    assert torch == [there if kept else pins()["torch"]]


SUITS = """#!/bin/sh
case "$*" in
"-m venv"*) mkdir -p "$3/bin" && cp {folder}/stub "$3/bin/python" && basename "$0" > {folder}/made ;;
*) exec {python} "$@" ;;
esac
"""
OTHER = '#!/bin/sh\n[ "$1" = --version ] && echo Python {version}\n'


@pytest.mark.parametrize(
    ("pythons", "made"),
    [
        ({"python3": "3.11", "python3.13": "3.13"}, "python3"),
        ({"python3": "3.14.1", "python3.12": "3.12.1"}, "python3.12"),
        ({"python3": "3.14.1"}, "Python 3.14.1; dsr needs Python 3.11, 3.12 or 3.13"),
        ({"python3": "3.10.2"}, "Python 3.10.2; dsr needs Python 3.11, 3.12 or 3.13"),
    ],
)
def test_the_user_s_python3_is_taken_or_another_that_suits_or_it_says_which_would(tmp_path, pythons, made):
    stub = tmp_path / "stub"
    stub.write_text(STUB.format(folder=tmp_path, python=sys.executable))
    stub.chmod(0o755)
    for name in ("python3", "python3.11", "python3.12", "python3.13"):
        version = pythons.get(name, "none")
        suits = version.startswith(("3.11", "3.12", "3.13"))
        text = SUITS.format(folder=tmp_path, python=sys.executable) if suits else OTHER.format(version=version)
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    variables = {**os.environ, "VIRTUAL_ENV": str(tmp_path / "new"), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run([ROOT / "launch/install"], env=variables, capture_output=True, text=True)
    if "needs" in made:
        assert done.returncode == 1 and made in done.stderr and not (tmp_path / "new").exists()
    else:
        assert (done.returncode, (tmp_path / "made").read_text().strip()) == (0, made), done.stderr


@pytest.mark.parametrize("script", ["launch/install", "launch/demo", "launch/test", "launch/slurm.sh", ".ci/run"])
def test_the_scripts_can_be_run(script):
    assert os.access(ROOT / script, os.X_OK)
    subprocess.run(["bash", "-n", ROOT / script], check=True)
