"""What a path that a user gives means: expanded, absolute, and tried before anything is trained."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from engine.errors import InputError


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
    existing = folder
    while not os.path.lexists(existing) and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise error(f"{field}={folder}: {existing} is no folder; give the name of one that is, or can be made")
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as cause:
        raise error(
            f"{field}={folder}: {existing} cannot be written to ({cause.strerror or cause}); give another folder"
        ) from cause
