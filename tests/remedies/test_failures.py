"""Does what is said of too little memory, of a missing compiler, or as a caution lead on, and lose nothing?"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray.exceptions
import torch

import engine
from engine.objectives import Objective
from engine.recipes import Plan, Recipe, apply_overrides, cautions
from engine.runtimes.process import ProcessRuntime
from engine.runtimes.ray.failures import as_engine_error

TinyRecipe = Callable[..., Recipe]
Refused = Callable[..., re.Match[str]]

LESS = (
    r"(numerics\.recompute=blocks), with which the run goes on to the same weights; otherwise lower (data\.batch_size)"
)
PLAN = Plan(executor="process", checkpoint_every_steps=2)


def raising(error: Exception) -> Callable[..., Any]:
    """Return a function that raises an error."""

    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


def test_a_learner_without_memory(
    tiny_recipe: TinyRecipe, tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.training.by_products.plot_curves", lambda *_: None)
    submit, made = ProcessRuntime.submit, [0]

    def until_memory_is_full(runtime: ProcessRuntime, program: Any, batch: Any) -> None:
        made[0] += 1
        if made[0] == 7:
            full.setattr(Objective, "forward", raising(torch.OutOfMemoryError("CUDA out of memory")))
        submit(runtime, program, batch)

    recipe, folder = tiny_recipe(), tmp_path / "run"
    with monkeypatch.context() as full:
        full.setattr(ProcessRuntime, "submit", until_memory_is_full)
        found = refused(f"out of memory .*set {LESS}", lambda: engine.train(recipe, PLAN, folder))
    less, _ = apply_overrides(recipe, PLAN, [found[1]])
    result = engine.train(less, PLAN, folder)
    assert re.search(r"goes on from .*step [24] of 8", (folder / "log.txt").read_text())
    assert result.weights_sha256 == engine.train(recipe, PLAN, tmp_path / "straight").weights_sha256
    smaller, _ = apply_overrides(recipe, PLAN, [f"{found[2]}=11"])
    assert engine.train(smaller, PLAN, tmp_path / "smaller", until_step=1).steps == 1


def test_a_node_without_memory_says_the_same() -> None:
    lost = ray.exceptions.OutOfMemoryError("the node was running low on memory")
    assert re.search(f"its node ran out of memory; set {LESS}", str(as_engine_error(lost, "segment0", 7)))


def test_a_compiler_that_is_missing(
    tiny_recipe: TinyRecipe, train: Callable[[list[str]], None], refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked for when the first batch passes through."""
    words = ["method.kind=end_to_end"]
    missing = RuntimeError("InvalidCxxCompiler: No working C++ compiler found")
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda module, *_, **__: module.register_forward_pre_hook(raising(missing))
    )
    found = refused(r"install one, or set (numerics\.compile=false)", lambda: train([*words, "numerics.compile=true"]))
    train([*words, found[1]])


CAUTIONS: list[tuple[str, str, list[tuple[str, str]]]] = [
    (
        "schedule.kind=cosine epochs=1",
        "falls from step to step",
        [(r"as with (schedule\.interval=step)", "{0}")],
    ),
    (
        "schedule.kind=cosine epochs=1 schedule.interval=step schedule.warmup_epochs=1 schedule.warmup_learning_rate=0",
        "at which nothing is learned",
        [("give more epochs", "epochs=2"), (r"or (schedule\.warmup_epochs=0)", "{0}")],
    ),
    (
        "method.kind=dml method.peers=4 method.reduction=sum method.weight=2",
        "training may diverge",
        [(r"(method\.reduction=mean) or", "{0}")],
    ),
    (
        "method.kind=dml method.peers=8 method.reduction=sum method.weight=5",
        "training may diverge",
        [(r"(method\.weight=[\d.]+) or", "{0}")],
    ),
    ("method.kind=dml method.weight=5", "training may diverge", [(r"(method\.weight=3) or", "{0}")]),
]


@pytest.mark.parametrize(("words", "about", "remedies"), CAUTIONS)
def test_a_caution_goes_away(words: str, about: str, remedies: list[tuple[str, str]], tiny_recipe: TinyRecipe) -> None:
    def cautioned(given: list[str]) -> list[str]:
        changed = {word.partition("=")[0]: word for word in given}
        recipe, _ = apply_overrides(tiny_recipe(), Plan(), [*changed.values()])
        return [line for line in cautions(recipe) if about in line]

    (line,) = cautioned(words.split())
    for says, meant in remedies:
        found = re.search(says, line)
        assert found, line
        assert not cautioned([*words.split(), meant.format(*found.groups())])
