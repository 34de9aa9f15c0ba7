"""Do imports point one way, and is nothing loaded that could run code?

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
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

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
RESTRICTED_UNPICKLER = "data/pickles.py"

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


RULES = (wrong_direction, foreign_libraries, private_names, unsafe_loading)


@pytest.mark.parametrize("path", sources())
def test_every_file_keeps_the_rules(path: str) -> None:
    source = sources()[path]
    assert [problem for rule in RULES for problem in rule(path, source)] == []
    assert bad_names(path) == []


def test_there_is_something_to_check() -> None:
    assert len(sources()) > 50
    assert {room_of(path) for path in sources()} >= {"recipes", "data", "learners", "methods", "runtimes", "cli"}


def test_no_modules_import_one_another_in_a_circle() -> None:
    """Imports inside functions and those for type checkers only are left out: they do not run at import."""
    names = {
        "engine." + path.removesuffix(".py").removesuffix("/__init__").replace("/", "."): path for path in sources()
    }
    graph: dict[str, set[str]] = {}
    for module, path in names.items():
        top_level = ast.Module([n for n in ast.parse(sources()[path]).body if not isinstance(n, ast.If)], [])
        reached: set[str] = set()
        for node in top_level.body:
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                for _, name in imported(ast.Module([node], [])):
                    reached |= {name if name in names else name.rpartition(".")[0]} & set(names)
        graph[module] = reached - {module}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join((*trail[trail.index(module) :], module))
        if module not in done:
            for target in sorted(graph[module]):
                visit(target, (*trail, module))
            done.add(module)

    for module in sorted(graph):
        visit(module, ())


ROOMS = sorted({room for path in sources() if (room := room_of(path)) is not None} - {"cli"})


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_lists_its_public_names(room: str) -> None:
    module = importlib.import_module(f"engine.{room}")
    assert module.__all__
    assert len(set(module.__all__)) == len(module.__all__)
    for name in module.__all__:
        assert not name.startswith("_")
        assert hasattr(module, name), f"engine.{room} has no {name}"


UPWARD = [
    ("recipes/a.py", "from engine.data import Facts"),
    ("recipes/a.py", "def f():\n    import engine.training"),
    ("data/a.py", "from engine.backbones import build"),
    ("objectives/a.py", "from engine.learners import Learner"),
    ("objectives/a.py", "from engine.tasks import Task"),
    ("learners/a.py", "from engine import methods"),
    ("learners/a.py", "from engine.program import Call"),
    ("training/loop.py", "from engine.program import Call"),
    ("tracking/a.py", "from engine.runtimes import Runtime"),
    ("runtimes/a.py", "from engine.training import train"),
    ("training/a.py", "from engine.cli.main import main"),
    ("planning/a.py", "from engine.analysis import x"),
    ("planning/a.py", "from engine.benchmarking import measure"),
    ("search/a.py", "from engine.benchmarking import measure"),
    ("data/a.py", "from engine import load_recipe"),
    ("data/a.py", "from .batches import Batch"),
    ("data/a.py", "from engine.unknown import x"),
    ("unknown/a.py", "import os"),
    ("errors.py", "from engine.recipes import Recipe"),
    ("data/a.py", "import experiments.recipes"),
    ("cli/a.py", "from tests.data import conftest"),
]
DOWNWARD = [
    ("data/a.py", "from engine.recipes.data import Data\nfrom engine.errors import DataError"),
    ("cli/a.py", "import engine.search\nfrom engine.training import train\nfrom engine import streams"),
    ("methods/a.py", "from engine.program import Call\nfrom engine import backbones\nimport engine"),
    ("training/preview.py", "from engine.program import Program"),
    ("training/a.py", "from engine import __version__"),
]


@pytest.mark.parametrize(("path", "source"), UPWARD)
def test_an_import_upwards_is_found(path: str, source: str) -> None:
    assert len(wrong_direction(path, source)) == 1


@pytest.mark.parametrize(("path", "source"), DOWNWARD)
def test_an_import_downwards_is_allowed(path: str, source: str) -> None:
    assert wrong_direction(path, source) == []


def test_ray_and_torch_are_found_where_they_are_not_wanted() -> None:
    assert foreign_libraries("runtimes/process.py", "import ray") == ["runtimes/process.py:1: imports ray"]
    assert foreign_libraries("recipes/a.py", "if 1:\n    from torch import nn") == ["recipes/a.py:2: imports torch"]
    assert foreign_libraries("learners/a.py", "from ray.util import x") != []
    assert foreign_libraries("runtimes/ray/actor.py", "import ray\nimport torch") == []
    assert foreign_libraries("search/a.py", "from ray import tune") == []


@pytest.mark.parametrize(
    "source",
    [
        "from engine.data.cache import _folder",
        "from engine.data._cache import folder",
        "from engine import data\ndata._folder()",
        "import engine.data\nengine.data._folder()",
        "from engine.data import cache as c\nc._folder",
    ],
)
def test_a_private_name_of_another_room_is_found(source: str) -> None:
    assert len(private_names("methods/a.py", source)) == 1
    assert private_names("data/b.py", source) == [] or "engine.data._" in source


@pytest.mark.parametrize(
    "source",
    [
        "import pickle\npickle.load(f)",
        "import pickle\npickle.loads(b)",
        "from pickle import loads",
        "import pickle\nclass A(pickle.Unpickler): pass",
        "import torch\ntorch.load(p)",
        "import torch\ntorch.load(p, weights_only=False)",
        "import torch\ntorch.load(p, weights_only=flag)",
        "import numpy as np\nnp.load(p, allow_pickle=True)",
        "eval('1')",
        "exec('1')",
        "import cloudpickle",
        "from joblib import load",
    ],
)
def test_unsafe_loading_is_found(source: str) -> None:
    assert len(unsafe_loading("data/a.py", source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        "import torch\ntorch.load(p, weights_only=True)",
        "network.eval()",
        "import pickle\ntry:\n    f()\nexcept pickle.UnpicklingError:\n    pass",
        "import numpy as np\nnp.load(p, allow_pickle=False)",
        "import json\njson.load(f)",
    ],
)
def test_safe_loading_is_allowed(source: str) -> None:
    assert unsafe_loading("data/a.py", source) == []


def test_the_restricted_unpickler_is_allowed_in_its_file_only() -> None:
    source = "import pickle\nclass A(pickle.Unpickler): pass"
    assert unsafe_loading(RESTRICTED_UNPICKLER, source) == []
    assert unsafe_loading(RESTRICTED_UNPICKLER, source + "\npickle.load(f)") != []


def test_names_that_say_nothing_are_found() -> None:
    assert bad_names("data/utils.py") == ["utils"]
    assert bad_names("base/x.py") == ["base"]
    assert bad_names("data/database.py") == []
