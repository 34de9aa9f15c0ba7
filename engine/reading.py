"""Reads files that may be damaged or hostile: bounded, checked, and with errors that name the file.

Whatever lies on a disk may have been cut off, edited by hand, or made by somebody else. So nothing here follows a
name to a pipe or a device, takes more memory than a stated limit, or lets an error of the operating system or of a
decoder through: each becomes an error of the engine that names the file, what was found, and what was expected.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

from engine.errors import InputError, VersionError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

JSON_BYTES = 64 * 2**20
"""The largest JSON file that is read unless a reader states another limit, in bytes."""

JSON_DEPTH = 64
"""How deep lists and objects of a JSON file may be nested."""

_Shape = TypeVar("_Shape")


@contextmanager
def naming(path: Path | str, error: type[InputError], advice: str = "") -> Iterator[None]:
    """Turn whatever reading `path` raises (of the operating system, of decoding) into one `error` that names it.

    Args:
        path: the file or folder that is read inside the block.
        error: what is raised; errors of the engine pass as they are.
        advice: what to do, put behind the cause.
    """
    try:
        yield
    except InputError:
        raise
    except PermissionError as cause:
        raise error(f"{path}: may not be read by this user ({cause.strerror}); change its mode or owner") from cause
    except FileNotFoundError as cause:
        raise error(f"{path}: there is no such file{_behind(advice)}") from cause
    except OSError as cause:
        raise error(f"{path}: could not be read: {cause.strerror or cause}{_behind(advice)}") from cause
    except (ValueError, OverflowError, RecursionError, EOFError) as cause:
        raise error(f"{path}: is damaged: {first_line(cause)}{_behind(advice)}") from cause


def _behind(advice: str) -> str:
    return f"; {advice}" if advice else ""


def first_line(cause: BaseException) -> str:
    """Return the first line of an error's text, at most 200 characters, in characters that can be printed anywhere."""
    text = str(cause).strip().split("\n", 1)[0] or type(cause).__name__
    return text.encode("ascii", "backslashreplace").decode()[:200]


def one_line(cause: BaseException) -> str:
    """Return the kind of an error and its `first_line`."""
    return f"{type(cause).__name__}: {first_line(cause)}"


def read_bytes(
    path: Path, error: type[InputError], limit: int, *, follow_links: bool = True, advice: str = ""
) -> bytes:
    """Return what a regular file holds.

    Args:
        path: the file.
        error: what is raised.
        limit: the largest size that is read, in bytes.
        follow_links: whether a symbolic link in the file's place is followed, or refused.
        advice: what to do, put behind the cause.

    Raises:
        InputError: of the class `error`: it is missing, no regular file (a pipe would be waited for), larger than the
            limit, or may not be read.
    """
    with open_regular(path, error, follow_links=follow_links, advice=advice) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise error(f"{path}: has {size:,} bytes; expected at most {limit:,}{_behind(advice)}")
        content = file.read(limit + 1)
    if len(content) > limit:
        raise error(f"{path}: has more than {limit:,} bytes{_behind(advice)}")
    return content


@contextmanager
def open_regular(
    path: Path, error: type[InputError], *, follow_links: bool = True, advice: str = ""
) -> Iterator[IO[bytes]]:
    """Give a regular file to read from; what reading it raises becomes one `error` that names it, as in `naming`.

    Args:
        path: the file.
        error: what is raised.
        follow_links: whether a symbolic link in the file's place is followed, or refused.
        advice: what to do, put behind the cause.

    Raises:
        InputError: of the class `error`: it is missing, no regular file (a pipe would be waited for), or may not be
            read.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow_links else os.O_NOFOLLOW)
    with naming(path, error, advice):
        if not follow_links and os.path.islink(path):
            raise error(f"{path}: is a symbolic link; expected the file itself{_behind(advice)}")
        descriptor = os.open(path, flags)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise error(f"{path}: is no regular file; expected a file with data in it{_behind(advice)}")
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                yield file
        finally:
            os.close(descriptor)


def read_json(
    path: Path, error: type[InputError], *, limit: int = JSON_BYTES, follow_links: bool = True, advice: str = ""
) -> Any:
    """Return what a JSON file holds; as `read_bytes` and `parse_json`."""
    content = read_bytes(path, error, limit, follow_links=follow_links, advice=advice)
    return parse_json(content, path, error, advice=advice)


def parse_json(content: bytes | str, place: Path | str, error: type[InputError], *, advice: str = "") -> Any:
    """Return what a JSON text holds.

    Args:
        content: the text, as UTF-8 with or without a byte-order mark.
        place: where it comes from, for the message.
        error: what is raised.
        advice: what to do, put behind the cause.

    Raises:
        InputError: of the class `error`: it is no JSON, nested deeper than `JSON_DEPTH`, names a field twice (which of
            the two is meant?), or holds text that is no text (NUL, halves of characters).
    """
    with naming(place, error, advice):
        text = content.decode("utf-8-sig") if isinstance(content, bytes) else content.removeprefix("\ufeff")
        values = json.loads(text, object_pairs_hook=_object)
        check_values(values)
    return values


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"it gives the field {twice!r} twice")
    return values


def check_values(values: Any) -> None:
    """Refuse JSON values that no file or command line of ours needs.

    Raises:
        ValueError: they are nested deeper than `JSON_DEPTH`, or hold text that is no text (NUL, halves of characters).
    """
    level, depth = [values], 0
    while level:
        depth += 1
        if depth > JSON_DEPTH:
            raise ValueError(f"it is nested more than {JSON_DEPTH} deep")
        below: list[Any] = []
        for value in level:
            if isinstance(value, str):
                _check_text(value)
            elif isinstance(value, dict):
                for name in value:
                    _check_text(name)
                below.extend(value.values())
            elif isinstance(value, list):
                below.extend(value)
        level = below


def _check_text(text: str) -> None:
    if text.isascii():
        if "\0" in text:
            raise ValueError("a text in it holds the character NUL")
        return
    try:
        # What this lets through are the bytes of file names that are no UTF-8, as Python writes them.
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise ValueError("a text in it holds half of a character (a lone surrogate)") from None
    if "\0" in text:
        raise ValueError("a text in it holds the character NUL")


def checked(
    values: Any, shape: TypeAdapter[_Shape], place: Path | str, error: type[InputError], *, advice: str = ""
) -> _Shape:
    """Return plain JSON values as what they claim to be, such as a dataclass or a typed dictionary.

    Args:
        values: what `read_json` returned.
        shape: what they must be; build the adapter once, at the top of a module.
        place: where they come from, for the message.
        error: what is raised; it names the first three fields that are wrong.
        advice: what to do, put behind the cause.
    """
    # Whoever has a shape has it already; a command's help reads no file, and is not to wait for it.
    from pydantic import ValidationError

    try:
        return shape.validate_python(values)
    except (ValidationError, RecursionError) as cause:
        if not isinstance(cause, ValidationError):
            raise error(f"{place}: is damaged: it is nested too deep{_behind(advice)}") from cause
        found = [f"{'.'.join(map(str, one['loc'])) or 'the whole'}: {one['msg']}" for one in cause.errors()[:3]]
        more = cause.error_count() - len(found)
        listed = "; ".join(found) + (f"; and {more} more" if more > 0 else "")
        shown = listed.encode("ascii", "backslashreplace").decode()
        raise error(f"{place}: is not what was expected: {shown}{_behind(advice)}") from cause


def without_version(values: Any, known: int, place: Path | str, error: type[InputError]) -> Any:
    """Return the values of a JSON file without the ``version`` of its form, once it is one that can be read.

    The version says what the fields of such a file are and mean; it is raised when an engine that knows the one before
    would misread the file. Files without one were written before there were any, and are of version 0.

    Args:
        values: what `read_json` returned.
        known: the newest version that this engine reads; it reads all earlier ones, too.
        place: where they come from, for the message.
        error: what is raised if the version is no number.

    Raises:
        VersionError: a newer engine has written the file.
        InputError: of the class `error`: the version is no whole number from 0.
    """
    if not isinstance(values, dict) or "version" not in values:
        return values
    found = values["version"]
    if type(found) is not int or found < 0:
        shown = ascii(found)[:100]
        raise error(f"{place}: is damaged: version is {shown}, expected a whole number from 0 to {known}")
    if found > known:
        raise VersionError(
            f"{place}: was written by a newer engine: its version is {found}, and this engine knows the versions 0 to "
            f"{known}; install an engine that is at least as new as the one that wrote it"
        )
    return {name: value for name, value in values.items() if name != "version"}
