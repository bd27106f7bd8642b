"""The one exception that means: what the user gave is wrong (exit code 2)."""


class UserError(Exception):
    """What the user gave is wrong. The message is one or two lines: what, where, and what would be right."""
