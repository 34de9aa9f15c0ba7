"""Is every file short, documented, and readable by every supported Python?"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import engine

ENGINE = Path(engine.__file__).resolve().parent
PATHS = sorted(ENGINE.rglob("*.py")) + sorted((ENGINE.parent / "experiments").rglob("*.py"))
TESTS = sorted((ENGINE.parent / "tests").rglob("*.py"))
LONGEST = 300
# A module's docstring begins with what it is, in the field's term; only tests ask.
QUESTIONS = ("Are", "Do", "Does", "How", "Is", "What", "When", "Where", "Whether", "Which", "Who", "Why")
OLDEST_PYTHON = (3, 10)

# Names that came with Python 3.11 or later, by module.
TOO_NEW = {
    "typing": {"Self", "LiteralString", "Never", "assert_never", "NotRequired", "Required", "Unpack", "TypeVarTuple"}
    | {"override", "dataclass_transform", "assert_type", "reveal_type", "TypeAliasType"},
    "enum": {"StrEnum", "ReprEnum", "verify"},
    "datetime": {"UTC"},
    "itertools": {"batched"},
    "contextlib": {"chdir"},
    "asyncio": {"TaskGroup", "timeout", "Runner"},
}
NEW_MODULES = {"tomllib"}
NEW_BUILTINS = {"ExceptionGroup", "BaseExceptionGroup"}

Documented = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def public_parts(tree: ast.Module) -> Iterator[Documented]:
    """Yield public functions and classes of a module, and the public methods of its public classes."""
    for node in tree.body:
        if isinstance(node, Documented) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                for part in node.body:
                    if isinstance(part, Documented) and not part.name.startswith("_"):
                        yield part


def undocumented(source: str) -> list[str]:
    """Return what has no docstring, or an empty one."""
    tree = ast.parse(source)
    found = [] if (ast.get_docstring(tree) or "").strip() else ["the module"]
    return found + [node.name for node in public_parts(tree) if not (ast.get_docstring(node) or "").strip()]


def running(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield all nodes except those for type checkers only, which never run."""
    yield tree
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        yield from running(child)


def too_new(source: str) -> list[str]:
    """Return what the oldest supported Python does not know."""
    try:
        tree = ast.parse(source, feature_version=OLDEST_PYTHON)
    except SyntaxError as error:
        return [f"line {error.lineno}: {error.msg}"]
    found = []
    for node in running(tree):
        if isinstance(node, ast.ImportFrom):
            names = {alias.name for alias in node.names}
            found += sorted(names & TOO_NEW.get(node.module or "", set()))
            found += [node.module] if node.module in NEW_MODULES else []
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name in NEW_MODULES]
        elif isinstance(node, ast.Attribute) and node.attr in TOO_NEW.get(ast.unparse(node.value), set()):
            found.append(ast.unparse(node))
        elif isinstance(node, ast.Name) and node.id in NEW_BUILTINS:
            found.append(node.id)
    return [str(name) for name in found]


def defers_annotations(source: str) -> bool:
    """Return whether annotations are not evaluated, or there is nothing in the file that could have one."""
    body = ast.parse(source).body
    if not any(isinstance(node, (*Documented.__args__, ast.AnnAssign)) for node in body):
        return True
    return any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in body)


def content(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def shown(path: Path) -> str:
    return path.relative_to(ENGINE.parent).as_posix()


@pytest.mark.parametrize("path", PATHS + TESTS, ids=shown)
def test_a_file_is_short(path: Path) -> None:
    assert len(content(path).splitlines()) <= LONGEST


@pytest.mark.parametrize("path", [path for path in PATHS if path.is_relative_to(ENGINE)], ids=shown)
def test_everything_public_has_a_docstring(path: Path) -> None:
    assert undocumented(content(path)) == []


@pytest.mark.parametrize("path", PATHS, ids=shown)
def test_a_module_says_what_it_is_instead_of_asking(path: Path) -> None:
    first = (ast.get_docstring(ast.parse(content(path))) or "").partition("\n")[0]
    assert first.partition(" ")[0] not in QUESTIONS and "?" not in first


@pytest.mark.parametrize("path", PATHS, ids=shown)
def test_a_file_runs_on_the_oldest_supported_python(path: Path) -> None:
    assert too_new(content(path)) == []
    assert defers_annotations(content(path))


def test_there_is_something_to_check() -> None:
    assert len(PATHS) > 50
    assert {"engine/program.py", "experiments/recipes/digits.py"} <= set(map(shown, PATHS))


@pytest.mark.parametrize(
    ("source", "missing"),
    [
        ("x = 1", ["the module"]),
        ('"""a"""\ndef f():\n    pass', ["f"]),
        ('"""a"""\nclass C:\n    """c"""\n    def m(self):\n        pass', ["m"]),
        ('"""a"""\nasync def f():\n    """ """', ["f"]),
        ('"""a"""\nclass _C:\n    def m(self):\n        pass\ndef _f():\n    def g():\n        pass', []),
        ('"""a"""\nclass C:\n    """c"""\n    def __init__(self):\n        pass', []),
    ],
)
def test_what_lacks_a_docstring_is_found(source: str, missing: list[str]) -> None:
    assert undocumented(source) == missing


@pytest.mark.parametrize(
    "source",
    [
        "from typing import Self",
        "import tomllib",
        "try:\n    f()\nexcept* ValueError:\n    pass",
        "import enum\nclass A(enum.StrEnum):\n    pass",
        "def f[T](x: T) -> T:\n    return x",
        "raise ExceptionGroup('x', [])",
    ],
)
def test_what_is_too_new_is_found(source: str) -> None:
    assert len(too_new(source)) == 1


def test_what_is_for_type_checkers_only_may_be_new() -> None:
    assert too_new("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from typing import Self") == []


def test_annotations_that_would_be_evaluated_are_found() -> None:
    assert not defers_annotations("def f(x: int | None): ...")
    assert defers_annotations("from __future__ import annotations\ndef f(x: int | None): ...")
    assert defers_annotations('"""a"""\nfrom a import b\n__all__ = ["b"]')
