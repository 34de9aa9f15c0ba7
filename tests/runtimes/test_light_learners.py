"""What a learner's process does not load: torch's compiler and torchvision, seconds and 150 MB of each."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.data import open_source
from engine.methods import method_of
from engine.recipes import Adam, EndToEnd, Greedy, InfoPro, Recipe, RMSProp
from engine.runtimes.ray.blueprint import Blueprint

TRAIN = """
import json, pickle, sys
import engine.runtimes.ray.actor

blueprint, name, batch = pickle.load(open(sys.argv[1], "rb"))
learner = blueprint.build(name)
learner.call("forward", batch, {})
learner.call("update", None, {})
learner.ask("state")
print(json.dumps([kind for kind in ("torch._dynamo", "torchvision", "sympy", "triton") if kind in sys.modules]))
"""

METHODS = {
    "infopro": {"method": InfoPro(num_segments=3, cuts="balanced_memory")},
    "adam": {"method": EndToEnd(), "optimizer": Adam(learning_rate=1e-3)},
    "rmsprop": {"method": Greedy(num_segments=2, cuts="balanced_time"), "optimizer": RMSProp(learning_rate=1e-3)},
}


@pytest.mark.parametrize(
    "case", ["infopro", *(pytest.param(case, marks=pytest.mark.slow) for case in METHODS if case != "infopro")]
)
def test_a_learner_loads_neither_the_compiler_nor_torchvision(
    case: str, tiny_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    recipe = tiny_recipe(**METHODS[case])
    source = open_source(recipe.data, recipe.seed)
    first = method_of(recipe).team(recipe, source.facts).learners[0].name
    batch = source.batch(0, 0)
    blueprint = Blueprint.of(recipe, source.facts, 4, False, False)
    (tmp_path / "given").write_bytes(pickle.dumps((blueprint, first, batch)))
    words = [sys.executable, "-c", TRAIN, str(tmp_path / "given")]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []
