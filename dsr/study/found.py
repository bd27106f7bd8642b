"""Everything that a study ran, as its tables, pictures and words read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dsr.scaling.plan import Plan
from dsr.study.ablation import SEQUENTIAL, Ablation
from dsr.study.cells import Cell, Choice

Record = dict[str, Any]


@dataclass(frozen=True)
class Found:
    """The study's cells, the candidates of every tuned rate, the proofs, and the records by key."""

    ablation: Ablation
    cells: list[Cell]
    tuning: dict[Choice, list[Cell]]
    rates: dict[Choice, float]
    proofs: list[tuple[Cell, Cell]]
    records: dict[str, Record]

    def record(self, cell: Cell) -> Record:
        return self.records.get(cell.key, {"state": "failed", "reason": "not run"}) if cell.plan else {"state": ""}

    def plan(self, cell: Cell) -> Plan | None:
        """The plan that was played: in mode auto the one that its probe chose."""
        chosen = self.record(cell).get("plan") if cell.mode == "auto" else None
        return Plan(**chosen) if chosen else cell.plan

    def name(self, cell: Cell) -> str:
        """The folder of the run that answers for the cell."""
        first = next((c for cells in self.tuning.values() for c in cells if c.key == cell.key), None)
        return (first or next(c for c in self.cells if c.plan and c.key == cell.key)).name

    def groups(self) -> list[list[Cell]]:
        """The cells of one (data, arm, budget, gpus) together: its seeds."""
        grouped: dict[Choice, list[Cell]] = {}
        for cell in self.cells:
            grouped.setdefault(cell.choice, []).append(cell)
        return list(grouped.values())

    def sequential(self, data: str) -> list[Cell]:
        return [cell for cell in self.cells if cell.data == data and cell.arm == SEQUENTIAL]

    def skills(self, cells: list[Cell]) -> list[float]:
        """The test skill of the runs that converged."""
        records = map(self.record, cells)
        return [record["test"]["skill"] for record in records if record["state"] == "finished"]
