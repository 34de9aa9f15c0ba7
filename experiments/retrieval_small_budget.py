"""Retrieval at a budget that a CPU can pay: Omniglot's characters, found by who else drew them, with seven methods.

    python -m experiments.omniglot FROM omniglot
    python -m experiments.retrieval_small_budget --root omniglot [--seeds 0,1,2]

The recipes are the shipped ones as they are: a ResNet-8 of widths (8, 16, 32) on 28 x 28 pixels, 10 epochs, batch 64,
one thread. The arms of a seed start from the same weights and see the same images in the same order. Interrupted, it
goes on where it was.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

import engine
from engine.tasks import SCORES, Metric
from engine.tracking import format_scores, open_console

ARMS = ("end_to_end", "independent", "dml", "dml_k4", "dsl", "dhm", "infopro")
PLAN = engine.Plan(executor="process", evaluate_every_epochs=10)
FOLDER = Path("runs") / "retrieval_small_budget"
_SHOWN = ("mean_average_precision", "rank1", "mean_inverse_negative_penalty")


def train(arm: str, seed: int, root: str) -> engine.Result:
    """Train one arm with one seed, or return what it came to."""
    name = "dml_omniglot_k4" if arm == "dml_k4" else f"{arm}_omniglot"
    recipe, plan = engine.apply_overrides(engine.load_recipe(name), PLAN, [f"data.root={root}", f"seed={seed}"])
    with open_console(sys.stderr, quiet=False) as console:
        result = engine.train(recipe, plan, FOLDER / f"{arm}_seed{seed}", console=console)
    if result.status != "finished":
        sys.exit(f"interrupted; the same command goes on from {result.run_dir}")
    return result


def scores(results: list[engine.Result], score: Metric, together: bool) -> list[float]:
    """Return a score of all networks of all seeds, or of each seed's networks side by side."""
    found = []
    for result in results:
        for name, value in result.metrics.items():
            *owner, _, what = name.split("/")
            if what == score.name and (owner == ["ensemble"]) is together:
                found.append(value)
    return found


def main() -> None:
    """Run every arm with every seed, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True, help="folder that `python -m experiments.omniglot` wrote")
    parser.add_argument("--seeds", default="0,1,2")
    arguments = parser.parse_args()
    results: dict[str, list[engine.Result]] = {arm: [] for arm in ARMS}
    for seed in map(int, arguments.seeds.split(",")):
        for arm, found in results.items():
            found.append(train(arm, seed, arguments.root))
    print("| arm | mAP | rank 1 | mINP | mAP side by side | seconds |\n|---|---|---|---|---|---|")
    for arm, found in results.items():
        own = [format_scores(SCORES[name], scores(found, SCORES[name], together=False)) for name in _SHOWN]
        joint = scores(found, SCORES["mean_average_precision"], together=True)
        beside = format_scores(SCORES["mean_average_precision"], joint) if joint else ""
        seconds = statistics.median(result.seconds for result in found)
        print(f"| {arm} | {' | '.join(own)} | {beside} | {seconds:.0f} |")


if __name__ == "__main__":
    main()
