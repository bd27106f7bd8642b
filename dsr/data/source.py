"""The files of a folder at a URL, with retries while the server does not answer."""

import os
import random
import sys
import time
from collections.abc import Iterator
from typing import Any

from dsr.errors import UserError, first_line
from dsr.urls import without_credentials

PATIENCE = 60.0  # seconds for one file
PAUSES = 0.25, 8.0  # seconds between two tries: at first, and at most
AGAIN = 408, 425, 429  # of HTTP, besides 500 and more
BROKEN = {
    "builtins.ConnectionError",
    "builtins.TimeoutError",
    "aiohttp.client_exceptions.ClientConnectionError",
    "aiohttp.client_exceptions.ClientPayloadError",
    "botocore.exceptions.ConnectionError",
    "botocore.exceptions.HTTPClientError",
    "botocore.exceptions.IncompleteReadError",
}


class Source:
    """A folder that fsspec reads. Safe in threads and after a fork. Raises UserError if fsspec knows no such URL."""

    def __init__(self, url: str):
        self.url = url
        self.told = False  # the user, that the server does not answer
        self.opened: tuple[int, Any, str] = (0, None, "")
        try:
            self._open()
        except (ValueError, ImportError) as error:
            raise UserError(f"{url}: {first_line(error)}") from None

    def get(self, name: str) -> bytes | None:
        """A file's bytes, or None if the server says that the file does not exist.

        Failed connections, timeouts, incomplete answers, rate limits and server errors are retried for PATIENCE seconds
        in total. Raises OSError after that, and at once for any other error.
        """
        deadline, pause = time.monotonic() + PATIENCE, PAUSES[0]
        while True:
            try:
                content = self._ask(name, deadline - time.monotonic())
            except FileNotFoundError:
                content = None
            except Exception as error:
                why = without_credentials(first_line(error)) or type(error).__name__
                place = f"{without_credentials(self.url)}: {name}"
                if not _passes(error):
                    raise OSError(f"{place} cannot be read ({why})") from None
                if time.monotonic() + pause > deadline:
                    raise OSError(f"{place}: the source does not answer, for {PATIENCE:g} s ({why})") from None
                if not self.told:
                    self.told = True
                    print(f"{place}: the source does not answer ({why}); trying again", file=sys.stderr, flush=True)
                time.sleep(pause * random.Random().uniform(0.5, 1))  # so that ranks do not retry all at once
                pause = min(2 * pause, PAUSES[1])
                continue
            self.told = False
            return content

    def _ask(self, name: str, seconds: float) -> bytes:
        system, root = self._open()
        limit = {"timeout": max(seconds, 1.0)} if system.async_impl else {}
        return system.cat_file(f"{root.rstrip('/')}/{name}", **limit)

    def _open(self) -> tuple[Any, str]:
        from fsspec.core import url_to_fs

        if self.opened[0] != os.getpid():  # connections and threads do not survive a fork
            self.opened = os.getpid(), *url_to_fs(self.url)
        return self.opened[1:]


def _passes(error: BaseException) -> bool:
    """Whether a retry may succeed."""
    return any(status in AGAIN or status >= 500 for status in _statuses(error)) or not BROKEN.isdisjoint(
        f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__
    )


def _statuses(error: BaseException | None) -> Iterator[int]:
    """The HTTP status codes of an error and its causes, as aiohttp, gcsfs and botocore store them."""
    while error is not None:
        answer = getattr(error, "response", None)
        metadata = answer.get("ResponseMetadata", {}) if isinstance(answer, dict) else {}
        status = getattr(error, "status", None) or metadata.get("HTTPStatusCode") or getattr(error, "code", None)
        if isinstance(status, int):
            yield status
        error = error.__cause__
