"""Progress bars are for people who watch a terminal."""

import io
import sys

import pytest

from dsr.progress import bar


def test_forced_colours_show_no_bar_where_stderr_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with bar() as progress:
        progress.add_task("training", total=1)
    assert sys.stderr.getvalue() == ""  # type: ignore[attr-defined]
