"""The footer of a Parquet file, bounded before pyarrow takes memory for it.

A footer lists row groups, and in each the pieces of its columns. Three bytes of it can become 725 in memory, so a file
of 20 MB may ask for 5 GB: what stands in it is counted first, without being kept.
"""

from __future__ import annotations

import contextlib
import os
from functools import lru_cache
from pathlib import Path

from engine.errors import InputError
from engine.reading import open_regular

FOOTER_BYTES = 128 * 2**20
"""The longest footer that is read: with the least and the largest picture of each row group in it, which takes 5 kB for
small pictures, room for 27,000 row groups."""

MEMORY_BYTES = 640 * 2**20
"""The most memory that a footer may ask for: room for 90,000 pieces of columns with all that is told of each."""

_END_BYTES = 8
_ENDS = (b"PAR1", b"PARE")
# The largest item of a list, a piece of a column, measured: pyarrow 25 takes 725 bytes. All else is far smaller,
# and costs time here.
_STRUCT_BYTES, _OTHER_BYTES = 736, 128
_LEAST_STRUCT_BYTES = 3
_DEPTH = 64
# Types of Thrift's compact protocol.
_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT, _UUID = 1, 2, 3, 7, 8, 9, 10, 11, 12, 13
_INTEGERS = (4, 5, 6)
_FIXED = {_TRUE: 1, _FALSE: 1, _BYTE: 1, _DOUBLE: 8, _UUID: 16}


def check_footer(path: Path, error: type[InputError]) -> int:
    """Refuse a Parquet file whose footer is too long, or asks for too much memory.

    A file that is no Parquet passes, and so does a footer that ends in the middle: its reader says so, and takes no
    more memory than is counted here.

    Returns:
        the most items that a list in it can have, as each takes a byte: pyarrow takes memory for as many as are stated.

    Raises:
        InputError: of the class `error`: the footer is longer than `FOOTER_BYTES`, or asks for more than
            `MEMORY_BYTES`, or the file is no regular one or may not be read.
    """
    with open_regular(path, error) as file:
        status = os.fstat(file.fileno())
        file.seek(max(0, status.st_size - _END_BYTES))
        end = file.read(_END_BYTES)
    length = int.from_bytes(end[:4], "little")
    if end[4:] not in _ENDS:
        return 1
    advice = "the file is damaged, or has too many row groups; fetch it again, or write it with larger row groups"
    if length > FOOTER_BYTES:
        raise error(
            f"{path}: its last bytes say that its footer has {length:,} bytes, expected at most {FOOTER_BYTES:,}: "
            f"{advice}"
        )
    if length * _STRUCT_BYTES // _LEAST_STRUCT_BYTES > MEMORY_BYTES and _asks_too_much(
        path, length, status.st_size, status.st_mtime_ns
    ):
        raise error(
            f"{path}: its footer of {length:,} bytes asks for more than {MEMORY_BYTES:,} bytes of memory: {advice}"
        )
    return max(1, length)


@lru_cache(maxsize=1024)
def _asks_too_much(path: Path, length: int, size: int, _modified: int) -> bool:
    with open_regular(path, InputError) as file:
        file.seek(max(0, size - _END_BYTES - length))
        footer = file.read(length)
    counter = _Counter(footer)
    # Where the end is not reached, pyarrow does not get further, either.
    with contextlib.suppress(IndexError, ValueError):
        counter.struct(0)
    return counter.left < 0


class _Counter:
    """Walks over what the compact protocol of Thrift wrote, and counts the memory that it asks for."""

    def __init__(self, content: bytes) -> None:
        self._content, self._place = content, 0
        self.left = MEMORY_BYTES

    def struct(self, depth: int) -> None:
        """Pass a struct: its fields up to the one that ends it.

        Raises:
            ValueError: it is no struct, too deep, or asks for too much.
            IndexError: the content ends before it does.
        """
        while header := self._byte():
            if header < 16:
                self._integer()
            kind = header & 15
            if kind not in (_TRUE, _FALSE):
                self._value(kind, depth)
            self._take(_OTHER_BYTES)

    def _value(self, kind: int, depth: int) -> None:
        if kind in _INTEGERS:
            self._integer()
        elif kind == _BINARY:
            length = self._integer()
            self._place += length
        elif kind in _FIXED:
            self._place += _FIXED[kind]
        elif depth == _DEPTH:
            raise ValueError("too deep")
        elif kind == _STRUCT:
            self.struct(depth + 1)
        elif kind in (_LIST, _SET):
            self._list(depth + 1)
        elif kind == _MAP:
            self._map(depth + 1)
        else:
            raise ValueError("no type of the protocol")

    def _list(self, depth: int) -> None:
        header = self._byte()
        size, kind = header >> 4, header & 15
        if size == 15:
            size = self._integer()
        self._take(size * (_STRUCT_BYTES if kind == _STRUCT else _OTHER_BYTES))
        for _ in range(size):
            self._value(kind, depth)

    def _map(self, depth: int) -> None:
        size = self._integer()
        if not size:
            return
        kinds = self._byte()
        self._take(size * 2 * _STRUCT_BYTES)
        for _ in range(size):
            self._value(kinds >> 4, depth)
            self._value(kinds & 15, depth)

    def _take(self, memory: int) -> None:
        self.left -= memory
        if self.left < 0:
            raise ValueError("too much")

    def _byte(self) -> int:
        value = self._content[self._place]
        self._place += 1
        return value

    def _integer(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
            if shift > 63:
                raise ValueError("no integer of the protocol")
