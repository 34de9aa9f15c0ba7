"""Classes and functions of the user's own, named ``path/to/file.py:Name`` in a recipe."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import re
import sys
from collections.abc import Mapping
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, Literal

from engine.errors import GOES_ON_IF_ANY, OwnFileChanged, RecipeError
from engine.paths import absolute
from engine.reading import one_line, read_bytes
from engine.recipes.problems import nearest

OWN_PATTERN = r"^[^\x00]+\.py:[A-Za-z_]\w*$"
"""What the ``kind`` of a class of one's own looks like, as a regular expression."""

_CODE_BYTES = 16 * 2**20


def is_own(text: str) -> bool:
    """Return whether a name in a recipe means something in a file."""
    return text.rpartition(":")[0].endswith(".py") or text.endswith(".py")


def own_class(text: str, field: str) -> type:
    """Return the class that ``path/to/file.py:Name`` means; relative paths start at the current folder.

    A file is imported once in a process for as long as it does not change, so that its classes stay themselves.

    Args:
        text: path and name.
        field: the field of the recipe that holds it, such as ``task.kind``, for messages.

    Raises:
        RecipeError: no class is named, or file or class are missing, or the file cannot be imported.
    """
    name, path, module = own_module(text, field, "class")
    found = vars(module).get(name)
    if not isinstance(found, type):
        classes = [key for key, value in vars(module).items() if isinstance(value, type) and not key.startswith("_")]
        raise RecipeError(f"{field}={text}: {path} defines no class {name!r}{nearest(name, classes)}")
    return found


def own_module(text: str, field: str, wanted: Literal["class", "function"]) -> tuple[str, Path, ModuleType]:
    """Return the name behind the colon of ``path/to/file.py:Name``, the file, and its module.

    Args:
        text: path and name.
        field: the field of the recipe that holds it, such as ``task.kind``, for messages.
        wanted: what the name is to mean. For a function the file is run anew: what it makes beside the function, layers
            for instance, belongs to one network alone.

    Raises:
        RecipeError: nothing is named, or the file is missing or cannot be imported.
    """
    file, name = _split(text, field, wanted)
    path = absolute(file, field, RecipeError)
    if not os.path.exists(path):
        raise RecipeError(f"{field}={text}: there is no file {path}. Relative paths start at the current folder.")
    return name, path, _imported(path.resolve(), text, field, anew=wanted == "function")


def with_absolute_path(text: str, field: str) -> str:
    """Return a name in a recipe with the path of its file made absolute; as it is, where it names no file.

    Raises:
        RecipeError: the path means nothing on this machine; see `engine.paths.absolute`.
    """
    if not is_own(text):
        return text
    file, name = _split(text, field, "class")
    return f"{absolute(file, field, RecipeError)}:{name}"


def own_files(values: Any) -> dict[str, str]:
    """Return the SHA-256 of every file of the user's own that a recipe names and that is there, by its path.

    Args:
        values: of the recipe, as `engine.recipes.recipe_to_dict` gives them, or a part of them.
    """
    if isinstance(values, str) and re.match(OWN_PATTERN, values):
        # Whoever needs a file that is gone says so; a run that is finished does not.
        with contextlib.suppress(RecipeError):
            path = absolute(_split(values, "file", "class")[0], "file", RecipeError)
            return {str(path): hashlib.sha256(read_bytes(path, RecipeError, _CODE_BYTES)).hexdigest()}
    parts = values.values() if isinstance(values, dict) else values if isinstance(values, list | tuple) else ()
    return {path: digest for part in parts for path, digest in own_files(part).items()}


def check_unchanged(then: Mapping[str, str], values: Any) -> None:
    """Refuse to build a learner from other files of the user's own than its team: both would train as one.

    Args:
        then: what `own_files` said when the team was first made; a file that is gone is refused by whoever needs it.
        values: as of `own_files`.

    Raises:
        OwnFileChanged: names a file that has changed, or that is another one on this machine.
    """
    for path, digest in own_files(values).items():
        if then.get(path, digest) != digest:
            raise OwnFileChanged(
                f"{path}: is another file on {os.uname().nodename} than this run's learners were made of. Where that "
                "is another node than the command's, copy the file there; where it has changed, bring it back as it "
                f"was ({GOES_ON_IF_ANY}), or start a new run with --resume never"
            )


def digest_of_module(name: str) -> str | None:
    """Return the SHA-256 of the file of a module, as it is now; None of a module that has none.

    Args:
        name: of a module that is imported, or is being so.
    """
    file = getattr(sys.modules.get(name), "__file__", None)
    if file is None:
        return None
    try:
        return hashlib.sha256(read_bytes(Path(file), RecipeError, _CODE_BYTES)).hexdigest()
    except RecipeError:
        return None


def _split(text: str, field: str, wanted: str) -> tuple[str, str]:
    file, _, name = text.rpartition(":")
    if not file.endswith(".py") or not name:
        meant = "Name" if wanted == "class" else wanted
        raise RecipeError(f"{field}={text}: no {wanted} is named; expected path/to/file.py:{meant}")
    return file, name


def _imported(path: Path, text: str, field: str, *, anew: bool) -> ModuleType:
    content = read_bytes(path, RecipeError, _CODE_BYTES)
    try:
        return _run(path, _unique(path, content), content) if anew else import_once(path, content)
    except (Exception, SystemExit) as error:
        raise RecipeError(f"{field}={text}: {path} cannot be imported: {one_line(error)}") from error


def import_once(path: Path, content: bytes) -> ModuleType:
    """Return the module of a Python file, imported once in a process for as long as the file does not change.

    Args:
        path: of the file, absolute.
        content: of it, now.

    Raises:
        Exception, SystemExit: whatever the file raises.
    """
    unique = _unique(path, content)
    return sys.modules[unique] if unique in sys.modules else _run(path, unique, content)


def _unique(path: Path, content: bytes) -> str:
    # The digest keeps a user's `model.py` from hiding another one.
    return f"own_file_{hashlib.sha256(str(path).encode() + content).hexdigest()[:16]}"


class _AsRead(SourceFileLoader):
    """Runs what was read: Python's own would take the compiled code of a file that was another one a second ago."""

    def __init__(self, name: str, path: str, content: bytes) -> None:
        super().__init__(name, path)
        self._content = content

    def get_code(self, fullname: str) -> CodeType:
        """Return the code of the content."""
        return self.source_to_code(self._content, self.path)


def _run(path: Path, unique: str, content: bytes) -> ModuleType:
    specification = importlib.util.spec_from_file_location(unique, path, loader=_AsRead(unique, str(path), content))
    assert specification is not None and specification.loader is not None
    before = sys.modules.get(unique)
    # Dataclasses look their module up there.
    module = sys.modules[unique] = importlib.util.module_from_spec(specification)
    try:
        specification.loader.exec_module(module)
    except BaseException:
        del sys.modules[unique]
        raise
    finally:
        if before is not None:
            # Classes of one's own in the same file stay themselves.
            sys.modules[unique] = before
    return module
