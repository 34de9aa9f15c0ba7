"""The rules that imports point one way, and that nothing is loaded that could run code.

    cli -> benchmarking -> search, comparison, planning, analysis -> training -> runtimes, tracking, timing -> methods
        -> partition -> learners -> tasks, checkpoints -> objectives, knowledge -> backbones, data -> recipes

Every room may use errors.py, streams.py, atomic.py, machine.py, paths.py, reading.py and last_words.py. phases.py,
which says what there is to do in a program, is known to learners and to all that know program.py. program.py is known
to methods and runtimes, and to planning, which foretells what a program costs; of all others only training/preview.py
names it, to show a program before it runs: the rest get programs through a Team.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import engine

ENGINE = Path(engine.__file__).resolve().parent
LAYERS = (
    {"recipes"},
    {"backbones", "data"},
    {"objectives", "knowledge"},
    {"tasks", "checkpoints"},
    {"learners"},
    {"partition"},
    {"methods"},
    {"runtimes", "tracking", "timing"},
    {"training"},
    {"search", "comparison", "planning", "analysis"},
    {"benchmarking"},
    {"cli"},
)
RANKS = {room: rank for rank, rooms in enumerate(LAYERS) for room in rooms}
EVERYWHERE = {"atomic", "errors", "last_words", "machine", "paths", "reading", "streams"}
PROGRAM_ROOMS = {"methods", "runtimes", "planning"}
PROGRAM_FILES = {"training/preview.py"}
RAY_PLACES = ("runtimes/ray/", "search/", "cli/")
FORBIDDEN_NAMES = {"utils", "util", "common", "helpers", "helper", "misc", "base"}
SERIALISERS = {"cloudpickle", "dill", "joblib", "marshal", "shelve"}
LOADERS = {"load", "loads", "Unpickler"}
RESTRICTED_UNPICKLER = "data/readers/pickles.py"

# What the top-level files, which belong to no room, may name.
TOP_FILES = {
    "__init__.py": {"recipes", "training", "comparison", "search", "errors"},
    "__main__.py": {"cli"},
    "atomic.py": {"errors"},
    "errors.py": set(),
    "last_words.py": set(),
    "machine.py": set(),
    "paths.py": {"errors"},
    "reading.py": {"errors"},
    "streams.py": set(),
    "phases.py": set(),
    "program.py": {"phases"},
}


@functools.cache
def sources() -> dict[str, str]:
    return {path.relative_to(ENGINE).as_posix(): path.read_text() for path in sorted(ENGINE.rglob("*.py"))}


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield line and full dotted name of everything that is imported, at any depth of the file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield node.lineno, "." * node.level + (node.module or "") + "." + alias.name


def room_of(path: str) -> str | None:
    first, slash, _ = path.partition("/")
    return first if slash else None


def wrong_direction(path: str, source: str) -> list[str]:
    """Return imports of the engine's own modules that the direction forbids."""
    found = []
    room = room_of(path)
    if room is not None and room not in RANKS:
        return [f"{path}: the room {room!r} has no place in LAYERS"]
    for line, name in imported(ast.parse(source)):
        place = f"{path}:{line}: imports {name}"
        if name.startswith("."):
            found.append(f"{place}, relative")
            continue
        top, _, rest = name.partition(".")
        target = rest.partition(".")[0]
        if top in {"experiments", "tests"}:
            found.append(place)
        if top != "engine" or not target or target == room or target == "__version__":
            continue
        if room is None:
            allowed = target in TOP_FILES[path]
        elif target in EVERYWHERE:
            allowed = True
        elif target == "program":
            allowed = room in PROGRAM_ROOMS or path in PROGRAM_FILES
        elif target == "phases":
            allowed = room in PROGRAM_ROOMS | {"learners"}
        else:
            allowed = RANKS.get(target, len(LAYERS)) < RANKS[room]
        if not allowed:
            found.append(place)
    return found


def foreign_libraries(path: str, source: str) -> list[str]:
    """Return imports of ray and torch where they are not wanted."""
    found = []
    for line, name in imported(ast.parse(source)):
        top = name.partition(".")[0]
        if top == "ray" and not path.startswith(RAY_PLACES):
            found.append(f"{path}:{line}: imports ray")
        if top in {"torch", "torchvision"} and path.startswith("recipes/"):
            found.append(f"{path}:{line}: imports {top}")
    return found


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def private_names(path: str, source: str) -> list[str]:
    """Return uses of other rooms' private modules, names and attributes."""
    tree = ast.parse(source)
    room = room_of(path)
    found, modules = [], set()
    for line, name in imported(tree):
        parts = name.split(".")
        if parts[0] == "engine" and len(parts) > 1 and parts[1] != room and any(map(is_private, parts)):
            found.append(f"{path}:{line}: imports {name}")
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            origin = getattr(node, "module", None) or ""
            for alias in node.names:
                whole = f"{origin}.{alias.name}".strip(".")
                if whole.startswith("engine.") and not f"{whole}.".startswith(f"engine.{room}."):
                    modules.add(alias.asname or alias.name)
    return found + [
        f"{path}:{node.lineno}: uses {ast.unparse(node)}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and is_private(node.attr) and ast.unparse(node.value) in modules
    ]


def unsafe_loading(path: str, source: str) -> list[str]:
    """Return calls and imports that could run code which a file brings along."""
    found = []
    tree = ast.parse(source)
    for line, name in imported(tree):
        top, _, last = name.partition(".")
        if top in SERIALISERS or (top in {"pickle", "_pickle"} and last in LOADERS):
            found.append(f"{path}:{line}: imports {name}")
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            used = ast.unparse(node)
            restricted = path == RESTRICTED_UNPICKLER and used == "pickle.Unpickler"
            if used in {f"pickle.{name}" for name in LOADERS} and not restricted:
                found.append(f"{path}:{node.lineno}: uses {used}")
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        constants = {word.arg: getattr(word.value, "value", None) for word in node.keywords}
        if called in {"eval", "exec", "builtins.eval", "builtins.exec"}:
            found.append(f"{path}:{node.lineno}: calls {called}")
        if called == "torch.load" and constants.get("weights_only") is not True:
            found.append(f"{path}:{node.lineno}: calls torch.load without weights_only=True")
        if "allow_pickle" in constants and constants["allow_pickle"] is not False:
            found.append(f"{path}:{node.lineno}: calls {called} with allow_pickle")
    return found


def bad_names(path: str) -> list[str]:
    """Return parts of a path that say nothing of what is in it."""
    return [part for part in path.removesuffix(".py").split("/") if part in FORBIDDEN_NAMES]
