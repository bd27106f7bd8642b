"""A run's folder: the only room that knows its layout. `Run` names its files; the other modules lock and fill it."""

from dsr.run.folder import Run

__all__ = ["Run"]
