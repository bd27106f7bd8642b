"""`dsr ablate`: check every cell, tune the rates, run the study and its proofs, write tables and report."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from dsr.cluster.ended import FAILED, FINISHED, STOPPED, say
from dsr.config import read_json
from dsr.errors import UserError
from dsr.files import take_lock, write_csv, write_json
from dsr.study import ablation as files
from dsr.study import slurm, tables
from dsr.study.ablation import SEQUENTIAL
from dsr.study.analysis import analyse
from dsr.study.cells import Cell, Expansion, Place, choose, distinct
from dsr.study.processes import Folder, Stopped, run_all
from dsr.study.progress import Estimate, ProgressTable, duration
from dsr.study.results import Result, Results

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
    """Run everything that an ablation file asks for, `jobs` at once (0: one per core), and write tables and report.

    The same command continues a study that was interrupted: no finished run is run again. With `cell` it runs only that
    cell, as a task of the Slurm array that `submit` writes. Returns the exit code: 0 all runs ended, 1 some run failed,
    75 stopped. Raises UserError before anything starts, for whatever is wrong in any cell.
    """
    ablation, base = files.read(file, quick=quick)
    ablation, missing = files.present(ablation)
    folder = run_dir or Path("runs", file.stem + ("-quick" if quick else ""))
    session = Session(Expansion(ablation, base), folder, missing)
    if cell is None:
        for name, error in missing.items():
            say(f"data {name} is left out: {error}")
        say(session.describe(jobs or _cores()))
    if submit:
        if not dry_run:
            session.begin()
        return slurm.submit(file, session.folder.root, quick, len(session.numbered[0]), len(session.numbered[1]),
                            dry_run=dry_run, ranks=max(ablation.proof.gpus) if ablation.proof else 1)  # fmt: skip
    if dry_run:
        tuned, studied = session.numbered
        names = [c.name for c in tuned] + [c.name.replace(f"rate{c.rate:g}", "rate-tuned") for c in studied]
        print("\n".join(f"{number:4}  {name}" for number, name in enumerate(names, 1)))
        return FINISHED
    try:
        if cell is not None:
            return session.one(cell)
        with _lock(session.folder.root):
            return session.all(jobs or _cores(), file)
    except NoRate as error:
        say(str(error))
        return FAILED
    except Stopped as stopped:
        say(f"stopped by {stopped}: the same command continues the study")
        return STOPPED


class NoRate(Exception):
    """No rate could be chosen, so the study cannot be run: what is missing."""


class Session:
    """A study under way: its runs in their order, and the rates chosen so far."""

    def __init__(self, expansion: Expansion, folder: Path, missing: Iterable[str] = ()):
        self.expansion, self.ablation, self.folder = expansion, expansion.ablation, Folder(folder)
        self.missing = missing  # the data sets that are left out
        self.cost = Estimate().seconds
        self.tuning = expansion.tuning()
        self.rates: dict[Place, float] = {place: cells[0].rate for place, cells in self.tuning.items()}  # for now
        self.cells = expansion.study(self.rates)
        self.proofs = expansion.proofs(self.rates)
        tuned = [cell for cells in self.tuning.values() for cell in cells]
        first = distinct([*tuned, *self.cells]).values()
        if len({cell.name for cell in first}) < len(first):
            raise UserError("two runs would have one folder: rename a data set or an arm, whose names run together")
        self.numbered = tuned, [cell for cell in self.cells if cell.plan]  # as the Slurm array counts them, from 1

    def describe(self, at_once: int) -> str:
        """How many runs there are, how long they will take, and which cells are impossible."""
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
            lines.append(f"{shared} more cells are the same computation as one of these, and share its run")
        for cell in self.cells:
            if not cell.plan:
                lines.append(
                    f"impossible: {cell.data}, {cell.arm} at {cell.gpus} GPUs, equal {cell.budget}: {cell.reason}"
                )
        return "\n".join(lines)

    def all(self, at_once: int, file: Path) -> int:
        """Run everything that is left, and write tables and report."""
        self.begin()
        by_key = self._run(TUNING, self.numbered[0], at_once)
        self._choose(by_key)
        by_key |= self._run(STUDY, self.cells, at_once, before=self.numbered[0])
        pairs = list(itertools.chain(*self.proofs))
        by_key |= self._run(PROOFS, pairs, 1, before=[*self.numbered[0], *self.cells])
        results = Results(self.ablation, self.cells, self.tuning, self.rates, self.proofs, by_key)
        page = write(results, self.folder.root, file)
        failed = [result for result in by_key.values() if not result.done]
        if failed:
            say(f"{len(failed)} runs failed, the first: {failed[0].reason}; the same command tries them again")
        say(f"report: {page}")
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
        """Run one cell of the array, unless it is the same as an earlier one."""
        self._check_begun()
        everything = list(itertools.chain(*self.numbered))
        if not 1 <= number <= len(everything):
            raise UserError(f"--cell {number}: there are cells 1 to {len(everything)}")
        if number > len(self.numbered[0]):
            self._choose({cell.key: self.folder.result(cell.name) for cell in distinct(self.numbered[0]).values()})
            everything = [*self.numbered[0], *(cell for cell in self.cells if cell.plan)]
        cell = everything[number - 1]
        first = distinct(everything)[cell.key]
        if first is not cell:
            say(f"{cell.name} is the same computation as {first.name}")
            return FINISHED
        self.cost = lambda cell: float(cell.slots)  # nobody waits for an estimate
        return FINISHED if self._run(cell.name, [cell], 1)[cell.key].done else FAILED

    def _choose(self, by_key: dict[str, Result]) -> None:
        """Choose the rates on validation data, and plan the study's cells with them."""
        scores = {key: result.score() for key, result in by_key.items() if result.done}
        for place, cells in self.tuning.items():
            if missing := [cell.name for cell in cells if cell.key not in scores]:
                raise NoRate(f"{self.folder.log(missing[0])}: this run has no result, and a rate depends on it")
            self.rates[place] = choose(cells, scores)
            if place.arm == SEQUENTIAL and all(scores[cell.key] == float("inf") for cell in cells):
                raise NoRate(
                    f"data {place.data}: the sequential run diverges at every rate of tune.rates; give lower ones"
                )
        self.cells = self.expansion.study(self.rates)
        self.proofs = self.expansion.proofs(self.rates)

    def _run(self, title: str, cells: Sequence[Cell], at_once: int, before: Sequence[Cell] = ()) -> dict[str, Result]:
        """Run the cells, except those whose run is that of a cell of an earlier part, `before`."""
        earlier = distinct(before)
        wanted = distinct([*before, *cells])
        new = {cell.key: wanted[cell.key] for cell in cells if cell.plan and cell.key not in earlier}
        known = {key: self.folder.result(cell.name) for key, cell in wanted.items()}
        known = {key: result for key, result in known.items() if result.key == key and result.done}
        with ProgressTable(title, list(cells), known, at_once, self.cost) as board:
            return run_all(
                new,
                self.folder,
                at_once=at_once,
                diverged_below=self.ablation.definitions.diverged_below,
                cost=self.cost,
                changed=board.changed,
            )


def write(results: Results, folder: Path, file: Path) -> Path:
    """cells.csv, study.json, TensorBoard's metrics, report/index.html and its tables. Returns the page's path."""
    from dsr.report import study as report

    study = analyse(results, file)
    write_json(folder / "study.json", study.to_json())
    rows = tables.cell_rows(results)
    write_csv(folder / "cells.csv", rows)
    tables.write_tensorboard(folder, rows)
    return report.write(folder, study, rows, tables.curve_rows(results))


def _lock(root: Path) -> Any:
    """Hold the study's folder against a second study; held as long as the file is open."""
    root.mkdir(parents=True, exist_ok=True)
    if any(root.iterdir()) and not any((root / name).exists() for name in ("ablation.json", ".lock", "results")):
        raise UserError(f"{root} is not empty and holds no study; --run-dir must name a new folder")
    lock = (root / ".lock").open("w")
    if not take_lock(lock.fileno(), patience=0):
        raise UserError(f"{root} is in use by another dsr ablate; --run-dir goes elsewhere")
    return lock


def _cores() -> int:
    return len(os.sched_getaffinity(0))
