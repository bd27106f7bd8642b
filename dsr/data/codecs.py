"""No Zarr array is decoded with pickle, whatever its metadata say: that would execute code from a file.

The registry of numcodecs contains pickle. It belongs to the whole process, so it is left alone, and metadata are
checked instead.
"""

import json
from collections.abc import AsyncGenerator, Iterable
from typing import Any

from zarr.storage import WrapperStore

from dsr.errors import UserError

METADATA = ("zarr.json", ".zarray", ".zmetadata")
PICKLE = ("pickle", "numcodecs.pickle")
CODECS = ("codecs", "index_codecs", "filters", "compressor", "compressors")


def refuse_pickle(path: Any, key: str, content: bytes) -> None:
    """Raise UserError if a file of a Zarr group holds metadata that name pickle as a codec."""
    if not key.endswith(METADATA) or b"pickle" not in content:
        return
    try:
        metadata = json.loads(content)
    except ValueError:
        return  # Zarr reports it
    if _names_pickle(metadata, is_codec=False):
        raise UserError(f"{path}: {key} names pickle as a codec, which would execute code from the file")


def _names_pickle(value: Any, *, is_codec: bool) -> bool:
    """Whether pickle is named in a JSON value, or in the codecs within it."""
    if isinstance(value, list):
        return any(_names_pickle(item, is_codec=is_codec) for item in value)
    if not isinstance(value, dict):
        return is_codec and value in PICKLE
    named = is_codec and (value.get("name") in PICKLE or value.get("id") in PICKLE)
    return named or any(_names_pickle(item, is_codec=key in CODECS) for key, item in value.items())


class NoPickle(WrapperStore[Any]):
    """A wrapper around a Zarr store that checks metadata when they are read. Raises UserError (see `refuse_pickle`)."""

    def __init__(self, store: Any, path: str = ""):
        super().__init__(store)
        self.path = path

    def _with_store(self, store: Any) -> "NoPickle":
        return NoPickle(store, self.path)

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        content = await self._store.get(key, prototype, byte_range)
        if content is not None:
            refuse_pickle(self.path, key, content.to_bytes() if key.endswith(METADATA) else b"")
        return content

    async def _get_many(self, requests: Iterable[tuple[str, Any, Any]]) -> AsyncGenerator[tuple[str, Any], None]:
        for request in requests:
            yield request[0], await self.get(*request)
