"""Run one benchmark, or all of them: a table on the screen, and with --json the same in a file."""

import argparse
import importlib
import json
import platform
from pathlib import Path
from typing import Any

import psutil
import torch

from dsr.files import write_json

NAMES = ("engine", "loader", "prepare")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("name", nargs="?", choices=NAMES, help="by default all of them")
    parser.add_argument("--json", type=Path, help="write the cases to this file too")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--gigabytes", type=float, default=1.0, help="of input for prepare")
    arguments = parser.parse_args()
    cases: list[dict[str, Any]] = []
    for name in [arguments.name] if arguments.name else NAMES:
        size = [arguments.gigabytes] if name == "prepare" else []
        for case in importlib.import_module(f"tests.benchmarks.{name}").cases(arguments.device, *size):
            cases.append(case)
            print(line(case), flush=True)
    if arguments.json:
        write_json(arguments.json, {"machine": machine(), "cases": cases})


def line(case: dict[str, Any]) -> str:
    """One case for the eye."""
    verdict = {True: "holds", False: "FALLS SHORT", None: f"not measured: {case.get('reason')}"}[case["holds"]]
    ratio = "-" if case["ratio"] is None else f"{case['ratio']:.3f}"
    return f"{case['name']:64} {ratio:>8}  {case['goal']:10} {verdict}   {json.dumps(case.get('value'))}"


def machine() -> str:
    cuda = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    cores, memory = psutil.cpu_count(), psutil.virtual_memory().total / 2**30
    return f"{platform.machine()}, {cores} cores, {memory:.0f} GiB{cuda}; torch {torch.__version__}"


if __name__ == "__main__":
    main()
