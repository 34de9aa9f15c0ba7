"""`local-learning evaluate`: scores of a run's networks."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING

from engine.cli.outcome import Outcome, aligned
from engine.errors import InputError

if TYPE_CHECKING:
    from engine.tasks import Metric


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """State the words that may follow ``evaluate``."""
    parser.add_argument("run", metavar="RUN", help="run folder (its newest checkpoint), or one of its checkpoints")
    parser.add_argument(
        "changes",
        metavar="FIELD=VALUE",
        nargs="*",
        help="fields without influence on the weights, as task.evaluation_flip",
    )
    parser.add_argument("--data-root", metavar="DIR", help="where the images lie now; as in the recipe unless given")
    parser.add_argument(
        "--save-features", metavar="FILE", help="FILE.parquet for the features that a retrieval compares"
    )
    parser.add_argument(
        "--draw-queries", metavar="FILE", help="FILE.png for some queries and the first ten pictures that each finds"
    )
    parser.add_argument(
        "--draw-maps", metavar="FILE", help="FILE.png for some test images, their label maps, and what is predicted"
    )
    parser.add_argument(
        "--beside",
        metavar="RUN",
        action="append",
        default=[],
        help="another run or checkpoint in that picture; may be repeated",
    )


def run(options: argparse.Namespace) -> Outcome:
    """Score the newest complete checkpoint of the run, or the one that was given."""
    from engine.cli.summary import diverged_rows
    from engine.tasks import headline_of
    from engine.training import draw_predictions, evaluate, load, mean_score

    if options.beside and options.draw_maps is None:
        raise InputError(
            f"--beside {options.beside[0]}: another run in the picture of --draw-maps, which is not asked for; give "
            "--draw-maps FILE.png too, or leave it out"
        )
    for word in options.changes:
        if "=" not in word:
            raise InputError(f"{word}: one word too many, or a field without a value: expected FIELD=VALUE")
    opened, others = load(options.run), [load(each) for each in options.beside]
    # First, because it is a matter of seconds, and what is refused of it shall not cost a whole evaluation.
    maps = None
    if options.draw_maps is not None:
        maps = draw_predictions([opened, *others], options.draw_maps, options.data_root, options.changes)
    metrics = evaluate(opened, options.data_root, options.changes, options.save_features, options.draw_queries)
    step, headline = opened.checkpoint.step, headline_of(opened.recipe)
    warnings = [warning for each in (opened, *others) for warning in each.warnings]
    values = {
        "run_dir": str(opened.path),
        "step": step,
        "headline": headline.name,
        "test_score": mean_score(metrics, opened.networks, opened.diverged, headline),
        "metrics": metrics,
        "warnings": warnings,
    }
    lines = _score_lines(metrics, headline) + [
        f"  {label}: {reason}" for label, reason in diverged_rows(opened.diverged)
    ]
    trained_in, scored_in = opened.recipe.numerics.precision, opened.numerics_here.precision
    if scored_in != trained_in:
        lines.append(f"scored in {scored_in}, because numerics.precision={trained_in} needs a GPU, and there is none")
    written = {"features": options.save_features, "queries": options.draw_queries, "label maps": maps}
    lines += [f"{name}: {path}" for name, path in written.items() if path is not None]
    lines += warnings
    return Outcome([*opened.checkpoint.skipped, f"{opened.path} after step {step:,}:", *lines], values)


def _score_lines(metrics: Mapping[str, float], headline: Metric) -> list[str]:
    """Return a line for each score of one network, or for each of several networks a line with all its scores."""
    from engine.cli.summary import scores_of
    from engine.tracking.scores import score_in_words

    scores = scores_of(metrics)
    lines = aligned(
        [
            (f"{split} {name}", score_in_words(headline, name, value))
            for split, networks in scores.items()
            for name, value in networks.get(None, {}).items()
        ]
    )
    for split, networks in scores.items():
        if None not in networks:
            lines += aligned(_table(split, networks, headline))
    return lines


def _table(split: str, networks: Mapping[str | None, Mapping[str, float]], headline: Metric) -> list[tuple[str, ...]]:
    """Return the cells for several networks: a row for each, then one for each score that compares them."""
    from engine.cli.summary import label_of
    from engine.tracking import ENSEMBLE
    from engine.tracking.scores import score_in_words

    names = list(dict.fromkeys(name for owner in networks if owner != ENSEMBLE for name in networks[owner]))
    table = [(split, *(name.replace("_", " ") for name in names))]
    for network, scores in networks.items():
        cells = (score_in_words(headline, name, scores[name]) if name in scores else "-" for name in names)
        table.append((str(network), *cells))
    nothing = ("",) * (len(names) - 1)
    for name, value in networks.get(ENSEMBLE, {}).items():
        if name not in names:
            table.append((label_of(name), score_in_words(headline, name, value), *nothing))
    return table
