"""numerics.compile compiles each learner's networks and changes no name in its state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from engine.data import open_source
from engine.learners import Learner
from engine.methods import method_of
from engine.recipes import Numerics, Recipe


def _first_learner(recipe: Recipe) -> Learner:
    source = open_source(recipe.data, recipe.seed)
    method = method_of(recipe)
    name = method.team(recipe, source.facts).names[0]
    return method.build_learner(recipe, source.facts, source.steps_per_epoch(), name, torch.device("cpu"))


def test_body_and_auxiliary_networks_are_compiled(
    tiny_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[nn.Module] = []
    monkeypatch.setattr(nn.Module, "compile", lambda module, *words, **more: compiled.append(module))
    plain = _first_learner(tiny_recipe())
    assert compiled == []
    learner = _first_learner(tiny_recipe(numerics=Numerics(compile=True)))
    assert compiled == [learner.body, learner.objective]
    assert learner.ask_state().tensors.keys() == plain.ask_state().tensors.keys()


def test_a_missing_compiler_is_explained(tiny_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tiny_recipe()
    learner = _first_learner(recipe)

    def fail(*_: Any) -> None:
        raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found in the configuration")

    monkeypatch.setattr(learner.body, "forward", fail)
    with pytest.raises(Exception, match=r"segment0.*numerics\.compile=false"):
        learner.call("forward", open_source(recipe.data, recipe.seed).batch(0, 0), {})
