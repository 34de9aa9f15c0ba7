"""`local-learning sweep`: a search for the best settings of a recipe."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import sys
from typing import TYPE_CHECKING

from engine.cli.outcome import Outcome, aligned
from engine.cli.signals import whole_at_any_moment
from engine.cli.words import PROGRAM, command_that_goes_on, words_of_flags
from engine.errors import EXIT_INTERRUPTED, EXIT_LEARNER_FAILED, EXIT_SUCCESS, PlanError, RecipeError

if TYPE_CHECKING:
    from engine.search import SweepResult

EPILOG = f"""examples:
  {PROGRAM} sweep k_digits
  {PROGRAM} sweep infopro_digits_pbt
  {PROGRAM} sweep mkf_digits --num-samples 16 --max-concurrent 2
  {PROGRAM} sweep infopro_cifar10_resnet32 data.root=DIR --on ray
  {PROGRAM} sweep my_sweep.py --address auto

A search is a Python file that defines sweep(), which returns engine.Sweep; experiments/sweeps holds the shipped ones.
Every trial is an ordinary run below the folder of the search: evaluate, export and train take its folder. Trials are
compared on validation images; the test images are looked at once, for the best trials, when all trials have ended.
Interrupted or killed, the same command goes on. A trial that loses its process or node is tried again, up to three
times; one that failed is not. Ends with exit code 3 if no trial finished, or if one was lost in all of its tries:
then none has won, and the same command goes on.

scheduler="asha" of a search stops trials early; scheduler="pbt" (population-based training, as in infopro_digits_pbt)
lets the worst quarter copy the weights of the best and go on with changed settings; it searches schedules, not one
setting, and lineage.json in the best run folder holds the one that it found."""

_MOST_ROWS = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """State the words that may follow ``sweep``."""
    parser.add_argument("sweep", metavar="SWEEP", help="name of a shipped search, or FILE.py with sweep()")
    parser.add_argument(
        "fields", metavar="field=value", nargs="*", default=[], help="fixed changes, such as epochs=2 or data.root=DIR"
    )
    parser.add_argument("--num-samples", metavar="N", type=int, help="trials in all; as the search says unless given")
    parser.add_argument(
        "--max-concurrent", metavar="M", type=int, help="trials at once; as many as there is room for unless given"
    )
    parser.add_argument(
        "--on", choices=("process", "ray"), help="each trial in a process (default without --address), or on Ray actors"
    )
    parser.add_argument("--address", metavar="A", help="Ray cluster to join, such as auto or HOST:6379")
    parser.add_argument("--run-dir", metavar="DIR", help="folder of the search; runs/sweep-NAME-DIGEST unless given")
    parser.add_argument(
        "--resume",
        choices=("auto", "never"),
        default="auto",
        help="go on with the search in the folder (auto), or start a new one beside it (never)",
    )


def run(options: argparse.Namespace) -> Outcome:
    """Search, and return the table of trials."""
    with whole_at_any_moment():
        return _searched(options)


def _searched(options: argparse.Namespace) -> Outcome:
    from engine.recipes import Plan, apply_overrides
    from engine.search import SweepConsole, load_sweep, sweep

    if options.num_samples is not None and options.num_samples < 1:
        raise PlanError(f"--num-samples {options.num_samples}: expected at least 1")
    definition = load_sweep(options.sweep)
    given = [word for word in options.fields if not word.startswith("plan.")]
    names = {word.partition("=")[0] for word in given}
    searched = next((name for name in definition.space if name in names), None)
    if searched is not None:
        raise RecipeError(f"{searched}: is searched by {options.sweep}: leave it out, or search another space")
    kept = [word for word in definition.fields if word.partition("=")[0] not in names]
    definition = dataclasses.replace(definition, fields=(*kept, *given))
    words = [word for word in options.fields if word.startswith("plan.")]
    words += words_of_flags(words, options.on, options.address)
    _, plan = apply_overrides(definition.base(), Plan(executor="process"), words)
    with SweepConsole(sys.stderr) as console:
        result = sweep(
            definition,
            options.num_samples,
            options.max_concurrent,
            plan,
            options.run_dir,
            options.resume,
            console,
        )
    exit_codes = {
        "finished": EXIT_SUCCESS,
        "failed": EXIT_LEARNER_FAILED,
        "lost": EXIT_LEARNER_FAILED,
        "interrupted": EXIT_INTERRUPTED,
    }
    return Outcome(_lines(result, options.resume), _values(result), exit_codes[result.status])


def _lines(result: SweepResult, resume: str) -> list[str]:
    from engine.search.reporting import table_rows

    titles, rows = table_rows(result.sweep, result.trials, result.front)
    shown = rows[:_MOST_ROWS]
    widths = [max(len(row[place]) for row in (titles, *shown)) for place in range(len(titles))]
    lines = [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (titles, *shown)
    ]
    if len(rows) > len(shown):
        lines.append(f"and {len(rows) - len(shown)} more in trials.parquet")
    folder = shlex.quote(str(result.run_dir))
    rows_below: list[tuple[str, str]] = [("folder", folder), ("table", f"{folder}/sweep.md, {folder}/trials.parquet")]
    if result.status != "interrupted":
        rows_below.append(("picture", f"{folder}/sweep.png"))
    rows_below.append(("TensorBoard", f"tensorboard --logdir {folder}/trials"))
    if result.best is not None:
        rows_below.append(("best recipe", f"{folder}/trials/{result.best.name}/recipe.json"))
        if result.best.lineage:
            rows_below.append(("what came before", f"{folder}/trials/{result.best.name}/lineage.json"))
    lines += ["", *aligned(rows_below, indent=""), *result.warnings]
    command = command_that_goes_on(result.run_dir, resume)
    if result.status == "interrupted":
        lines.append(f"interrupted; {command} goes on")
    lost = sum(trial.status == "lost" for trial in result.trials)
    if lost:
        lines.append(
            f"{lost} of the trials lost a process or node again and again, or had no disk, folder or time to start, "
            f"so none has won; {command} goes on with them; where memory runs out, lower --max-concurrent or search a "
            "smaller space"
        )
    if result.status == "failed":
        lines.append("no trial finished; tune.txt in the folder and the log.txt of each trial say why")
    return lines


def _values(result: SweepResult) -> dict[str, object]:
    return {
        "run_dir": str(result.run_dir),
        "status": result.status,
        "metric": result.sweep.judged_by,
        "best": result.best.number if result.best is not None else None,
        "pareto_front": list(result.front),
        "trials_at_once": result.at_once,
        "warnings": list(result.warnings),
        "trials": [vars(trial) for trial in result.trials],
    }
