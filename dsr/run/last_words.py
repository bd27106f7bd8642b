"""What ranks that ended badly left in the run's folder: a reason, or the stacks of a hang."""

from __future__ import annotations

import re
from pathlib import Path

LIMIT = "DSR_WATCHDOG"  # the variable that holds the seconds without progress after which a rank ends
STARTUP = 600.0  # seconds that the way to the first update may always take
_WAITING = ("torch/distributed/", "deepspeed/comm/", "dsr/train/reduce.py")  # where ranks wait for each other


def delay(limit: float) -> float:
    """Seconds between a rank's stack and its end: the other ranks' stacks come then too."""
    return min(limit, 20.0)


def file_of(words: Path, rank: int) -> Path:
    """Where a rank leaves its last words."""
    return words / f"rank{rank}.txt"


def is_there(words: Path) -> bool:
    """Whether some rank has left its reason, or its watchdog has left the stacks."""
    try:
        return any(file.stat().st_size for file in words.iterdir())
    except OSError:
        return False


def read(words: Path, ranks: int) -> tuple[str, str]:
    """What ranks left in `words`: the reason why one ended or who hangs, in one line, and the stacks of those."""
    texts = {rank: _text(file_of(words, rank)) for rank in range(ranks)}
    dumps = {rank: text for rank, text in texts.items() if text.startswith("Timeout (")}
    if reasons := [f"rank {rank}: {text}" for rank, text in texts.items() if text and rank not in dumps]:
        return reasons[0], ""
    if not dumps:
        return "", ""
    places = {rank: _innermost(dump) for rank, dump in dumps.items()}
    waiting = [rank for rank, place in places.items() if any(part in place for part in _WAITING)]
    silent = [f"rank {rank} left no stack (is it stopped?)" for rank in texts if rank not in dumps]
    there = [f"rank {rank} hangs in {place}" for rank, place in places.items() if rank not in waiting]
    hanging = silent + there or ["every rank waits for another"]
    more = f", and {len(hanging) - 2} more" if len(hanging) > 2 else ""
    shown = [rank for rank in places if rank not in waiting] or waiting[:1]
    stacks = [f"rank {rank}, all threads, the innermost call first:\n{dumps[rank]}" for rank in shown[:2]]
    reason = f"no progress (dsr.watchdog.minutes): {'; '.join(hanging[:2])}{more}; all stacks are in {words}"
    return reason, "\n".join(stacks)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _innermost(dump: str) -> str:
    """ "FILE:LINE (FUNCTION)" of where the main thread is: faulthandler lists it last, its innermost call first."""
    frame = re.search(r'File "(.*)", line (\d+) in (.*)', dump[dump.rfind("hread 0x") :])
    return f"{frame[1]}:{frame[2]} ({frame[3]})" if frame else "an unknown place"
