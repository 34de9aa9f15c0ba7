"""Is what the rooms need to know of a method or task stated by its settings, and never concluded from which it is?"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import engine
import engine.objectives
from engine.recipes import METHODS, TaskSettings

ENGINE = Path(engine.__file__).resolve().parent
ROOMS_THAT_KNOW = ("recipes/", "methods/")
ROOMS_THAT_KNOW_TASKS = ("recipes/", "tasks/")
OWNERS = {"method", "peer_method", "inside"}
# What is one object under several names, a tensor or a module, is known by nothing but its identity.
LOOKS_FOR_WHAT_IS_SHARED = {"backbones/own_file.py", "backbones/shapes.py"}
CONCRETE = {settings.__name__ for settings in METHODS.values()}
TASKS = {each.__name__ for each in TaskSettings.__subclasses__() if each.__module__ == TaskSettings.__module__}
# A loss has the name of the settings of classification.
CONCRETE_TASKS = (TASKS | {f"{name}Task" for name in TASKS}) - set(engine.objectives.__all__)


def sources() -> dict[str, str]:
    return {path.relative_to(ENGINE).as_posix(): path.read_text() for path in sorted(ENGINE.rglob("*.py"))}


def _with_parents(node: ast.AST, trail: tuple[ast.AST, ...] = ()) -> Iterator[tuple[ast.AST, tuple[ast.AST, ...]]]:
    yield node, trail
    for child in ast.iter_child_nodes(node):
        yield from _with_parents(child, (*trail, node))


def _is_printed(node: ast.AST, trail: tuple[ast.AST, ...]) -> bool:
    """Return whether a word goes into a text, a record or what a function returns, and nothing else is done with it."""
    inner = node
    for outer in reversed(trail):
        if isinstance(outer, ast.IfExp) and inner is not outer.test:
            inner = outer
            continue
        if isinstance(outer, ast.FormattedValue):
            calls = [ast.unparse(each.func) for each in trail if isinstance(each, ast.Call)]
            return not any(name.endswith(("import_module", "getattr")) for name in calls)
        return isinstance(outer, ast.Return) or (isinstance(outer, ast.Dict) and inner in outer.values)
    return False


def kinds_asked(path: str, source: str, owners: set[str] = OWNERS, concrete: set[str] = CONCRETE) -> list[str]:
    """Return where a method's kind is more than a word to print, or settings are compared with a method's own class.

    Args:
        path: of the file, for what is returned.
        source: its text.
        owners: names under which the settings go; those of methods unless given.
        concrete: names of their classes.
    """
    found = []
    for node, trail in _with_parents(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr == "kind":
            owner = ast.unparse(node.value).rpartition(".")[2]
            if owner in owners and not _is_printed(node, trail):
                found.append(f"{path}:{node.lineno}: uses {ast.unparse(node)}")
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"isinstance", "issubclass"}:
            asked = [*ast.walk(node.args[1])]
        elif isinstance(node, ast.Compare):
            asked = [node.left, *node.comparators]
        elif isinstance(node, ast.MatchClass):
            asked = [node.cls]
        else:
            continue
        names = {ast.unparse(each).rpartition(".")[2] for each in asked if isinstance(each, ast.Name | ast.Attribute)}
        found += [f"{path}:{node.lineno}: asks for {name}" for name in sorted(names & concrete)]
    return found


def told_from(path: str, source: str, functions: set[str], owners: set[str]) -> list[str]:
    """Return the calls of some of Python's functions whose first argument goes under one of some names."""
    if not any(word in source for word in functions):
        return []
    return [
        f"{path}:{node.lineno}: {ast.unparse(node)}"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in functions
        and node.args
        and ast.unparse(node.args[0]).rpartition(".")[2] in owners
    ]


def fetched_by_name(path: str, source: str) -> list[str]:
    """Return where something is fetched from the settings of a method that their class does not promise."""
    return told_from(path, source, {"getattr", "hasattr"}, OWNERS)


def tasks_recognised(path: str, source: str) -> list[str]:
    """Return where a task is told by its class, its kind, or by what it happens to have, instead of being asked."""
    functions = {"getattr", "hasattr", "isinstance", "type"}
    return kinds_asked(path, source, {"task"}, CONCRETE_TASKS) + told_from(path, source, functions, {"task"})


def compared_by_identity(path: str, source: str) -> list[str]:
    """Return where the identity of an object is taken for its name."""
    return [
        f"{path}:{node.lineno}: {ast.unparse(node)}"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "id"
    ]


def test_nothing_is_compared_by_identity() -> None:
    others = {path: source for path, source in sources().items() if path not in LOOKS_FOR_WHAT_IS_SHARED}
    assert [problem for path, source in others.items() for problem in compared_by_identity(path, source)] == []
    assert compared_by_identity("a.py", "seen[id(program)] = 1") == ["a.py:1: id(program)"]


def test_no_room_concludes_anything_from_which_method_it_is() -> None:
    others = {path: source for path, source in sources().items() if not path.startswith(ROOMS_THAT_KNOW)}
    assert len(others) > 100
    assert [problem for path, source in others.items() for problem in kinds_asked(path, source)] == []


def test_nothing_is_fetched_from_a_method_by_name() -> None:
    assert [problem for path, source in sources().items() for problem in fetched_by_name(path, source)] == []


def test_tasks_are_asked_and_never_recognised() -> None:
    others = {path: source for path, source in sources().items() if not path.startswith(ROOMS_THAT_KNOW_TASKS)}
    assert [problem for path, source in others.items() for problem in tasks_recognised(path, source)] == []
    assert {"Retrieval", "OwnTask", "SegmentationTask"} <= CONCRETE_TASKS


@pytest.mark.parametrize(
    "source",
    [
        "isinstance(recipe.task, Retrieval)",
        "isinstance(then, OwnTask)",
        "isinstance(recipe.task, Classification)",
        "isinstance(task_of(recipe, facts), SegmentationTask)",
        "hasattr(run.recipe.task, 'evaluation_flip')",
        "value = getattr(recipe.task, fields[0])",
        "type(task) is tasks.Segmentation",
        "if recipe.task.kind == 'retrieval': pass",
    ],
)
def test_a_task_that_is_recognised_is_found(source: str) -> None:
    assert tasks_recognised("training/a.py", source) != []


@pytest.mark.parametrize(
    "source",
    [
        "if recipe.task.needs_matches: pass",
        "raise RunError(f'task.kind={recipe.task.kind} compares no features')",
        "isinstance(term, Classification)",
        "getattr(torch, name)",
    ],
)
def test_a_task_that_is_asked_is_allowed(source: str) -> None:
    assert tasks_recognised("training/a.py", source) == []


@pytest.mark.parametrize(
    "source",
    [
        "if recipe.method.kind == 'dlb': pass",
        "x = TABLE[recipe.method.kind]",
        "kind = recipe.method.kind",
        "importlib.import_module(f'engine.methods.{recipe.method.kind}')",
        "x = 1 if method.kind else 2",
        "isinstance(recipe.method, DML)",
        "isinstance(method, (recipes.EndToEnd, int))",
        "isinstance(method, DML | EndToEnd)",
        "type(method) is GKT",
        "match method:\n    case MKF():\n        pass",
    ],
)
def test_a_question_for_the_kind_is_found(source: str) -> None:
    assert kinds_asked("runtimes/a.py", source) != []


@pytest.mark.parametrize(
    "source",
    [
        "raise PlanError(f'method.kind={recipe.method.kind} does not cut')",
        "values = {'method': run.recipe.method.kind}",
        "def label(recipe):\n    return recipe.method.kind if k is None else f'{recipe.method.kind}, K = {k}'",
        "isinstance(method, Segmented)",
        "transport.kind == 'direct'",
    ],
)
def test_a_printed_kind_is_allowed(source: str) -> None:
    assert kinds_asked("runtimes/a.py", source) == []


def test_a_fetch_by_name_is_found() -> None:
    assert fetched_by_name("a.py", "getattr(recipe.method, 'paired_images', 'none')") != []
    assert fetched_by_name("a.py", "hasattr(method, 'peers')") != []
    assert fetched_by_name("a.py", "getattr(module, 'METHOD')") == []
