"""Rewriting a store's chunks so that they decode faster: the same values, bit for bit, in larger files."""

import json
import time
from pathlib import Path

import numpy as np

from dsr.data.fields import FAST, FAST_COMPRESSOR, Fields, chunk_name
from dsr.data.manifest import checksum, write_manifest
from dsr.data.store import Store
from dsr.errors import UserError
from dsr.files import whole_folder

SECONDS, SAMPLES = 2.0, 200  # limits of each speed measurement


def optimize(path: Path | str, output: Path | None = None) -> str:
    """Rewrite the store at `path` (a folder or a URL) in place or to `output`; return a summary of the gain.

    Readers see either the old store or the new one. The fingerprint is that of the files, so it changes: a run
    that trained on the old store resumes with --force, and with the same bits. Raises UserError if `output` exists, or
    if the store is remote and there is no `output`.
    """
    store = Store(path)
    if output is None and "://" in str(path):
        raise UserError(f"{path}: is not on this machine: say where the new store goes (-o NEW)")
    place = Path(path).resolve() if output is None else output
    if output is not None and output.exists():
        raise UserError(f"{output} exists already: give another output path, or remove it first")
    with whole_folder(place) as folder:
        _rewrite(store, folder)
        new = Store(folder)
        speeds = [f"{_samples_per_second(each):,.0f}" for each in (store, new)]
        sizes = [
            f"{sum(int(told.split()[1]) for told in each.files.sums.values()) / 1e6:,.1f}" for each in (store, new)
        ]
        if Store(path).fingerprint != store.fingerprint:
            raise UserError(f"{path}: the store has changed meanwhile: optimize it again")
    lines = [
        f"{place}: the same values, bit for bit",
        f"size {sizes[0]} -> {sizes[1]} MB",
        f"reading and decoding {speeds[0]} -> {speeds[1]} samples/s, one thread",
        f"fingerprint {store.fingerprint[:12]} -> {new.fingerprint[:12]}: training on it from the start gives the same "
        "bits, a run that used the old one resumes with --force",
    ]
    return "\n".join(lines)


def _rewrite(store: Store, folder: Path) -> None:
    fields = {field.name: field for field in (store.high, store.low)}
    sums: dict[str, str] = {}

    def write(name: str, content: bytes) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
        sums[name] = checksum(content)

    for name in store.files.sums:
        if not name.startswith(tuple(f"{field}/c/" for field in fields)):
            content = store.files.read(name)
            write(name, _with_codecs(content, name, fields) if name.endswith("zarr.json") else content)
    for field in fields.values():
        for row in range(len(field)):
            values = field[row]
            content = FAST_COMPRESSOR.encode(values)
            if FAST_COMPRESSOR.decode(content) != values.tobytes():
                raise RuntimeError(f"row {row} of {field.name} does not decode to what was encoded")
            write(chunk_name(field.name, row, len(field.shape)), content)
    write_manifest(folder, sums, {**store.files.provenance, "optimized_from": store.fingerprint})


def _with_codecs(content: bytes, name: str, fields: dict[str, Fields]) -> bytes:
    """The content of a zarr.json, with the fast codecs for the fields that it describes."""
    metadata = json.loads(content)
    told = {name.removesuffix("/zarr.json"): metadata} | (metadata.get("consolidated_metadata") or {}).get(
        "metadata", {}
    )
    for array in fields.keys() & told.keys():
        told[array]["codecs"] = [codec.to_dict() for codec in FAST]
    return json.dumps(metadata, indent=2).encode()


def _samples_per_second(store: Store) -> float:
    """Samples in random order, as in training, with a warm page cache."""
    chosen = np.random.default_rng(0).permutation(len(store.high_index))[:SAMPLES]
    count, begun = 0, 0.0
    for _ in range(2):  # the first pass warms the page cache
        count, begun = 0, time.perf_counter()
        for row in chosen.tolist():
            store.low[row], store.high[store.high_index[row]]
            count += 1
            if time.perf_counter() - begun > SECONDS:
                break
    return count / (time.perf_counter() - begun)
