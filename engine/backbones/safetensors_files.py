"""Reads safetensors files that may be damaged or hostile: their header is checked before memory is taken for them.

A file is 8 bytes that say how long the header is, the header in JSON, and the bytes of all tensors one after another.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated

import safetensors.torch
import torch
from pydantic import Field, TypeAdapter
from torch import Tensor
from typing_extensions import TypedDict

from engine.errors import InputError
from engine.reading import checked, first_line, open_regular, parse_json, without_version

HEADER_BYTES = 16 * 2**20
"""The longest header that is read: room for 100,000 tensors with long names."""

EXPORT_VERSION = 1
"""What the metadata of an exported network mean; see `engine.reading.without_version`."""

EXPORT_VERSION_NAME = "export_version"
"""Metadata that hold it: a name of our own, because files of others have a ``version``, too."""

OUTPUT_NAME = "output"
"""Metadata that say what an exported network gives."""

OUTPUT_OF_EXTRACTOR = "features, float32 [B, D]"
"""How they begin where the classifier was left out."""

_LENGTH_BYTES = 8
_METADATA = "__metadata__"
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}

_Size = Annotated[int, Field(strict=True, ge=0, lt=2**63)]


class _Entry(TypedDict):
    dtype: str
    shape: Annotated[list[_Size], Field(max_length=64)]
    data_offsets: tuple[_Size, _Size]


_ENTRIES = TypeAdapter(dict[str, _Entry])
_TEXTS = TypeAdapter(dict[str, str])


@dataclass(frozen=True)
class Header:
    """What a file says of its tensors.

    Attributes:
        tensors: of the dtypes and shapes in the file, by name, on the device ``meta``: without memory.
        metadata: texts by name.
    """

    tensors: dict[str, Tensor]
    metadata: dict[str, str]


def parse_tensors(content: bytes, place: Path | str, error: type[InputError]) -> dict[str, Tensor]:
    """Return the tensors of a file by name, on the CPU.

    Args:
        content: the whole file.
        place: where it comes from, for the message.
        error: what is raised.

    Raises:
        InputError: of the class `error`: it is no safetensors file, or its header contradicts its size.
    """
    _check(content[:_LENGTH_BYTES], content[_LENGTH_BYTES : _LENGTH_BYTES + HEADER_BYTES], len(content), place, error)
    with _naming(place, error):
        return safetensors.torch.load(content)


def refuse_newer_export(header: Header, place: str, error: type[InputError]) -> None:
    """Refuse a file that a newer engine has exported; files of others, and earlier exports, name no version.

    Raises:
        VersionError: a newer engine has written it.
        InputError: of the class `error`: the version is no whole number.
    """
    text = header.metadata.get(EXPORT_VERSION_NAME)
    if text is not None:
        found = parse_json(text, f"{place}, {EXPORT_VERSION_NAME}", error)
        without_version({"version": found}, EXPORT_VERSION, place, error)


def read_header(path: Path, error: type[InputError]) -> Header:
    """Return what a file says of its tensors, without reading them; as `parse_tensors`."""
    with open_regular(path, error) as file:
        return _header(file, path, error)


def read_tensors(path: Path, error: type[InputError]) -> dict[str, Tensor]:
    """Return the tensors of a file by name, on the CPU; as `parse_tensors`."""
    with open_regular(path, error) as file:
        _header(file, path, error)
        file.seek(0)
        content = file.read()
    return parse_tensors(content, path, error)


def _header(file: IO[bytes], path: Path, error: type[InputError]) -> Header:
    size = os.fstat(file.fileno()).st_size
    length = file.read(_LENGTH_BYTES)
    return _check(length, file.read(min(int.from_bytes(length, "little"), HEADER_BYTES)), size, path, error)


def _check(length: bytes, start: bytes, size: int, place: Path | str, error: type[InputError]) -> Header:
    """Return the header of a file of `size` bytes; `start` is what follows the length, at least the whole header."""
    stated = int.from_bytes(length, "little")
    rest = size - _LENGTH_BYTES - stated
    if len(length) < _LENGTH_BYTES or stated < 2 or stated > HEADER_BYTES or rest < 0:
        raise error(
            f"{place}: is no safetensors file: of its {size:,} bytes {stated:,} would be the header; expected 2 to "
            f"{min(HEADER_BYTES, max(size - _LENGTH_BYTES, 2)):,}"
        )
    values = parse_json(start[:stated], place, error)
    metadata = checked(values.pop(_METADATA, {}) if isinstance(values, dict) else {}, _TEXTS, place, error)
    entries = checked(values, _ENTRIES, place, error)
    with _naming(place, error):
        return Header(_promised(entries, rest), metadata)


def _promised(entries: dict[str, _Entry], size: int) -> dict[str, Tensor]:
    """Return the tensors that entries describe; ValueError says which of them does not fit into `size` bytes."""
    found, end = {}, 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1]["data_offsets"]):
        first, last = entry["data_offsets"]
        dtype = _DTYPES.get(entry["dtype"])
        if dtype is None:
            raise ValueError(f"{name} is of dtype {entry['dtype']}; expected one of {', '.join(_DTYPES)}")
        expected = math.prod(entry["shape"]) * dtype.itemsize
        if first != end or last - first != expected or last > size:
            raise ValueError(
                f"{name} of shape {entry['shape']} and dtype {entry['dtype']} lies at bytes {first:,} to {last:,} of "
                f"{size:,}; expected {expected:,} bytes from {end:,} on"
            )
        found[name], end = torch.empty(entry["shape"], dtype=dtype, device="meta"), last
    if end != size:
        raise ValueError(f"its tensors end at byte {end:,} of {size:,}")
    return found


@contextmanager
def _naming(place: Path | str, error: type[InputError]) -> Iterator[None]:
    try:
        yield
    except (safetensors.SafetensorError, ValueError, RuntimeError, KeyError, TypeError, MemoryError) as cause:
        raise error(f"{place}: is damaged: {first_line(cause)}") from cause
