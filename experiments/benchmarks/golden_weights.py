"""The weights that every shipped recipe trains: a change that must change no number prints the same before and after.

    python -m experiments.benchmarks.golden_weights > before.txt
    python -m experiments.benchmarks.golden_weights > after.txt && diff before.txt after.txt

Every recipe whose name ends in _tiny is trained in this process, the first one of each method on Ray, too. A line
is executor, recipe, and the SHA-256 of the weights. They depend on the processor and on the version of torch, so both
runs must be made on one machine. With names as arguments, only those recipes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Literal

import engine
from engine.recipes import Recipe, nearest, shipped_recipes
from engine.runtimes.ray import start_private_ray


def tiny_recipes(wanted: list[str]) -> dict[str, Recipe]:
    """Return the recipes to train, by name."""
    every = {name: make for name, make in sorted(shipped_recipes().items()) if name.endswith("_tiny")}
    for name in wanted:
        if name not in every:
            sys.exit(f"{name}: there is no such tiny recipe{nearest(name, every)}")
    return {name: make() for name, make in every.items() if not wanted or name in wanted}


def show(executor: Literal["process", "ray"], name: str, recipe: Recipe) -> None:
    """Train a recipe in a folder that does not stay, and print its line."""
    with tempfile.TemporaryDirectory() as folder:
        result = engine.train(recipe, engine.Plan(executor=executor), Path(folder) / "run")
    print(executor, name, result.weights_sha256, flush=True)


def main() -> int:
    """Print a line for each training."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", metavar="RECIPE", nargs="*")
    recipes = tiny_recipes(parser.parse_args().names)
    for name, recipe in recipes.items():
        show("process", name, recipe)
    import ray

    start_private_ray()
    try:
        # The last one that is put in stays, so the first of each method is put in last.
        of_methods = {type(recipe.method): name for name, recipe in reversed(recipes.items())}
        for name in sorted(of_methods.values()):
            show("ray", name, recipes[name])
    finally:
        ray.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
