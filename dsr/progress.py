"""The progress bar of everything that takes long: on stderr, with the time left, silent where nobody looks."""

from typing import Any


def bar() -> Any:
    """A rich Progress with description, bar, count and time left; off where stderr is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # not console.is_terminal: FORCE_COLOR makes it true, and a notebook sets that for all that it starts
    return Progress(*columns, console=console, disable=not console.file.isatty())
