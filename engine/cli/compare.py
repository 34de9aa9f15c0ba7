"""`local-learning compare`: recipes under one budget, each with several seeds."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine.cli.outcome import Outcome, aligned
from engine.cli.words import FIELD, PROGRAM, command_that_goes_on, whole_number, whole_numbers, words_of_flags
from engine.errors import EXIT_INTERRUPTED, EXIT_LEARNER_FAILED, EXIT_SUCCESS, PlanError, RecipeError

if TYPE_CHECKING:
    from engine.comparison import Comparison
    from engine.recipes import Plan, Recipe

EPILOG = f"""examples:
  {PROGRAM} compare end_to_end_digits greedy_digits infopro_digits
  {PROGRAM} compare end_to_end_digits infopro_digits infopro_digits:method.num_segments=4 epochs=5 --seeds 4,7
  {PROGRAM} compare infopro_digits --seeds 5
  {PROGRAM} compare a.py b.py data.root=../pictures --run-dir runs/mine --on ray

The first recipe is the baseline; a recipe may stand alone. RECIPE:field=value,field=value changes this recipe only. A
tenth of the training images is held out unless there are validation images; they say which recipe is best. The table
is printed, and written as comparison.md, .csv and .png. Interrupted, the same command goes on and repeats no finished
run; it also tries runs again that failed, in which case it ends with exit code 3. With more seeds it adds their runs.
On Ray the runs come one after another."""

_MOST_SEEDS = 10_000
_LARGEST_SEED = 2**31 - 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """State the words that may follow ``compare``."""
    parser.add_argument(
        "words",
        metavar="RECIPE|field=value",
        nargs="+",
        help="recipes, the baseline first, and changes of all of them, such as epochs=2 or plan.window=4",
    )
    parser.add_argument("--seeds", metavar="N", default="3", help="number of seeds (3: 0, 1, 2), or seeds (4,7)")
    parser.add_argument("--on", choices=("process", "ray"), help="each run in one process (default), or on Ray actors")
    parser.add_argument("--address", metavar="A", help="Ray cluster to join, such as auto or HOST:6379")
    parser.add_argument("--run-dir", metavar="DIR", help="folder of the comparison; runs/compare-DIGEST unless given")
    parser.add_argument(
        "--max-concurrent", metavar="M", type=int, help="runs at once; as many as GPUs or cores allow unless given"
    )
    parser.add_argument(
        "--resume",
        choices=("auto", "never"),
        default="auto",
        help="go on with the comparison in the folder (auto), or start a new one beside it (never)",
    )


def run(options: argparse.Namespace) -> Outcome:
    """Train all recipes with all seeds, and return their table."""
    seeds = seeds_of(options.seeds)
    recipes, plan = recipes_and_plan(options.words, options.on, options.address)
    from engine.comparison import compare
    from engine.tracking import open_console

    with open_console(sys.stderr, quiet=False) as console:
        comparison = compare(recipes, plan, seeds, options.run_dir, options.resume, options.max_concurrent, console)
    exit_codes = {"finished": EXIT_SUCCESS, "failed": EXIT_LEARNER_FAILED, "interrupted": EXIT_INTERRUPTED}
    return Outcome(_lines(comparison, options.resume), comparison.to_json(), exit_codes[comparison.status])


def seeds_of(text: str) -> tuple[int, ...]:
    """Return the seeds that a word stands for: 0 to N - 1 for a number N, those in it for a list such as ``4,7``.

    Raises:
        RecipeError: it is neither.
    """
    expected = (
        f"a number of seeds such as 3 (at most {_MOST_SEEDS:,}), or a list of seeds such as 4,7 (each at most "
        f"{_LARGEST_SEED:,})"
    )
    if "," not in text:
        return tuple(range(whole_number(text, "--seeds", 1, _MOST_SEEDS, expected, RecipeError)))
    # As in "4,", the list of one seed.
    listed = text.rstrip().removesuffix(",") or text
    return whole_numbers(listed, "--seeds", 0, _LARGEST_SEED, expected, RecipeError)


def recipes_and_plan(words: Sequence[str], on: str | None, address: str | None) -> tuple[dict[str, Recipe], Plan]:
    """Return the recipes by label, and the plan, that the words of a command line stand for.

    Args:
        words: ``RECIPE``, ``RECIPE:field=value,...`` and ``field=value``, in any order.
        on: the executor, if it is given.
        address: of a Ray cluster, if it is given.

    Raises:
        RecipeError: lists all that is wrong, each line with its recipe; PlanError: flags and fields contradict.
    """
    from engine.recipes import Plan, apply_overrides, load_recipe

    fields = [word for word in words if FIELD.match(word)]
    given = dict(field.partition("=")[::2] for field in fields)
    if "seed" in given:
        raise RecipeError(f"seed={given['seed']}: every recipe is trained with several seeds; give them as --seeds 4,7")
    fields += words_of_flags(fields, on, address)
    if not any(field.startswith("plan.executor=") for field in fields):
        fields.append(f"plan.executor={'ray' if 'plan.address' in given else 'process'}")
    recipes: dict[str, Recipe] = {}
    plan, problems = Plan(), []
    for word in words:
        if FIELD.match(word):
            continue
        name, own = _split(word)
        try:
            changed = {field.partition("=")[0] for field in own}
            for_all = [field for field in fields if field.partition("=")[0] not in changed]
            loaded = load_recipe(name)
            label = _label(loaded.name if "/" in name or name.endswith((".py", ".json")) else name, own, recipes, word)
            recipes[label], plan = apply_overrides(loaded, Plan(), [*for_all, *own])
        except RecipeError as error:
            problems += [f"{word}: {line}" for line in str(error).splitlines()]
    if problems:
        raise RecipeError("\n".join(problems))
    if not recipes:
        raise RecipeError("found no recipe, expected 1 or more, the baseline first")
    if address and plan.executor != "ray":
        raise PlanError(
            f"--address {address} means a Ray cluster, but --on {plan.executor} uses no Ray: leave one of the two out"
        )
    return recipes, plan


def _split(word: str) -> tuple[str, list[str]]:
    """Return the recipe that a word names and the changes of it that follow; a value may hold commas itself."""
    found = re.match(rf"(.*?):(?={FIELD.pattern})(.*)", word)
    if found is None:
        return word, []
    return found[1], re.split(rf",(?={FIELD.pattern})", found[2])


def _label(name: str, own: Sequence[str], taken: dict[str, Recipe], word: str) -> str:
    for field in own:
        if field.startswith("plan.") or field.partition("=")[0] == "seed":
            raise RecipeError(
                f"{field}: belongs to the whole comparison, not to one of its recipes: give "
                + ("--seeds" if field.startswith("seed=") else "it as a word of its own")
            )
    label = f"{name}:{','.join(own)}" if own else name
    # Two files may hold recipes of the same name.
    label = label if label not in taken else word
    if label in taken:
        raise RecipeError("given twice; two with different fields are told apart as RECIPE:field=value")
    return label


def _lines(comparison: Comparison, resume: str) -> list[str]:
    from engine.comparison.tables import compared_text

    rows, seeds = comparison.rows, comparison.seeds
    folder = shlex.quote(str(comparison.run_dir))
    total, finished = len(rows) * len(seeds), sum(len(row.test_scores) for row in rows)
    if comparison.status == "interrupted":
        command = command_that_goes_on(comparison.run_dir, resume)
        return [f"interrupted with {finished} of {total} runs finished; {command} goes on", f"folder  {folder}"]
    failures = [f"{row.label}, seed {seed} failed: {cause}" for row in rows for seed, cause in row.failures.items()]
    disturbed = [f"{row.label}, seed {seed}: {what}" for row in rows for seed, what in row.disturbances.items()]
    written = {
        "table": "comparison.md",
        "numbers": "comparison.csv",
        "picture": "comparison.png",
        "run folders": "runs",
    }
    return [
        compared_text(rows, seeds, comparison.headline),
        "",
        *comparison.notes,
        *comparison.warnings,
        *disturbed,
        *failures,
        "",
        *aligned([(name, f"{folder}/{file}") for name, file in written.items()], indent=""),
    ]
