"""Folders of safetensors and JSON files with checksums (checkpoints, models): written whole, verified when read."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsr.errors import UserError
from dsr.files import whole_folder, write_json

if TYPE_CHECKING:
    from torch import Tensor

    Tensors = Mapping[str, Tensor]

FORMAT = 2  # of checkpoints and models; those of format 1 had no number
SUMS = "SHA256SUMS"


class Damaged(Exception):
    """A checkpoint or model is not what was written: which file, and how it differs."""


def checkpoint_name(update: int) -> str:
    return f"update-{update:08d}"


def weights_sha256(parameters: Tensors) -> str:
    """The SHA-256 over the bytes of parameters and buffers, in the order of their names (hexadecimal)."""
    import torch

    digest = hashlib.sha256()
    for name in sorted(parameters):
        flat = parameters[name].detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def check_format(path: Path, number: Any, known: int, remedy: str) -> None:
    """Raise UserError where a file's format is not the `known` one; `remedy` is for files of older formats."""
    if number != known:
        remedy = "update dsr" if isinstance(number, int) and number > known else remedy
        raise UserError(f"{path}: of format {number}, and this dsr reads format {known}: {remedy}")


def read_checkpoint(path: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Verify and read one folder that `Run.save_checkpoint` wrote: (tensors, state). Raises Damaged."""
    tensors, texts = read(path, "state.json")
    return tensors, texts["state.json"]


def read_model(path: Path) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Any]]:
    """Verify and read one folder that `Run.save_model` wrote: (weights and buffers, arrays, description).

    Raises Damaged.
    """
    tensors, texts = read(path, "model.safetensors", "features.safetensors", "model.json")
    return tensors["model"], tensors["features"], texts["model.json"]


def write(path: Path, tensors: Mapping[str, Tensors], texts: dict[str, dict[str, Any]]) -> None:
    """Write a folder of safetensors and JSON files, whole or not at all, with SHA256SUMS as `sha256sum -c` reads it."""
    from safetensors.torch import save_file

    with whole_folder(path) as folder:
        for name, group in tensors.items():
            group = {key: tensor.detach().cpu().contiguous() for key, tensor in group.items()}
            save_file(group, folder / f"{name}.safetensors")
        for name, value in texts.items():
            write_json(folder / name, {"format": FORMAT, **value})
        sums = [f"{file_sha256(file)}  {file.name}\n" for file in sorted(folder.iterdir())]
        (folder / SUMS).write_text("".join(sums))
        for written in [*folder.iterdir(), folder]:
            _sync(written)
    _sync(path.parent)


def read(path: Path, *needed: str) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Verify and read a folder that `write` wrote: (tensors, texts).

    Raises Damaged where a file differs from its checksum, or one that is listed or `needed` is missing.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    tensors, texts = {}, {}
    file = path
    try:
        files = sorted(path.iterdir())
        for file in [path, *files]:
            if file.is_symlink() or not (file.is_file() or file == path):
                raise Damaged(f"{file} is not a plain file, and is not read")
            if file != path and file.suffix not in (".safetensors", ".json") and file.name != SUMS:
                raise Damaged(f"{file} is neither safetensors nor JSON, and nothing else is read")
        file = path / SUMS
        lines = file.read_text().splitlines()
        sums = {name: expected for expected, name in (line.split("  ", 1) for line in lines)}
        missing = [name for name in {**sums, **dict.fromkeys(needed)} if not (path / name).exists()]
        for file in files:
            if file.name == SUMS:
                continue
            if file_sha256(file) != sums.get(file.name):
                raise Damaged(f"{file} is damaged (its checksum differs)")
            if file.suffix == ".safetensors":
                tensors[file.stem] = load_file(file)
            else:
                texts[file.name] = json.loads(file.read_text())
    except (OSError, ValueError, SafetensorError) as error:
        raise Damaged(f"{file} is damaged ({error})") from None
    if missing:
        raise Damaged(f"{path} is damaged ({', '.join(missing)} missing)")
    for name, text in texts.items():
        check_format(path / name, text.pop("format", 1), FORMAT, "train it again")
    return tensors, texts


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Have the disk hold a file's bytes, or a folder's names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
