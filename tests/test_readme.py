"""The commands of README and of its pages run as they stand, each page from its first block to its last.

A comment before a block says what is special about it: the `file` that it is, that it needs `real data`, or that it is
`not tested`, and why.
"""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / ".readme").glob("*.md"))]
BLOCK = re.compile(r"(?:<!-- ([^>]*) -->\n)?```(\w+)\n(.*?)```", re.DOTALL)
COMMANDS = {"sh": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}
CURL = """#!/bin/sh
mkdir -p archive && cp {data}/era5_uk/era5-2mt-2019-03-uk.grib archive/uk.grib
"""


class Block(NamedTuple):
    special: str  # the comment before it
    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    return [Block(*found.groups("")) for found in BLOCK.finditer(page.read_text())]


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A folder like a fresh checkout's, where `dsr` is this one."""
    for name in ("ds_configs", "launch"):
        (tmp_path / name).symlink_to(ROOT / name)
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "dsr").write_text(f'#!/bin/sh\nexec {sys.executable} -m dsr "$@"\n')
    (programs / "python").symlink_to(sys.executable)
    (programs / "dsr").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{os.environ.get('PYTHONPATH', '')}")
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_commands_of_a_page_run(page, checkout, request):
    for block in blocks(page):
        if block.special.startswith("file: "):
            Path(block.special.removeprefix("file: ")).write_text(block.text)
        elif not block.special.startswith("not tested"):
            if block.special == "real data":
                real(checkout, request)
            done = subprocess.run([*COMMANDS[block.language], block.text], capture_output=True, text=True)
            assert done.returncode == 0, f"{block.text}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


def real(checkout: Path, request: pytest.FixtureRequest) -> None:
    """Real data as DATA, and a curl that copies from there; the rest of the page is skipped where there are none."""
    data = request.getfixturevalue("real_data")
    if not (checkout / "DATA").exists():
        (checkout / "DATA").symlink_to(data)
        (checkout / "bin/curl").write_text(CURL.format(data=data))
        (checkout / "bin/curl").chmod(0o755)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_and_pictures_are_there_and_every_block_is_accounted_for(page):
    text = page.read_text()
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (page.parent / link).exists(), link
    for block in blocks(page):
        special = block.special.partition(":")
        assert special[0] in ("", "file", "real data", "not tested", "not tested here"), block
        assert block.language in COMMANDS or special[0] == "file", f"{page.name}: what is this block for?\n{block.text}"
        if special[0].startswith("not tested"):
            assert len(special[2]) > 10, f"{page.name}: why is this block not tested?\n{block.text}"


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120
