"""The arrows between the rooms: who may import whom, and what stays out of the processes that need no training."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "dsr"
TABLES = ("dsr.cluster.launchers",)  # tables of components, which stand below every room
FORBIDDEN = {  # room -> rooms that none of its modules imports, at any depth of its functions
    "config": ("cluster", "train", "study", "verify", "predict", "cli", "data", "run"),
    "scaling": ("cluster", "train", "study", "verify", "predict", "cli", "data", "run"),
    "models": ("cluster", "train", "study", "verify", "predict", "cli", "run"),
    "run": ("cluster", "train", "study", "verify", "predict", "cli", "config", "models", "scaling"),
    "data": ("cluster", "train", "study", "predict", "cli", "run", "models", "scaling"),
    "verify": ("cluster", "train", "study", "cli"),
    "predict": ("cluster", "train", "study", "verify", "cli"),
    "report": ("cluster", "train", "predict", "cli"),
    "cluster": ("train", "study", "verify", "predict"),
    "train": ("cluster", "study", "cli", "predict"),
    "study": ("train",),
}


def imports(path: Path) -> set[str]:
    """Every module that a file imports, but for those under TYPE_CHECKING."""
    tree = ast.parse(path.read_text())
    skipped = {
        id(node)
        for test in ast.walk(tree)
        if isinstance(test, ast.If) and "TYPE_CHECKING" in ast.unparse(test.test)
        for branch in test.body
        for node in ast.walk(branch)
    }
    names = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def modules() -> dict[str, set[str]]:
    files = {
        ".".join(("dsr", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
        for path in ROOT.rglob("*.py")
    }
    return {name: imports(path) for name, path in files.items()}


@pytest.mark.parametrize("room", FORBIDDEN)
def test_a_room_imports_only_what_lies_below_it(room: str) -> None:
    wrong = [
        f"{name} imports {imported}"
        for name, several in modules().items()
        if f"{name}.".startswith(f"dsr.{room}.")
        for imported in several - {"dsr.cluster"}  # the room itself: `from dsr.cluster import launchers`
        if f"{imported}.".startswith(tuple(f"dsr.{other}." for other in FORBIDDEN[room]))
        if not f"{imported}.".startswith(tuple(f"{table}." for table in TABLES))
    ]
    assert not wrong


def test_no_modules_import_each_other_in_a_circle() -> None:
    found = modules()
    graph = {
        name: {imported for imported in several if imported in found and not name.startswith(imported)}
        for name, several in found.items()
    }
    TopologicalSorter(graph).prepare()  # CycleError names the circle


def test_deepspeed_is_imported_by_one_file() -> None:
    users = {name for name, several in modules().items() if "deepspeed" in {one.partition(".")[0] for one in several}}
    assert users == {"dsr.train.engine"}


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("from dsr.cli import main; main(['--help'], standalone_mode=False)", {"torch", "deepspeed"}),
        ("from dsr.cli import main; main(['plan', '--schema'], standalone_mode=False)", {"torch", "deepspeed"}),
        ("import dsr; dsr.plan(store={store!r}, overrides=['gradient_accumulation_steps=8', 'dsr.data.extras=[]'])",
         {"torch", "deepspeed"}),
        ("import dsr.predict, dsr.verify.evaluate, torch", {"deepspeed"}),
    ],
)  # fmt: skip
def test_what_stays_out_of_a_process(code: str, absent: set[str], tiny_store: Path) -> None:
    text = f"{code.format(store=str(tiny_store))}\nimport sys; print('MODULES', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not absent & set(done.stdout.partition("MODULES")[2].split())
