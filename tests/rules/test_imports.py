"""Do imports point one way, and is nothing loaded that could run code?"""

from __future__ import annotations

import ast
import importlib

import pytest

from tests.rules.import_rules import (
    RESTRICTED_UNPICKLER,
    bad_names,
    foreign_libraries,
    imported,
    private_names,
    room_of,
    sources,
    unsafe_loading,
    wrong_direction,
)

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
