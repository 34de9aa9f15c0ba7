"""Does a process in which a learner was built keep the numerics of its recipe?"""

from __future__ import annotations

import subprocess
import sys

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
