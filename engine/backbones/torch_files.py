"""Reads torch's own files of weights, .pth and .pt, that may be damaged or hostile: tensors only, within bounds."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from engine.errors import InputError
from engine.reading import first_line, open_regular

_ZIP = b"PK\x03\x04"
_SHOWN = 3


def read_torch_file(path: Path, error: type[InputError], limit: int) -> dict[str, Tensor]:
    """Return the tensors of a file by name, on the CPU.

    Args:
        path: the file.
        error: what is raised.
        limit: the largest file that is read, in bytes.

    Raises:
        InputError: of the class `error`: it is larger than the limit, holds code or anything but tensors by name, is
            compressed, or cannot be read.
    """
    with open_regular(path, error) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise error(
                f"{path}: has {size:,} bytes, expected at most {limit:,} for this network; save its weights alone, or "
                "as .safetensors, of which only what fits is read"
            )
        try:
            if file.read(len(_ZIP)) == _ZIP:
                _check_archive(file, size)
            file.seek(0)
            # weights_only: an unrestricted pickle could run any code.
            state = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as cause:  # Whatever an unpickler meets in a file that somebody else has made.
            raise error(f"{path}: is damaged: {type(cause).__name__}: {first_line(cause)}") from cause
    return _checked(state, path, error)


def _check_archive(file: IO[bytes], size: int) -> None:
    """Refuse an archive that is larger unpacked than it is; torch writes none."""
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
    packed = next((entry.filename for entry in entries if entry.compress_type != zipfile.ZIP_STORED), None)
    if packed is not None:
        raise ValueError(f"{packed} in it is compressed, which torch.save never does")
    total = sum(entry.file_size for entry in entries)
    if total > size:
        raise ValueError(f"it would hold {total:,} bytes in a file of {size:,}")


def _checked(state: object, path: Path, error: type[InputError]) -> dict[str, Tensor]:
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        found = type(state).__name__
        if isinstance(state, dict):
            found = f"a dict of {', '.join(first_line(ValueError(key)) for key in list(state)[:_SHOWN])}"
        raise error(
            f"{path}: found {found}. Expected a flat dict from names to tensors: save the inner state dict alone."
        )
    for name, tensor in state.items():
        plain = tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
        if not isinstance(name, str) or not plain or tensor.is_complex() or tensor.is_nested:
            raise error(
                f"{path}: found {first_line(ValueError(name))!r}, {tensor.dtype} with layout {tensor.layout} on "
                f"{tensor.device}. Expected names, and dense real tensors: save the state dict of a plain module."
            )
    return {name: tensor.detach() for name, tensor in state.items()}
