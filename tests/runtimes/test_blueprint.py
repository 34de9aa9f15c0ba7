"""Is a learner built as its team was, and does its process keep the numerics of its recipe?"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.data import open_source
from engine.errors import RecipeError
from engine.recipes import Recipe
from engine.runtimes.ray.blueprint import Blueprint

CODE = """
import gc, torch, engine
from engine.data import open_source
from engine.runtimes.ray.blueprint import Blueprint

torch.set_num_threads(1)
recipe, _ = engine.apply_overrides(engine.load_recipe("infopro_digits"), engine.Plan(), ["numerics.threads=2"])
source = open_source(recipe.data, recipe.seed)
learner = Blueprint.of(recipe, source.facts, 10, False, False).build("segment0")
gc.collect()
print(torch.get_num_threads(), torch.are_deterministic_algorithms_enabled())
"""


def test_threads_and_determinism_last_as_long_as_the_process() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2", "True"]


def test_a_learner_is_not_built_from_a_newer_file_than_its_team(
    tiny_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    net = tmp_path / "net.py"
    net.write_text("def network(num_classes, image_shape): ...")
    recipe = tiny_recipe(method={"kind": "end_to_end"}, backbone={"name": f"{net}:network", "widths": None})
    blueprint = Blueprint.of(recipe, open_source(recipe.data, recipe.seed).facts, 10, False, False)
    net.write_text("def network(num_classes, image_shape, depth=3): ...")
    with pytest.raises(RecipeError, match=rf"^{net}: is another file on .* than this run's learners"):
        blueprint.build("network")
