"""The notebook runs from start to end in a kernel of its own, and what it shows is still what it gives."""

import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / ".readme/tour.ipynb"
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?")


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def texts(cell: NotebookNode) -> list[tuple[str, str]]:
    """(kind, text) of everything that a cell shows; the text of a picture is empty."""
    shown = []
    for output in cell.outputs:
        if output.output_type == "stream":
            shown.append((output.name, output.text))
        else:
            kinds = sorted(output.data.items())
            shown += [(kind, value if kind.startswith("text/") else "") for kind, value in kinds]
    return shown


def test_the_notebook_was_executed_in_order_and_names_no_machine() -> None:
    cells = code_cells(nbformat.read(NOTEBOOK, as_version=4))
    assert [cell.execution_count for cell in cells] == [*range(1, len(cells) + 1)]
    for kind, text in (shown for cell in cells for shown in texts(cell)):
        assert kind != "stderr"  # a warning, or a progress bar that nobody watches
        assert "\x1b" not in text
        assert not re.search(r"(?<![\w.<])/\w+/", text), text  # an absolute path
    assert NOTEBOOK.stat().st_size < 300_000


@pytest.mark.slow
def test_the_notebook_gives_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells tagged "measured" may differ in the last digits on another kind of processor; all others may not."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")  # this Python's kernel, whatever the user has installed
    before, notebook = (nbformat.read(NOTEBOOK, as_version=4) for _ in range(2))
    client = NotebookClient(notebook, timeout=600, record_timing=False, coalesce_streams=True)
    client.resources = {"metadata": {"path": str(tmp_path)}}
    client.execute()
    nbformat.write(notebook, tmp_path / "tour.ipynb")
    advice = f"where the change is meant, copy {tmp_path / 'tour.ipynb'} to {NOTEBOOK}"
    for old, new in zip(code_cells(before), code_cells(notebook), strict=True):
        assert [kind for kind, _ in texts(new)] == [kind for kind, _ in texts(old)], advice
        for (_, shown), (_, given) in zip(texts(old), texts(new), strict=True):
            if "measured" not in old.metadata.get("tags", []):
                assert given == shown, advice
                continue
            assert NUMBER.sub("#", given).split() == NUMBER.sub("#", shown).split(), advice
            numbers, expected = ([*map(float, NUMBER.findall(text))] for text in (given, shown))
            np.testing.assert_allclose(numbers, expected, rtol=0.05, atol=0.02, err_msg=advice)
