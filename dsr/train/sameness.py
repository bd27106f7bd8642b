"""Before the first update the ranks compare what would change a run's bits, among themselves."""

import json
import platform
from collections import Counter
from collections.abc import Iterable

import torch

from dsr import components
from dsr.run.provenance import ARITHMETIC, processor, sources, version
from dsr.train import engine


class Unlike(RuntimeError):
    """The ranks have not the same code, data or devices; every rank raises it alike."""


def compare(fingerprint: str, exact: bool, device: torch.device, packages: Iterable[str]) -> None:
    """Raise Unlike, naming rank, host and what differs, unless all ranks agree; every rank must call it.

    `fingerprint` is that of the store as this rank reads it, `packages` are those outside dsr that components come
    from. Devices and threads count only where the run is `exact`.
    """
    own = {
        "dsr's own code": sources(),
        **{f"the code of {package}": components.source(package)["sha256"] for package in packages},
        "python": platform.python_version(),
        **{name: version(name) for name in ARITHMETIC},
        "the store's content": fingerprint,
    }
    if exact and device.type == "cuda":
        own["the GPU"] = torch.cuda.get_device_name(device)
    elif exact:
        own |= {"the processor": processor(), "threads": str(torch.get_num_threads())}
    told = [json.loads(mark) for mark in engine.gather_marks(json.dumps([platform.node(), own]))]
    if differing := differences(told):
        raise Unlike(differing)


def differences(told: list[tuple[str, dict[str, str]]]) -> str:
    """One line on the ranks that are not as most are, from each rank's host and description; "" where all are alike."""
    found = []
    for what in told[0][1]:
        values = [own[what] for _, own in told]
        usual = Counter(values).most_common(1)[0][0]  # of equally many, rank 0's
        odd = [rank for rank, value in enumerate(values) if value != usual]
        if odd:
            more = f" and {len(odd) - 1} more" if odd[1:] else ""
            one, like = odd[0], values.index(usual)
            where, there = (f"rank {rank} on {told[rank][0]}" for rank in (one, like))
            found.append(f"{where}{more}: {what} ({_short(values[one])}) is not as on {there} ({_short(usual)})")
    return f"the ranks would not train the same: {'; '.join(found)}" if found else ""


def _short(value: str | None) -> str:
    """A hash by its first digits."""
    return value[:12] if value and len(value) == 64 else str(value)
