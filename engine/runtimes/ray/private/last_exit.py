"""Ray's own end of this process, with a word and an exit code of ours.

Where the raylet of this node is gone while this process reads from its object store or writes to it, Ray's C++ ends the
process on the spot, with `_Exit(1)` (`QuickExit` in ray/util). Nothing in Python sees that, and 1 would mean a bug of
this program. So the call of `_Exit` that Ray's library goes through, an entry of its procedure linkage table, is led
to a function of ours. Where it is not found, Ray's own end stays as it is.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import mmap
import os
import struct
from collections.abc import Callable, Iterator

from ray import _raylet

from engine import last_words
from engine.errors import EXIT_LEARNER_FAILED, GOES_ON_IF_ANY

_SYMBOL = b"_Exit\0"
# From dlfcn.h and elf.h, for 64 bits.
_RTLD_DI_LINKMAP = 2
_DT_NULL, _DT_PLTRELSZ, _DT_STRTAB, _DT_SYMTAB, _DT_JMPREL = 0, 2, 5, 6, 23
_RELOCATION = struct.Struct("<QQq")
_SYMBOL_BYTES = 24


class _Entry(ctypes.Structure):
    """Elf64_Dyn."""

    _fields_ = (("tag", ctypes.c_int64), ("value", ctypes.c_uint64))


class _LinkMap(ctypes.Structure):
    """What a dynamic linker tells of a library, from link.h."""

    _fields_ = (("start", ctypes.c_size_t), ("name", ctypes.c_char_p), ("dynamic", ctypes.POINTER(_Entry)))


def end_with_cluster() -> None:
    """End this process, whose cluster has no raylet on this node any more."""
    last_words.say(
        f"the raylet of this node is gone, without which no driver goes on ({GOES_ON_IF_ANY})", EXIT_LEARNER_FAILED
    )
    os._exit(EXIT_LEARNER_FAILED)


_end = end_with_cluster


def take_over(end: Callable[[], None]) -> bool:
    """Let a function end this process wherever Ray's library would; it takes the place of one that was given before.

    Args:
        end: ends the process. It is called in whichever thread Ray wants to end it, which may hold any of Ray's locks,
            so it must ask Ray for nothing.

    Returns:
        whether it will be called.
    """
    global _end
    _end = end
    return _is_in_place()


def take_back(end: Callable[[], None]) -> None:
    """Let a function that was given end this process no more, whose Ray is closed.

    One that has taken its place meanwhile stays: this process may be connected to another Ray by then.
    """
    global _end
    if _end == end:
        _end = end_with_cluster


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _instead(code: int) -> None:
    try:
        _end()
    finally:
        os._exit(code)  # Whoever has called does not expect to go on.


@functools.cache
def _is_in_place() -> bool:
    with contextlib.suppress(OSError, ValueError, AttributeError, KeyError):
        slots = list(_slots(_raylet.__file__))
        return bool(slots) and all(_write(slot, ctypes.cast(_instead, ctypes.c_void_p).value) for slot in slots)
    return False


def _slots(library: str) -> Iterator[int]:
    """Give the addresses of the pointers through which a loaded library calls the symbol."""
    found = ctypes.POINTER(_LinkMap)()
    handle = ctypes.c_void_p(ctypes.CDLL(library)._handle)
    if ctypes.CDLL(None).dlinfo(handle, _RTLD_DI_LINKMAP, ctypes.byref(found)) != 0 or struct.calcsize("P") != 8:
        return
    table, number = {}, 0
    while (entry := found.contents.dynamic[number]).tag != _DT_NULL:
        table[entry.tag] = entry.value
        number += 1
    relocations = ctypes.string_at(table.get(_DT_JMPREL, 0), table.get(_DT_PLTRELSZ, 0))
    for offset, info, _ in _RELOCATION.iter_unpack(relocations):
        symbol = table[_DT_SYMTAB] + (info >> 32) * _SYMBOL_BYTES
        name = table[_DT_STRTAB] + ctypes.c_uint32.from_address(symbol).value
        if ctypes.string_at(name, len(_SYMBOL)) == _SYMBOL:
            yield found.contents.start + offset


def _write(slot: int, value: int | None) -> bool:
    # The linker has closed the page for writing; it stays open, as with a library that is linked lazily.
    page = slot - slot % mmap.PAGESIZE
    if ctypes.CDLL(None).mprotect(ctypes.c_void_p(page), mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_WRITE) != 0:
        return False
    ctypes.c_void_p.from_address(slot).value = value
    return True
