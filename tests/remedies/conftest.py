"""How is a remedy taken out of a message and followed?"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from engine.data import open_source
from engine.errors import EngineError, InputError
from engine.methods import method_of
from engine.recipes import Plan, Recipe, apply_overrides
from engine.runtimes import open_runtime
from engine.runtimes.replicated import check_replicable
from engine.training.preview import check_batches

Words = list[str]
Take = Callable[[Words], None]

_FIRST_REMEDY = re.compile(r"\b(set|choose|give|use|expected|as in|leave)\b", re.IGNORECASE)
_ASSIGNMENT = re.compile(r"(?<![\w.=/])[a-z_]+(?:\.\w+)*=(?:[^\s;:]|:(?=\S))+")
_LEFT_OUT = re.compile(r"\bleave (it|them|the field|the fields) out", re.IGNORECASE)


@pytest.fixture
def start(tiny_recipe: Callable[..., Recipe]) -> Callable[[Words], None]:
    """A function: prepare a training of the tiny recipe with these words, up to the learners with their weights."""

    def run(words: Words) -> None:
        _begin(tiny_recipe(epochs=1), words, steps=0)

    return run


@pytest.fixture
def train(tiny_recipe: Callable[..., Recipe]) -> Callable[[Words], None]:
    """A function: take the first steps of a training of the tiny recipe with these words."""

    def run(words: Words) -> None:
        _begin(tiny_recipe(epochs=1), words, steps=2)

    return run


def _begin(recipe: Recipe, words: Words, steps: int) -> None:
    recipe, plan = apply_overrides(recipe, Plan(executor="process"), words)
    source = open_source(recipe.data, recipe.seed, paired_images=recipe.method.paired_images)
    try:
        team = method_of(recipe).team(recipe, source.facts)
        check_batches(recipe, source.facts)
        if plan.executor == "ray":
            # No word decides whether Ray starts here.
            check_replicable(recipe, source.facts, plan)
            return
        runtime = open_runtime(recipe, source.facts, team, source.steps_per_epoch(), plan)
        try:
            for step in range(steps):
                runtime.submit(team.program(step), source.batch(0, step))
            runtime.finish()
        finally:
            runtime.close()
    finally:
        source.close()


@pytest.fixture
def follow() -> Callable[..., None]:
    """A function: see some words refused, and do each thing that the message says; all must be accepted.

    Its arguments are a function that takes the words, the words, and for remedies in prose pairs of a regular
    expression and the words that it means, in which ``{0}`` is its first group; an empty word stands for leaving out
    what was refused.
    """

    def run(take: Take, words: Words, prose: Sequence[tuple[str, str]] = ()) -> None:
        with pytest.raises(InputError) as refused:
            take(words)
        message = str(refused.value)
        remedies = [*_assignments(message), *_left_out(message, words)]
        for pattern, meant in prose:
            found = re.search(pattern, message)
            assert found, f"the message no longer says {pattern!r}: {message}"
            remedies.append(meant.format(*found.groups()).split())
        assert remedies, f"no remedy was found in: {message}"
        for remedy in remedies:
            changed = _changed(words, remedy)
            try:
                take(changed)
            except InputError as error:
                raise AssertionError(f"{message}\nwas followed to {changed}, which is refused: {error}") from error

    return run


@pytest.fixture
def refused() -> Callable[..., re.Match[str]]:
    """A function: see a call refused with words that match, and return the match."""

    def run(words: str, call: Callable[[], object]) -> re.Match[str]:
        with pytest.raises(EngineError) as found:
            call()
        match = re.search(words, str(found.value), re.DOTALL)
        assert match, f"the message no longer says {words!r}: {found.value}"
        return match

    return run


@pytest.fixture
def opened(tiny_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, list[str]], int]:
    """A function: open a set with these words, read its first batch, and return how many training images it has."""

    def run(root: Path, words: list[str], strict_counts: bool = True) -> int:
        fields = {
            "name": "folder",
            "train_limit": None,
            "test_limit": None,
            "batch_size": 2,
            "evaluation_batch_size": 2,
        }
        recipe = tiny_recipe(data={**fields, "root": str(root)})
        with monkeypatch.context() as surroundings:
            surroundings.setenv("LOCAL_LEARNING_CACHE", str(root.parent / "cache"))
            for word in [word for word in words if not word.startswith("data.")]:
                surroundings.setenv(*word.split("="))
                words = [other for other in words if other != word]
            recipe, _ = apply_overrides(recipe, Plan(), words)
            source = open_source(recipe.data, 0, strict_counts=strict_counts)
            try:
                source.batch(0, 0)
                return source.facts.sizes["train"]
            finally:
                source.close()

    return run


def _shell(command: str, folder: Path) -> None:
    """Do what a user would."""
    subprocess.run(["sh", "-ec", command], cwd=folder, check=True, env={"PATH": os.environ["PATH"]})


@pytest.fixture
def repair(opened: Callable[..., int], tmp_path: Path) -> Callable[..., None]:
    """A function: see a data set refused, and do each thing that the message says, on a copy of its own.

    Its arguments are the whole set, words of the recipe, what a shell does to the copy before, and the remedies: what
    the message says, a command of the shell or a word that does it, in which "{0}" is the first group, and how many
    training images there must be then. Named arguments are those of `opened`.
    """

    def run(whole: Path, words: str, before: str, remedies: Sequence[tuple[str, str, int]], **named: bool) -> None:
        for number, (says, meant, images) in enumerate(remedies):
            root = tmp_path / f"{number}" / "set"
            shutil.copytree(whole, root)
            _shell(before, root)
            given = words.format(root=root).split()
            with pytest.raises(InputError) as refused:
                opened(root, given, **named)
            message = str(refused.value)
            found = re.search(says, message)
            assert found, f"the message no longer says {says!r}: {message}"
            remedy = meant.format(*found.groups(), root=root)
            if re.match(r"[\w.]+=", remedy):
                replaced = {word.partition("=")[0] for word in remedy.split()}
                given = [word for word in given if word.partition("=")[0] not in replaced] + remedy.split()
            else:
                _shell(remedy, root)
            try:
                left = opened(root, given, **named)
            except InputError as error:
                raise AssertionError(f"{message}\nwas followed by {remedy}, which is refused: {error}") from error
            assert left == images, f"{message}\nwas followed by {remedy}"

    return run


def _assignments(message: str) -> list[Words]:
    """Return the alternatives that a message prints as ``field=value``, those joined by "and" as one."""
    first = _FIRST_REMEDY.search(message)
    if first is None:
        return []
    found: list[Words] = []
    end = 0
    for match in _ASSIGNMENT.finditer(message, first.end()):
        word = match[0].rstrip(",.)")
        if found and message[end : match.start()] in (" ", " and "):
            found[-1].append(word)
        else:
            found.append([word])
        end = match.start() + len(word)
    return found


def _left_out(message: str, words: Words) -> list[Words]:
    if not _LEFT_OUT.search(message):
        return []
    named = next(word for word in words if word.partition("=")[0] in message)
    return [[named.partition("=")[0]]]


def _changed(words: Words, remedy: Words) -> Words:
    """Return the words with those of a remedy, without what they replace; a field without value is left out."""
    fields = {word.partition("=")[0] for word in remedy}
    given = {word: word.partition("=")[0] for word in words}
    kept = [
        word for word, name in given.items() if not any(_holds(name, field) or _holds(field, name) for field in fields)
    ]
    for word in remedy:
        name, _, _ = word.partition("=")
        if name.endswith("kind"):
            # Fields of another kind of method go with it.
            kept = [other for other in kept if not other.startswith(f"{name.removesuffix('kind')}")]
    return [*kept, *(word for word in remedy if "=" in word)]


def _holds(name: str, other: str) -> bool:
    return f"{other}.".startswith(f"{name}.")
