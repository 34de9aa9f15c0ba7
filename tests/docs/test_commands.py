"""Are the commands and fields that the pages name those that there are?"""

from __future__ import annotations

import dataclasses
import importlib
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.cli.main import COMMANDS
from engine.cli.words import Parser
from engine.errors import EngineError, InputError
from engine.recipes import METHODS, Plan, Retrieval, apply_overrides, load_recipe

PROJECT = Path(__file__).resolve().parents[2]
STAND_IN = "infopro_digits"

_COMMAND = re.compile(r"""(?:^|(?<=[\s'"(]))local-learning (.*)""")


def _lines(page: Any) -> Iterator[str]:
    """Yield what a reader may type: lines of blocks, and what stands between backticks."""
    for block in page.blocks:
        if block.language in ("", "bash", "console"):
            yield from block.logical_lines
    yield from page.code_spans


def _commands(page: Any) -> Iterator[list[str]]:
    """Yield the words of each command line of this program."""
    for line in _lines(page):
        found = _COMMAND.search(line)
        if found is None:
            continue
        text, before = found[1], line[: found.start()]
        if before.endswith(("'", '"')):
            text = text[: text.index(before[-1])]
        words = shlex.split(text.replace("(shortened)", ""), comments=True)
        # Dots at the end stand for what is the same as in another command.
        yield [word for word in words if word != "..."]


def _is_placeholder(word: str) -> bool:
    return re.search(r"\b[A-Z]{2,}\b", word) is not None or word.endswith(".py")


def _check_recipe(recipe: str, fields: list[str]) -> None:
    loaded = load_recipe(STAND_IN if _is_placeholder(recipe) or "/" in recipe else recipe)
    # A field of a file of the reader's own is checked where its page is run.
    apply_overrides(loaded, Plan(), [field for field in fields if ".py:" not in field])


def _check_sweep(options: Any) -> None:
    from engine.search import load_sweep

    if not _is_placeholder(options.sweep):
        _check_recipe(load_sweep(options.sweep).base().name, options.fields)


def _check_compare(options: Any) -> None:
    from engine.cli.compare import recipes_and_plan, seeds_of

    seeds_of(options.seeds)
    if not any(_is_placeholder(word) for word in options.words):
        recipes_and_plan(options.words, options.on, options.address)


def _check_measure(options: Any) -> None:
    from engine.benchmarking.baseline_cases import TITLES
    from engine.cli.measure import numbers_of_segments

    numbers_of_segments(options.k)
    assert set(options.against.split(",")) <= {*TITLES, "none"}
    _check_recipe(options.recipe, options.fields)


CHECKS: dict[str, Callable[[Any], None]] = {
    "train": lambda options: _check_recipe(options.recipe, options.fields),
    "estimate": lambda options: _check_recipe(options.recipe, options.fields),
    "measure": _check_measure,
    "compare": _check_compare,
    "sweep": _check_sweep,
}


def check(words: list[str]) -> None:
    """Raise InputError if a command line cannot be meant: its command, options, recipe or fields do not exist."""
    command, *rest = words or [""]
    if command not in COMMANDS:
        raise InputError(f"{command}: there is no such command")
    parser = Parser(command, "", "")
    parser.add_argument("--json", action="store_true")
    importlib.import_module(COMMANDS[command][0]).add_arguments(parser)
    # A command that is only named, as in "evaluate takes its folder", has no words.
    if rest:
        options = parser.read(rest)
        CHECKS.get(command, lambda _: None)(options)


def test_command_lines_can_be_meant(pages: dict[Path, Any]) -> None:
    wrong = []
    for page in pages.values():
        for words in _commands(page):
            try:
                check(words)
            except EngineError as error:
                wrong.append(f"{page}: local-learning {shlex.join(words)}: {error}")
    assert wrong == []


@pytest.mark.parametrize(
    "line",
    [
        "trian infopro_digits",
        "train infopro_digit",
        "train infopro_digits method.num_segment=2",
        "train infopro_digits epochs=none",
        "train infopro_digits --of process",
        "compare infopro_digits greedy_digit",
        "sweep k_digit",
        "sweep k_digits data.rot=DIR",
        "estimate infopro_digits --gpu-memories 1GB",
        "list recipe",
    ],
)
def test_a_wrong_command_line_would_be_seen(line: str) -> None:
    with pytest.raises(InputError):
        check(line.split())


def test_the_commands_are_found(pages: dict[Path, Any]) -> None:
    found = [words for page in pages.values() for words in _commands(page)]
    assert len(found) > 60
    assert {words[0] for words in found} >= COMMANDS.keys()


def test_experiments_that_are_named_can_be_started(pages: dict[Path, Any]) -> None:
    started = set()
    for line in (line for page in pages.values() for line in _lines(page)):
        found = re.match(r"(?:\$ )?python (?:-m (experiments[\w.]+)|((?:experiments|tests)/\S+\.py))(.*)", line)
        if found is None:
            continue
        path = PROJECT / (found[2] or found[1].replace(".", "/") + ".py")
        assert path.is_file(), line
        options = [word for word in shlex.split(found[3], comments=True) if word.startswith("--")]
        assert [option for option in options if f'"{option}"' not in path.read_text()] == [], line
        started.add(path)
    assert len(started) > 10


def test_targets_of_make_that_are_named_exist(pages: dict[Path, Any]) -> None:
    targets = set(re.findall(r"^(\w+):", (PROJECT / "Makefile").read_text(), re.MULTILINE))
    typed = [line.split() for page in pages.values() for line in _lines(page)]
    named = {words[1] for words in typed if words[:1] == ["make"] and len(words) > 1 and "=" not in words[1]}
    assert {"train", "test", "docs"} <= named <= targets


def _fields() -> dict[str, set[str]]:
    """Return the names of fields by the part of a recipe or plan that has them."""

    def names(settings: Any) -> set[str]:
        return {field.name for field in dataclasses.fields(settings)}

    recipe = load_recipe(STAND_IN)
    parts = {field.name: getattr(recipe, field.name) for field in dataclasses.fields(recipe)}
    found = {name: names(part) for name, part in parts.items() if dataclasses.is_dataclass(part)}
    found["method"] = set().union(*(names(settings) for settings in METHODS.values()))
    found["task"] |= names(Retrieval)
    found["plan"] = names(Plan)
    return found


def test_fields_that_are_named_exist(pages: dict[Path, Any]) -> None:
    fields = _fields()
    wrong, right = [], 0
    for page in pages.values():
        for span in page.code_spans:
            named = re.match(rf"({'|'.join(fields)})\.(?!json\b)([a-z_]+)(?![\w/(])", span)
            if named and named[2] not in fields[named[1]]:
                wrong.append(f"{page}: {span}")
            right += named is not None
    assert wrong == []
    assert right > 20
