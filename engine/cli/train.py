"""`local-learning train`: a training from the command line."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine.cli.outcome import Outcome
from engine.cli.words import PROGRAM
from engine.errors import EXIT_INTERRUPTED, EXIT_SUCCESS, PlanError, RecipeError, RunError
from engine.paths import absolute

if TYPE_CHECKING:
    from engine.recipes import Plan, Recipe
    from engine.training import Result

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
    lines = summary_lines(result, headline_of(recipe)) + ([_how_to_go_on(result, options)] if interrupted else [])
    return Outcome(lines, result.to_json(), EXIT_INTERRUPTED if interrupted else EXIT_SUCCESS)


def _recipe_and_plan(options: argparse.Namespace) -> tuple[Recipe, Plan]:
    if "=" in options.recipe and not options.recipe.endswith((".py", ".json")):
        raise RecipeError(f"{options.recipe}: no recipe is given before it; `{PROGRAM} list recipes` shows them")
    from engine.recipes import Plan, apply_overrides, load_recipe, with_absolute_paths

    wanted = {"plan.executor": options.on, "plan.address": options.address}
    if options.address:
        wanted["plan.executor"] = options.on or "ray"
    words = [*options.fields, *_words_of_flags(wanted, options.fields)]
    recipe, plan = apply_overrides(load_recipe(options.recipe), Plan(), words)
    recipe = with_absolute_paths(recipe)
    if options.address and plan.executor != "ray":
        raise PlanError(
            f"--address {options.address} means a Ray cluster, but --on {plan.executor} uses no Ray: leave one of the "
            "two out"
        )
    return recipe, plan


def _words_of_flags(wanted: dict[str, str | None], fields: Sequence[str]) -> list[str]:
    """Return the overrides that flags stand for, without those that are given as fields, too."""
    given = dict(field.partition("=")[::2] for field in fields)
    for name, value in wanted.items():
        if value is not None and given.get(name, value) != value:
            raise PlanError(f"{name}={given[name]} contradicts --on or --address, which mean {name}={value}: give one")
    return [f"{name}={value}" for name, value in wanted.items() if value is not None and name not in given]


def _how_to_go_on(result: Result, options: argparse.Namespace) -> str:
    if options.resume == "auto":
        return f"interrupted after step {result.steps:,}; the same command goes on"
    folder = shlex.quote(str(result.run_dir))
    return f"interrupted after step {result.steps:,}; the same command with --run-dir {folder} --resume auto goes on"
