"""Errors of other libraries while a set is read, turned into errors that name the file."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import ParamSpec, TypeVar

import pyarrow

from engine.data.parts import Found, Loaded
from engine.errors import DataError
from engine.reading import first_line, naming

_Arguments = ParamSpec("_Arguments")
_Answer = TypeVar("_Answer", Found, Found | None)


@contextmanager
def naming_files(place: Path | str) -> Iterator[None]:
    """Turn whatever reading below `place` raises into a DataError that names the file, or else `place`."""
    with naming(place, DataError, "fetch it again"):
        try:
            yield
        except (OSError, pyarrow.ArrowException, LookupError, TypeError, NotImplementedError, MemoryError) as cause:
            if isinstance(cause, OSError) and not (type(cause) is OSError and cause.errno is None):
                with naming(_named(cause, place), DataError):
                    raise
            # Without a number it is not of the operating system, but what pyarrow says of damaged bytes.
            raise DataError(
                f"{place}: is damaged, or not what its name says ({type(cause).__name__}: {first_line(cause)}); "
                "fetch it again"
            ) from cause


def _named(cause: OSError, place: Path | str) -> Path | str:
    return cause.filename if isinstance(cause.filename, str) else place


def finder(find: Callable[_Arguments, _Answer]) -> Callable[_Arguments, _Answer]:
    """Make a function that finds a set raise DataError only, then and when what it returns is loaded.

    It takes the root as a `Path` among its arguments.
    """

    @functools.wraps(find)
    def finding(*arguments: _Arguments.args, **named: _Arguments.kwargs) -> _Answer:
        root = next(given for given in (*arguments, *named.values()) if isinstance(given, Path))
        with naming_files(root):
            found = find(*arguments, **named)
        return found if found is None else replace(found, load=functools.partial(_load, root, found.load))

    return finding


def _load(root: Path, load: Callable[[], Loaded]) -> Loaded:
    with naming_files(root):
        return load()


def is_folder(path: Path) -> bool:
    """Tell whether a path is a folder; unlike `Path.is_dir` of newer Pythons, never when that cannot be told.

    Raises:
        OSError: the folder above it may not be read.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return path.is_dir()
