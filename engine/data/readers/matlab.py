"""Reader of arrays of numbers in MATLAB files (level 5), in bounded memory.

The format is a list of elements, each a type and a size. An array is an element of elements (its class, its
dimensions, its name, its values), usually compressed. Nothing is believed before it is compared with what is there:
the sizes with the file, the number of values with the dimensions, and the whole with the checksum of its compression.
"""

from __future__ import annotations

import math
import os
import stat
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Protocol

import numpy as np

_HEADER_BYTES = 128
_MATRIX, _COMPRESSED = 14, 15
_INT32, _UINT32 = 5, 6
_NAME_TYPES = (1, 16)
_STORED_AS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_NUMERIC_CLASSES = range(6, 16)
_COMPLEX = 0x0800
_MOST_ELEMENTS = 64
_MOST_DIMENSIONS = 8
_MOST_NAME_BYTES = 64
_READ_AT_ONCE = 1 << 20


class MatlabError(Exception):
    """A file is not what its format says."""


class _Bytes(Protocol):
    def take(self, number: int) -> bytes | bytearray:
        """Return the next bytes, exactly so many. Raises MatlabError."""
        ...

    def finish(self) -> None:
        """Check what follows the values. Raises MatlabError."""
        ...


def read_arrays(path: Path, limits: dict[str, int]) -> dict[str, np.ndarray]:
    """Return arrays of numbers by name, in the types that they are stored in.

    Args:
        path: the file.
        limits: the names of the arrays that are wanted, and the largest size of each, in bytes.

    Raises:
        MatlabError: the file is cut off, damaged, of another format, or holds more than the limits allow.
        OSError: it cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode):
            raise MatlabError("it is no regular file")
        order = _byte_order(file.read(_HEADER_BYTES))
        found: dict[str, np.ndarray] = {}
        for kind, size in _elements(file, order, state.st_size):
            source: _Bytes = _Plain(file, size)
            if kind == _COMPRESSED:
                source = _Inflated(file, size)
                kind, size = struct.unpack(f"{order}II", source.take(8))
            if kind != _MATRIX:
                raise MatlabError(f"it holds a compressed element of type {kind}, expected arrays")
            named = _read_array(source, order, limits)
            if named is not None:
                name, values = named
                if name in found:
                    raise MatlabError(f"it holds two arrays called {name}")
                found[name] = values
    return found


def _byte_order(header: bytes) -> str:
    if len(header) < _HEADER_BYTES:
        raise MatlabError("it is shorter than a header")
    order = {b"IM": "<", b"MI": ">"}.get(header[126:128])
    if header.startswith(b"MATLAB 7.3"):
        raise MatlabError("it was written by MATLAB 7.3 in another format, expected level 5")
    if order is None or struct.unpack(f"{order}H", header[124:126])[0] != 0x0100:
        raise MatlabError("it does not begin as a MATLAB file of level 5 does")
    return order


def _elements(file: IO[bytes], order: str, total: int) -> Iterator[tuple[int, int]]:
    """Yield type and size of each element of the file, which then stands behind its tag."""
    place = _HEADER_BYTES
    for _ in range(_MOST_ELEMENTS):
        if place >= total:
            return
        file.seek(place)
        tag = file.read(8)
        if len(tag) < 8:
            raise MatlabError("it ends inside an element")
        kind, size = struct.unpack(f"{order}II", tag)
        if kind not in (_MATRIX, _COMPRESSED):
            raise MatlabError(f"it holds an element of type {kind}, expected arrays")
        if place + 8 + size > total:
            raise MatlabError(f"it ends {place + 8 + size - total:,} bytes too early")
        yield kind, size
        # Compressed elements are not padded; others are, to multiples of 8 bytes.
        place += 8 + (size if kind == _COMPRESSED else _padded(size))
    raise MatlabError(f"it holds more than {_MOST_ELEMENTS} arrays")


def _padded(size: int) -> int:
    return -(-size // 8) * 8


class _Plain:
    """The bytes of one element as they are."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self._left = file, size

    def take(self, number: int) -> bytes:
        if number > self._left:
            raise MatlabError("an array is longer than its element")
        self._left -= number
        content = self._file.read(number)
        if len(content) < number:
            raise MatlabError("it has just become shorter")
        return content

    def finish(self) -> None:
        if self._left >= 8:
            raise MatlabError("an array is shorter than its element")


class _Inflated:
    """The bytes of one compressed element; no more of them are made than are taken."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self._left = file, size
        self._inflater = zlib.decompressobj()

    def take(self, number: int) -> bytearray:
        content = self._up_to(number)
        if len(content) < number:
            raise MatlabError("an array is longer than its element")
        return content

    def finish(self) -> None:
        # The checksum is compared when the end is reached, behind less than 8 bytes of padding.
        if len(self._up_to(8)) >= 8 or not self._inflater.eof:
            raise MatlabError("an array is shorter than its element, or its checksum is missing")

    def _up_to(self, number: int) -> bytearray:
        content = bytearray()
        while len(content) < number and not self._inflater.eof:
            packed = self._inflater.unconsumed_tail
            if not packed:
                packed = self._file.read(min(_READ_AT_ONCE, self._left))
                self._left -= len(packed)
            made = self._inflate(packed, min(_READ_AT_ONCE, number - len(content)))
            if not made and not packed and not self._inflater.eof:
                break
            content += made
        return content

    def _inflate(self, packed: bytes, most: int) -> bytes:
        try:
            return self._inflater.decompress(packed, most)
        except zlib.error as error:
            raise MatlabError(f"its compressed bytes are damaged ({error})") from error


def _read_array(source: _Bytes, order: str, limits: dict[str, int]) -> tuple[str, np.ndarray] | None:
    """Return name and values of an array, in MATLAB's order of its axes; None for one that is not wanted."""
    kind, content = _small(source, order, 8)
    if kind != _UINT32 or len(content) != 8:
        raise MatlabError("an array does not begin with its class")
    flags = struct.unpack(f"{order}II", content)[0]
    kind, content = _small(source, order, 4 * _MOST_DIMENSIONS)
    if kind != _INT32 or len(content) % 4:
        raise MatlabError("an array has no dimensions")
    dimensions = struct.unpack(f"{order}{len(content) // 4}i", content)
    kind, content = _small(source, order, _MOST_NAME_BYTES)
    if kind not in _NAME_TYPES:
        raise MatlabError("an array has no name")
    name = content.decode("ascii", "backslashreplace")
    if name not in limits:
        return None
    if flags & 0xFF not in _NUMERIC_CLASSES or flags & _COMPLEX or min(dimensions, default=-1) < 0:
        raise MatlabError(f"{name} is no array of real numbers (class {flags & 0xFF}, dimensions {dimensions})")
    kind, size, inside = _tag(source, order)
    if kind not in _STORED_AS:
        raise MatlabError(f"the values of {name} are of the unknown type {kind}")
    dtype = np.dtype(order + _STORED_AS[kind])
    if size != math.prod(dimensions) * dtype.itemsize:
        raise MatlabError(f"{name} has {size:,} bytes of {dtype.name} for the dimensions {dimensions}")
    if size > limits[name]:
        raise MatlabError(f"{name} has {size:,} bytes, expected at most {limits[name]:,}")
    values = inside[:size] if inside is not None else source.take(size)
    source.finish()
    return name, np.frombuffer(values, dtype=dtype).reshape(dimensions, order="F")


def _tag(source: _Bytes, order: str) -> tuple[int, int, bytes | None]:
    """Return type, size and, for the short form, the four bytes that are inside the tag itself."""
    tag = bytes(source.take(8))
    kind, size = struct.unpack(f"{order}II", tag)
    if kind >> 16:
        if kind >> 16 > 4:
            raise MatlabError("a short element is longer than 4 bytes")
        return kind & 0xFFFF, kind >> 16, tag[4:]
    return kind, size, None


def _small(source: _Bytes, order: str, most: int) -> tuple[int, bytes]:
    """Return type and content of an element of a few bytes, whose padding is read as well."""
    kind, size, inside = _tag(source, order)
    if inside is not None:
        return kind, inside[:size]
    if size > most:
        raise MatlabError(f"part of an array's head has {size:,} bytes, expected at most {most}")
    return kind, bytes(source.take(_padded(size))[:size])
