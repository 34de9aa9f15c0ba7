"""`local-learning measure`: speed and memory of a recipe beside other ways of training."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from engine.atomic import write_error
from engine.cli.outcome import Outcome, aligned
from engine.cli.words import PROGRAM, refuse_field, whole_numbers
from engine.errors import RecipeError
from engine.paths import absolute, check_writable

if TYPE_CHECKING:
    from engine.benchmarking import Measurement

# No network has as many blocks.
_MOST = 1 << 16
_EXPECTED = f"numbers of segments, at most {_MOST:,}, such as --k 1,2,4"
_BASELINES = "gpipe,1f1b,interleaved,zero_bubble,ddp,fsdp,checkpoint"

EPILOG = f"""examples:
  {PROGRAM} measure infopro_digits
  {PROGRAM} measure infopro_cifar10_resnet32 method.cuts=balanced_time --k 1,2 --rounds 5
  {PROGRAM} measure infopro_digits --k 2 --against ddp,1f1b plan.executor=process

All ways train the same network from the same weights on the same batches, with equal threads for each worker, and take
turns in every round. Before, the best settings of each baseline (cut, micro-batches, schedule, chunks, buckets) are
found by running it, which takes 10 to 30 minutes for all of them; --against says which baselines are needed. Others
that use the machine meanwhile are noticed. Images that are missing are replaced by random ones of their shape.
plan.executor=process leaves Ray out. Written: a table, all numbers as JSON, a picture, and the timelines of the
learners (timeline.json opens in Perfetto). A quiet machine gives figures that can be believed."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """State the words that may follow ``measure``."""
    parser.add_argument("recipe", metavar="RECIPE", help="name of a recipe, FILE.py with recipe(), or a recipe.json")
    parser.add_argument(
        "fields", metavar="field=value", nargs="*", default=[], help="changes, such as data.batch_size=256"
    )
    parser.add_argument("--k", metavar="K,K", help="numbers of segments; 1 and the recipe's own unless given")
    parser.add_argument(
        "--against",
        metavar="BASELINE,BASELINE",
        default=_BASELINES,
        help=f"baselines; {_BASELINES} unless given, or none",
    )
    parser.add_argument("--steps", metavar="N", type=int, default=10, help="steps that are timed in a round (10)")
    parser.add_argument("--rounds", metavar="R", type=int, default=3, help="how often each way takes its turn (3)")
    parser.add_argument("--out", metavar="DIR", help="folder for the results; runs/measure-NAME unless given")


def run(options: argparse.Namespace) -> Outcome:
    """Measure, write the results, and return the table."""
    refuse_field(options.recipe)
    ks = numbers_of_segments(options.k)
    from engine.recipes import Plan, apply_overrides, load_recipe, with_absolute_paths

    recipe, plan = apply_overrides(load_recipe(options.recipe), Plan(), options.fields)
    recipe = with_absolute_paths(recipe)
    from engine.benchmarking import measure, write_measurement
    from engine.benchmarking.output_folder import check_measurement_folder
    from engine.tracking import open_console
    from engine.training.folder import free_folder

    folder = absolute(options.out or free_folder(Path("runs") / f"measure-{recipe.name}"), "--out")
    # Before minutes of measuring: a folder that cannot be written would lose them.
    check_writable(folder, "--out")
    check_measurement_folder(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(folder, error) from error
    against = [word.strip() for word in options.against.split(",") if word.strip() not in ("", "none")]
    with open_console(sys.stderr, quiet=False) as console:
        try:
            found = measure(recipe, plan, ks, against, options.steps, options.rounds, console.message)
            files = write_measurement(found, folder, console.message)
        except BaseException:
            with contextlib.suppress(OSError):
                folder.rmdir()
            raise
    values = {"folder": str(folder), "files": files, **found.to_json()}
    return Outcome(_lines(found, folder, files), values)


def numbers_of_segments(text: str | None) -> tuple[int, ...] | None:
    """Return the numbers in a word such as ``1,2,4``; None for no word.

    Raises:
        RecipeError: it is no list of numbers.
    """
    if text is None:
        return None
    return whole_numbers(text, "--k", 0, _MOST, _EXPECTED, RecipeError)


def _lines(found: Measurement, folder: Path, files: list[str]) -> list[str]:
    from engine.benchmarking.report import lines_below, measured_table

    where = shlex.quote(str(folder))
    written = [f"{where}/{file}" for file in files]
    parts = [*lines_below(found), written]
    return [*aligned(measured_table(found), indent=""), *(line for part in parts for line in ("", *part))]
