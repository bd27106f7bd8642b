"""The exceptions that mean: what the user gave is wrong (exit code 2)."""


class UserError(Exception):
    """What the user gave is wrong. The message is one or two lines: what, where, and what would be right.

    It is kept without the credentials of the URLs in it.
    """

    def __init__(self, message: str):
        if "://" in message:
            from dsr.urls import without_credentials

            message = without_credentials(message)
        super().__init__(message)


class Missing(UserError):
    """A store or a file that is not where it was expected."""

    def with_origin(self, origin: str | None) -> "Missing":
        """The same, with a second line that says where the data are to be had, if anyone has said so."""
        return Missing(f"{self}\nwhere to get it: {origin}") if origin else self


def first_line(error: BaseException) -> str:
    """What an exception says, on one line."""
    return (str(error) or type(error).__name__).splitlines()[0]
