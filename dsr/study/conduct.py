"""`dsr ablate`: validate every cell, tune the rates, play the study, prove what is shared, write what was found."""

from __future__ import annotations

import fcntl
import itertools
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from dsr.config import read_json
from dsr.errors import UserError
from dsr.files import write_csv, write_json
from dsr.study import ablation as files
from dsr.study import analysis, slurm, tensorboard
from dsr.study.ablation import SEQUENTIAL
from dsr.study.cells import Cell, Choice, Expansion, choose, distinct
from dsr.study.cost import Clock
from dsr.study.found import Found
from dsr.study.running import DONE, Folder, Stopped, play
from dsr.study.show import Board, duration

FINISHED, FAILED, STOPPED = 0, 1, 75
TUNING, STUDY, PROOFS = "tuning the rates", "the study", "the proofs"


def ablate(
    file: Path,
    run_dir: Path | None,
    *,
    jobs: int = 0,
    quick: bool = False,
    cell: int | None = None,
    submit: str | None = None,
    dry_run: bool = False,
) -> int:
    """Play all runs of an ablation file, `jobs` at once (0: one a core), and write tables and report.

    The same command goes on with a study that was interrupted: no finished run is played again. With `cell` only that
    one, as a task of the Slurm array that `submit` writes. Returns the exit code: 0 all there, 1 some run failed, 75
    stopped. Raises UserError before anything starts, for whatever is wrong in any cell.
    """
    ablation, base = files.read(file, quick=quick)
    ablation, missing = files.present(ablation)
    folder = run_dir or Path("runs", file.stem + ("-quick" if quick else ""))
    conducted = Conduct(Expansion(ablation, base), folder, missing)
    if cell is None:
        for name, error in missing.items():
            _say(f"data {name} is left out: {error}")
        _say(conducted.describe(jobs or _cores()))
    if submit:
        if not dry_run:
            conducted.begin()
        return slurm.submit(file, conducted.folder.root, quick, len(conducted.numbered[0]), len(conducted.numbered[1]),
                            dry_run=dry_run, ranks=max(ablation.proof.gpus) if ablation.proof else 1)  # fmt: skip
    if dry_run:
        tuned, studied = conducted.numbered
        names = [c.name for c in tuned] + [c.name.replace(f"rate{c.rate:g}", "rate-tuned") for c in studied]
        print("\n".join(f"{number:4}  {name}" for number, name in enumerate(names, 1)))
        return FINISHED
    try:
        if cell is not None:
            return conducted.one(cell)
        with _lock(conducted.folder.root):
            return conducted.all(jobs or _cores(), file)
    except NoRate as error:
        _say(str(error))
        return FAILED
    except Stopped as stopped:
        _say(f"stopped by {stopped}: the same command goes on")
        return STOPPED


class NoRate(Exception):
    """No rate could be chosen, so the study's runs cannot be: what is lacking."""


class Conduct:
    """A study on its way: what is to be played in which order, and what has been found so far."""

    def __init__(self, expansion: Expansion, folder: Path, missing: Iterable[str] = ()):
        self.expansion, self.ablation, self.folder = expansion, expansion.ablation, Folder(folder)
        self.missing = missing  # the data sets that are left out
        self.cost = Clock().seconds
        self.tuning = expansion.tuning()
        self.rates: dict[Choice, float] = {choice: cells[0].rate for choice, cells in self.tuning.items()}  # for now
        self.cells = expansion.study(self.rates)
        self.proofs = expansion.proofs(self.rates)
        tuned = [cell for cells in self.tuning.values() for cell in cells]
        first = distinct([*tuned, *self.cells]).values()
        if len({cell.name for cell in first}) < len(first):
            raise UserError("two runs would have one folder: rename a data set or an arm, whose names run together")
        self.numbered = tuned, [cell for cell in self.cells if cell.plan]  # as the Slurm array counts them, from 1

    def describe(self, at_once: int) -> str:
        """How many runs there are, how long they will take, and which cells cannot be."""
        tuned, studied = (distinct(cells) for cells in self.numbered)
        studied = {key: cell for key, cell in studied.items() if key not in tuned}
        proofs = distinct(itertools.chain(*self.proofs)).values()
        seconds = sum(map(self.cost, (*tuned.values(), *studied.values()))) / at_once + sum(map(self.cost, proofs))
        count = len(tuned) + len(studied) + len(proofs)
        lines = [
            f"{self.ablation.title}: {count} runs ({len(tuned)} to tune rates, {len(studied)} of the study, "
            f"{len(proofs)} to prove that shared ones are the same), {at_once} at once, about {duration(seconds)}"
        ]
        shared = len(self.numbered[1]) - len(studied)
        if shared:
            lines.append(f"{shared} more cells are the same computation as one of these, which answers for them")
        for cell in self.cells:
            if not cell.plan:
                lines.append(
                    f"cannot be: {cell.data}, {cell.arm} at {cell.gpus} GPUs, equal {cell.budget}: {cell.reason}"
                )
        return "\n".join(lines)

    def all(self, at_once: int, file: Path) -> int:
        """Play everything that is left, and write what was found."""
        self.begin()
        records = self._play(TUNING, self.numbered[0], at_once)
        self._choose(records)
        records |= self._play(STUDY, self.cells, at_once, before=self.numbered[0])
        pairs = list(itertools.chain(*self.proofs))
        records |= self._play(PROOFS, pairs, 1, before=[*self.numbered[0], *self.cells])
        found = Found(self.ablation, self.cells, self.tuning, self.rates, self.proofs, records)
        page = write(found, self.folder.root, file)
        failed = [record for record in records.values() if record["state"] not in DONE]
        if failed:
            _say(f"{len(failed)} runs failed, the first: {failed[0]['reason']}; the same command tries them again")
        _say(f"report: {page}")
        return FAILED if failed else FINISHED

    def begin(self) -> None:
        """Write down the study's definitions and data sets, which are fixed before anything runs."""
        self._check_begun()
        self.folder.root.mkdir(parents=True, exist_ok=True)
        write_json(self.folder.root / "ablation.json", self.ablation.model_dump(mode="json"))

    def _check_begun(self) -> None:
        """Refuse to go on with other definitions than the study began with, or without a data set that it has."""
        path, values = self.folder.root / "ablation.json", self.ablation.model_dump(mode="json")
        before = read_json(path) if path.exists() else values
        definitions = before["definitions"]
        if changed := [key for key, value in values["definitions"].items() if definitions.get(key) != value]:
            key = changed[0]
            raise UserError(
                f"definitions.{key} was {definitions.get(key)} when this study began, and is "
                f"{values['definitions'][key]}; with another definition another study begins, in another --run-dir"
            )
        if lost := [name for name in self.missing if name in before["data"]]:
            raise UserError(
                f"{self.folder.root}: this study began with data {lost[0]}, whose store is missing now: put it back, "
                "or begin another study, in another --run-dir"
            )

    def one(self, number: int) -> int:
        """Play one cell of the array, unless it is the same as an earlier one."""
        self._check_begun()
        everything = list(itertools.chain(*self.numbered))
        if not 1 <= number <= len(everything):
            raise UserError(f"--cell {number}: there are cells 1 to {len(everything)}")
        if number > len(self.numbered[0]):
            self._choose({cell.key: self.folder.record(cell.name) for cell in distinct(self.numbered[0]).values()})
            everything = [*self.numbered[0], *(cell for cell in self.cells if cell.plan)]
        cell = everything[number - 1]
        first = distinct(everything)[cell.key]
        if first is not cell:
            _say(f"{cell.name} is the same computation as {first.name}")
            return FINISHED
        self.cost = lambda cell: float(cell.slots)  # nobody waits for an estimate
        record = self._play(cell.name, [cell], 1)[cell.key]
        return FINISHED if record["state"] in DONE else FAILED

    def _choose(self, records: dict[str, dict[str, Any]]) -> None:
        """Take the rates that validation chose; from now on the study's cells are these."""
        scores = {
            key: float("inf") if record["state"] == "diverged" else record["best_validation"]
            for key, record in records.items()
            if record["state"] in DONE
        }
        for choice, cells in self.tuning.items():
            if missing := [cell.name for cell in cells if cell.key not in scores]:
                raise NoRate(f"{self.folder.log(missing[0])}: this run has no result, and a rate is chosen by it")
            self.rates[choice] = choose(cells, scores)
            data, arm, *_ = choice
            if arm == SEQUENTIAL and all(scores[cell.key] == float("inf") for cell in cells):
                raise NoRate(f"data {data}: the sequential run diverges at every rate of tune.rates; give lower ones")
        self.cells = self.expansion.study(self.rates)
        self.proofs = self.expansion.proofs(self.rates)

    def _play(self, title: str, cells: Sequence[Cell], at_once: int, before: Sequence[Cell] = ()) -> dict[str, Any]:
        """Play the runs behind the cells. `before` are the cells of earlier parts, which may answer for some."""
        earlier = distinct(before)
        wanted = distinct([*before, *cells])
        own = {cell.key: wanted[cell.key] for cell in cells if cell.plan and cell.key not in earlier}
        known = {key: self.folder.record(cell.name) for key, cell in wanted.items()}
        known = {key: found for key, found in known.items() if found["key"] == key and found["state"] in DONE}
        with Board(title, list(cells), known, at_once, self.cost) as board:
            return play(
                own,
                self.folder,
                at_once=at_once,
                diverged_below=self.ablation.definitions.diverged_below,
                cost=self.cost,
                changed=board.changed,
            )


def write(found: Found, folder: Path, file: Path) -> Path:
    """cells.csv, study.json, TensorBoard's metrics, report/index.html and its tables. Returns the page's path."""
    from dsr.study import report

    result = analysis.study(found)
    result["file"] = str(file)
    played = [record.get("seconds") or 0 for record in found.records.values()]
    result["runs"], result["run_seconds"] = len(played), sum(played)
    write_json(folder / "study.json", result)
    rows = analysis.rows(found)
    write_csv(folder / "cells.csv", rows)
    tensorboard.write(folder, rows)
    return report.write(folder, result, rows, analysis.curves(found))


def _lock(root: Path) -> Any:
    """Hold the study's folder against a second study; held as long as the file is open."""
    root.mkdir(parents=True, exist_ok=True)
    if any(root.iterdir()) and not any((root / name).exists() for name in ("ablation.json", ".lock", "results")):
        raise UserError(f"{root} is not empty and holds no study; --run-dir must name a new folder")
    lock = (root / ".lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"{root} is in use by another dsr ablate; --run-dir goes elsewhere") from None
    return lock


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
