"""A disk that takes nothing for a while, whoever writes to it: a library that stands before libc, see disk.c."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import subprocess
from pathlib import Path

VARIABLE = "LD_PRELOAD"
"""Environment variable of a process whose disk may take nothing: path of the library."""
LIBRARY = "disk.so"

_SOURCE = Path(__file__).with_name("disk.c")


def is_possible() -> bool:
    """Return whether this machine has the C compiler that the library needs."""
    return shutil.which("cc") is not None


def make_library(folder: Path) -> None:
    """Compile the library into a folder, as `LIBRARY`."""
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", folder / LIBRARY, _SOURCE, "-ldl"], check=True)


def take_nothing(folder: str, kind: str, seconds: float) -> None:
    """Let writes of this process below a folder fail for some seconds.

    Args:
        folder: with its whole path.
        kind: name of the error, such as ``ENOSPC``.
        seconds: how long.
    """
    ctypes.CDLL(None).refuse_writes(os.fsencode(folder), getattr(errno, kind), ctypes.c_double(seconds))
