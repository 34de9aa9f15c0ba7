"""Does no file of the engine depend on itself by way of others: imports inside functions and packages included?

``from engine.room import name`` counts as an import of the file that defines the name, not of the room.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import engine

ROOT = Path(engine.__file__).resolve().parents[1]
Graph = dict[str, set[str]]


def sources() -> dict[str, str]:
    return {path.relative_to(ROOT).as_posix(): path.read_text() for path in sorted((ROOT / "engine").rglob("*.py"))}


def running(node: ast.AST) -> Iterator[ast.AST]:
    """Yield all nodes but those that only type checkers see."""
    yield node
    children: Iterator[ast.AST] = ast.iter_child_nodes(node)
    if isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}:
        children = iter(node.orelse)
    for child in children:
        yield from running(child)


def imports_of(source: str) -> list[tuple[str, str | None]]:
    """Return (module, name) of each import, at any depth; the name is None where a module itself is imported."""
    found: list[tuple[str, str | None]] = []
    for node in running(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module:
            found += [(node.module, alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            found += [(alias.name, None) for alias in node.names]
    return found


def import_graph(files: Mapping[str, str]) -> Graph:
    """Return which modules each module depends on; packages, which only hand names on, depend on nothing.

    Args:
        files: source texts by path.
    """
    packages, imports = set(), {}
    for path, source in files.items():
        module = path.removesuffix(".py").replace("/", ".")
        if module.endswith(".__init__"):
            module = module.removesuffix(".__init__")
            packages.add(module)
        imports[module] = imports_of(source)

    def defining(module: str, name: str | None) -> str | None:
        if name is not None and f"{module}.{name}" in imports:
            return f"{module}.{name}"
        if module in packages and name is not None:
            for other, given in imports[module]:
                if given == name:
                    return defining(other, given)
        return module if module in imports else None

    graph: Graph = {}
    for module, names in imports.items():
        reached = {found for each in names if (found := defining(*each)) is not None}
        graph[module] = set() if module in packages else reached - {module}
    return graph


def reachable(graph: Graph, start: str) -> set[str]:
    """Return all that a module depends on, directly or by way of others."""
    found: set[str] = set()
    waiting = [start]
    while waiting:
        for target in graph[waiting.pop()] - found:
            found.add(target)
            waiting.append(target)
    return found


def circles(graph: Graph) -> list[tuple[str, ...]]:
    """Return the groups of modules that all depend on one another."""
    below = {module: reachable(graph, module) for module in graph}
    groups = {tuple(sorted(other for other in below if other in below[m] and m in below[other])) for m in below}
    return sorted(groups - {()})


@functools.cache
def own_graph() -> Graph:
    return import_graph(sources())


def test_no_file_of_the_engine_depends_on_itself() -> None:
    assert circles(own_graph()) == []


def test_there_is_something_to_check() -> None:
    graph = own_graph()
    assert len(graph) > 100
    # Through the room's list of names, to the file that defines the one.
    assert "engine.partition.segment" in graph["engine.methods.chain"]


MADE_UP = {
    "engine/__init__.py": "",
    "engine/room/__init__.py": "from engine.room.first import one\nfrom engine.room.second import two",
    "engine/room/first.py": "def one():\n    from engine.room import two\n    return two",
    "engine/room/third.py": "from engine.room import one, two",
}


@pytest.mark.parametrize(
    "second",
    [
        "from engine.room.first import one",
        "from engine.room import first",
        "import engine.room.first",
        "from engine.room import one",
        "if True:\n    from engine.room.first import one",
        "def f():\n    import engine.room.first",
        "try:\n    pass\nfinally:\n    from engine.room import one",
    ],
)
def test_a_circle_is_found(second: str) -> None:
    files = {**MADE_UP, "engine/room/second.py": second}
    assert circles(import_graph(files)) == [("engine.room.first", "engine.room.second")]


@pytest.mark.parametrize(
    "second",
    [
        "two = 2",
        "import engine.room",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from engine.room.first import one",
        "import first",
    ],
)
def test_what_is_no_circle_is_none(second: str) -> None:
    assert circles(import_graph({**MADE_UP, "engine/room/second.py": second})) == []
