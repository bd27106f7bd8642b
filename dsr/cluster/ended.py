"""Why a run ended, in words for people, and the exit code that follows."""

from __future__ import annotations

import contextlib
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dsr.cluster.launchers import Launcher
    from dsr.run import Run

FINISHED, FAILED, STOPPED = 0, 1, 75  # exit codes


def reason(code: int, stop: list[int], launcher: Launcher) -> str:
    """Why a run failed whose ranks could not say it: from the launcher's exit code and the signals that came."""
    if stop:
        return f"{signal.Signals(stop[0]).name} came, and there was no time to save"
    if code < 0:
        return f"the launcher was ended by {name_of(-code)}"
    if code == 0:
        return "the launcher ended, but not every rank said that it finished"
    if special := launcher.reason(code):
        return special
    number = signal_of(code)
    if number == signal.SIGKILL:
        return "a rank was ended by SIGKILL; perhaps the memory ran out"
    return f"a rank was ended by {name_of(number)}" if number else f"a rank ended with exit code {code}"


def signal_of(code: int) -> int | None:
    """The signal that ended a rank: the code is 256 - n from DeepSpeed, and 128 + n from a shell, mpirun or srun.

    255 is no signal: programs, such as ssh, end with it when they fail.
    """
    number = 256 - code if code > 192 else code - 128
    return number if number in signal.valid_signals() and code != 255 else None


def name_of(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def conclude(run: Run, unwritten: str = "") -> int:
    """Say in one last line how the run ended, and return the exit code.

    `unwritten` is why it failed, where status.json could not be written.
    """
    if unwritten:
        say(f"failed: {unwritten}")
        return FAILED
    status = run.status()
    if status["state"] == "finished":
        say(f"finished: {status['updates']} updates, in {run.folder}")
        return FINISHED
    if status["state"] == "stopped":
        say(f"stopped: {status['reason']}; the same command with --resume goes on")
        return STOPPED
    saved = run.list_checkpoints()
    rest = f"{saved[-1].name} is saved, and --resume goes on from it" if saved else "no checkpoint was saved"
    say(f"failed: {status['reason']}; {rest}")
    return FAILED


def say(line: str) -> None:
    """Print a line to stderr, if there is still a terminal."""
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)
