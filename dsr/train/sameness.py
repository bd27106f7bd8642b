"""Before the first update the ranks check that they agree in everything that could change the run's bits."""

import json
import platform
from collections import Counter
from collections.abc import Iterable

import torch

from dsr import components
from dsr.run.provenance import ARITHMETIC, processor, sources, version
from dsr.train import engine


class Unlike(RuntimeError):
    """The ranks differ in code, data or devices. Every rank raises it."""


def compare(fingerprint: str, exact: bool, device: torch.device, packages: Iterable[str]) -> None:
    """Raise Unlike, naming rank, host and what differs, unless all ranks agree; every rank must call it.

    `fingerprint` is that of the store as this rank reads it, `packages` are those outside dsr that components come
    from. Devices and threads count only where the run is `exact`.
    """
    mine = {
        "dsr's own code": sources(),
        **{f"the code of {package}": components.source(package)["sha256"] for package in packages},
        "python": platform.python_version(),
        **{name: version(name) for name in ARITHMETIC},
        "the store's content": fingerprint,
    }
    if exact and device.type == "cuda":
        mine["the GPU"] = torch.cuda.get_device_name(device)
    elif exact:
        mine |= {"the processor": processor(), "threads": str(torch.get_num_threads())}
    marks = engine.gather_marks(json.dumps([platform.node(), mine]))
    if differing := differences([json.loads(mark) for mark in marks]):
        raise Unlike(differing)


def differences(ranks: list[tuple[str, dict[str, str]]]) -> str:
    """One line on the ranks that differ from the majority, from each rank's host and description; "" if none does."""
    lines = []
    for what in ranks[0][1]:
        values = [description[what] for _, description in ranks]
        usual = Counter(values).most_common(1)[0][0]  # in a tie, rank 0's
        odd = [rank for rank, value in enumerate(values) if value != usual]
        if odd:
            more = f" and {len(odd) - 1} more" if odd[1:] else ""
            one, like = odd[0], values.index(usual)
            where, there = (f"rank {rank} on {ranks[rank][0]}" for rank in (one, like))
            lines.append(f"{where}{more}: {what} ({_short(values[one])}) is not as on {there} ({_short(usual)})")
    return f"the ranks would not train the same: {'; '.join(lines)}" if lines else ""


def _short(value: str | None) -> str:
    """A value, of a hash the first digits only."""
    return value[:12] if value and len(value) == 64 else str(value)
