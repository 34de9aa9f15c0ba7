"""Paths that a user gives: expanded, made absolute, and tried before anything is trained."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from engine.errors import InputError

# Of one name in a path, on every file system that Linux and macOS know.
_LONGEST_NAME_BYTES = 255
# What `engine.atomic.replacing` and `export` put around the name of a file that is not whole yet.
_LONGER_BYTES = 20


def absolute(path: str | Path, field: str, error: type[InputError] = InputError) -> Path:
    """Return a path as it is meant: ``~`` and ``~user`` expanded, made absolute; links stay as they are.

    Args:
        path: what the user gave.
        field: the option, field, variable or argument that holds it, for the message.
        error: what is raised.

    Raises:
        InputError: of the class `error`: it is empty, names a home folder that does not exist, holds the character NUL,
            or is relative while the current folder has been removed.
    """
    text = os.fspath(path)
    if not text:
        raise error(f"{field}: is empty; expected a path")
    if "\0" in text:
        raise error(f"{field}={text!r}: holds the character NUL, which no path can")
    expanded = os.path.expanduser(text)
    if expanded.startswith("~"):
        first = expanded.split("/", 1)[0]
        raise error(
            f"{field}={text}: the home folder of {first} is not known here; give the whole path, or ./{text} for a "
            "folder of this name"
        )
    try:
        return Path(os.path.abspath(expanded))
    except FileNotFoundError:
        raise error(
            f"{field}={text}: is relative to the current folder, which has been removed; change to another folder, or "
            "give a path that begins with /"
        ) from None


def check_writable(folder: Path, field: str, error: type[InputError] = InputError) -> None:
    """Find out whether a folder can be written to, or made, without leaving anything behind.

    Args:
        folder: an absolute path; it need not exist.
        field: the option, field, variable or argument that holds it, for the message.
        error: what is raised.

    Raises:
        InputError: of the class `error`: it, or the nearest folder above that exists, is no folder or cannot be written
            to.
    """
    _check_names(folder, field, error)
    existing = folder
    while not os.path.lexists(existing) and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise error(f"{field}={folder}: {existing} is no folder; give the name of one that is, or can be made")
    _try(existing, f"{field}={folder}", error)


def kind_of(path: Path, field: str, error: type[InputError] = InputError) -> Literal["folder", "file", "other"] | None:
    """Return what is at a path, links followed; None if nothing is.

    Args:
        path: an absolute one.
        field: the option, field, variable or argument that holds it, for the message.
        error: what is raised.

    Raises:
        InputError: of the class `error`: this cannot be told, because a folder above it is closed or its name is too
            long.
    """
    _check_names(path, field, error)
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as cause:  # NUL
        why = getattr(cause, "strerror", None) or cause
        raise error(f"{field}={path}: cannot be looked at ({why}); give a path whose folders may be entered") from cause
    return "folder" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "other"


def check_target(target: Path, field: str, suffixes: Sequence[str], error: type[InputError] = InputError) -> None:
    """Refuse a file that could not be written once everything is computed.

    Args:
        target: an absolute path.
        field: the option or argument that holds it, for the message.
        suffixes: with which its name may end.
        error: what is raised.

    Raises:
        InputError: of the class `error`: it has another suffix, is something else than a file, or its folder is not
            there or cannot be written to.
    """
    if target.suffix not in suffixes:
        expected = " or ".join(suffixes)
        raise error(f"{field}={target}: ends with {target.suffix or 'no suffix'!r}; give a name with {expected}")
    # It is written under a longer name first.
    _check_names(target, field, error, _LONGER_BYTES)
    if kind_of(target.parent, field, error) != "folder":
        raise error(f"{field}={target}: there is no folder {target.parent}; make it first")
    if kind_of(target, field, error) not in (None, "file"):
        raise error(f"{field}={target}: is no file and is left alone; give another name")
    _try(target.parent, f"{field}={target}", error)


def _try(folder: Path, said: str, error: type[InputError]) -> None:
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as cause:
        raise error(
            f"{said}: {folder} cannot be written to ({cause.strerror or cause}); give another folder"
        ) from cause


def _check_names(path: Path, field: str, error: type[InputError], kept_free: int = 0) -> None:
    for name in path.parts:
        most = _LONGEST_NAME_BYTES - (kept_free if name == path.name else 0)
        try:
            length = len(os.fsencode(name))
        except UnicodeEncodeError:  # which no file system holds, as whoever asks it is told
            continue
        if length > most:
            raise error(f"{field}: {name[:32]}... is a name of {length} bytes; give one of {most} bytes at most")
