"""`local-learning train`: a training from the command line."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from engine.cli.outcome import Outcome
from engine.cli.words import PROGRAM, command_that_goes_on, refuse_field, words_of_flags
from engine.errors import EXIT_INTERRUPTED, EXIT_SUCCESS, PlanError, RunError
from engine.paths import absolute

if TYPE_CHECKING:
    from engine.recipes import Plan, Recipe

EPILOG = f"""examples:
  {PROGRAM} train infopro_digits
  {PROGRAM} train infopro_digits method.num_segments=4 epochs=2 plan.window=4 --on process
  {PROGRAM} train my_recipe.py data.root=../pictures --dry-run
  {PROGRAM} train runs/infopro_digits-01234567/recipe.json seed=1

`{PROGRAM} train RECIPE --dry-run --json` shows every field of the recipe and the plan with its value."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """State the words that may follow ``train``."""
    parser.add_argument("recipe", metavar="RECIPE", help="name of a recipe, FILE.py with recipe(), or a recipe.json")
    parser.add_argument("fields", metavar="field=value", nargs="*", help="changes, such as epochs=2 or plan.window=4")
    parser.add_argument("--on", choices=("ray", "process"), help="one Ray actor per learner, or all in this process")
    parser.add_argument("--address", metavar="A", help="Ray cluster to join, such as auto or HOST:6379")
    parser.add_argument("--run-dir", metavar="DIR", help="run folder; runs/NAME-DIGEST unless given")
    parser.add_argument(
        "--resume",
        choices=("auto", "never"),
        default="auto",
        help="go on with the run in the folder (auto), or start a new one beside it (never)",
    )
    parser.add_argument("--dry-run", action="store_true", help="only show what would be done; write nothing")


def run(options: argparse.Namespace) -> Outcome:
    """Train, or with ``--dry-run`` say what would be trained."""
    recipe, plan = _recipe_and_plan(options)
    folder = absolute(options.run_dir, "--run-dir", RunError) if options.run_dir is not None else None
    if options.dry_run:
        from engine.cli.dry_run import describe

        return describe(recipe, plan, folder, options.resume)
    from engine.cli.summary import summary_lines
    from engine.tasks import headline_of
    from engine.tracking import open_console
    from engine.training import train

    with open_console(sys.stderr, quiet=False) as console:
        result = train(recipe, plan, folder, options.resume, console)
    interrupted = result.status == "interrupted"
    lines = summary_lines(result, headline_of(recipe))
    if interrupted:
        command = command_that_goes_on(result.run_dir, options.resume)
        lines.append(f"interrupted after step {result.steps:,}; {command} goes on")
    return Outcome(lines, result.to_json(), EXIT_INTERRUPTED if interrupted else EXIT_SUCCESS)


def _recipe_and_plan(options: argparse.Namespace) -> tuple[Recipe, Plan]:
    refuse_field(options.recipe)
    from engine.recipes import Plan, apply_overrides, load_recipe, shipped_recipes, with_absolute_paths

    words = [*options.fields, *words_of_flags(options.fields, options.on, options.address)]
    shipped = None
    if options.run_dir is not None and os.path.abspath(options.run_dir) == os.path.abspath(options.recipe):
        # The folder is where the run lies, so the word is not where its recipe comes from.
        shipped = shipped_recipes().get(options.recipe)
    recipe, plan = apply_overrides(shipped() if shipped else load_recipe(options.recipe), Plan(), words)
    recipe = with_absolute_paths(recipe)
    if options.address and plan.executor != "ray":
        raise PlanError(
            f"--address {options.address} means a Ray cluster, but --on {plan.executor} uses no Ray: leave one of the "
            "two out"
        )
    return recipe, plan
