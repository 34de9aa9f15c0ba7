"""Segmentation at a budget that a CPU can pay: CamVid's street pictures at 120 x 90, with seven methods.

    python -m experiments.segmentation_small_budget --root DIR [--seeds 0,1,2]

DIR holds CamVid as `experiments/recipes/camvid.py` says. The recipes are the shipped ones (DeepLabV3 on ResNet-18 with
random weights, output stride 16, batch 8, 8 epochs of 46 steps), with one thread. The arms of a seed start from the
same weights and see the same pictures in the same order. Interrupted, it goes on where it was.

Memory is that of each learner as `local-learning estimate` computes it, from the sizes of the tensors of a step.
Speed is not compared: several of these commands may run at once, with seeds of their own. Of the two pictures one shows
scores and memory, the other some test pictures of the first seed, their labels, and what each arm predicts.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import engine
from engine.comparison import ComparisonRow, plot_comparison
from engine.planning.estimate import estimate_team
from engine.tasks import SCORES
from engine.tracking import format_scores, open_console
from engine.training import draw_predictions

ARMS = ("end_to_end", "greedy", "dgl", "infopro", "greedy_k4", "dgl_k4", "infopro_k4")
PLAN = engine.Plan(executor="process", evaluate_every_epochs=8)
FOLDER = Path("runs") / "segmentation_small_budget"
_SHOWN = ("mean_iou", "pixel_accuracy")


def train(arm: str, seed: int, root: str) -> engine.Result:
    """Train one arm with one seed, or return what it came to."""
    method, ending = (arm.removesuffix("_k4"), "_k4") if arm.endswith("_k4") else (arm, "")
    words = [f"data.root={root}", f"seed={seed}"]
    recipe, plan = engine.apply_overrides(engine.load_recipe(f"{method}_camvid_resnet18{ending}"), PLAN, words)
    with open_console(sys.stderr, quiet=False) as console:
        result = engine.train(recipe, plan, FOLDER / f"{arm}_seed{seed}", console=console)
    if result.status != "finished":
        sys.exit(f"interrupted; the same command goes on from {result.run_dir}")
    return result


def memory(result: engine.Result) -> dict[str, int]:
    """Return what each learner of a run needs, in bytes, as the planner computes it."""
    run = engine.load(result.run_dir)
    team = estimate_team(run.recipe, run.facts, PLAN)
    return {size.name: size.peak for size in team.sizes}


def main() -> None:
    """Run every arm with every seed, then print the table and draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True, help="folder that holds images/ and labels/ of CamVid")
    parser.add_argument("--seeds", default="0,1,2")
    arguments = parser.parse_args()
    results: dict[str, list[engine.Result]] = {arm: [] for arm in ARMS}
    for seed in map(int, arguments.seeds.split(",")):
        for arm, found in results.items():
            found.append(train(arm, seed, arguments.root))
    print("| arm | mIoU | pixel accuracy | MiB of each learner |\n|---|---|---|---|")
    rows = []
    for arm, found in results.items():
        scores = [[each.metrics[f"test/{name}"] for each in found] for name in _SHOWN]
        rows.append(ComparisonRow(arm, tuple(scores[0]), memory(found[0]), math.nan))
        cells = [format_scores(SCORES[name], values) for name, values in zip(_SHOWN, scores, strict=True)]
        sizes = ", ".join(f"{size / 2**20:.0f}" for size in rows[-1].memory_bytes.values())
        print(f"| {arm} | {' | '.join(cells)} | {sizes} |")
    title = f"CamVid at 120 x 90, DeepLabV3 on ResNet-18, 8 epochs, seeds {arguments.seeds}"
    plot_comparison(rows, FOLDER / "comparison.png", title, SCORES["mean_iou"])
    print(f"picture: {FOLDER / 'comparison.png'}")
    runs = [engine.load(found[0].run_dir) for found in results.values()]
    print(f"picture: {draw_predictions(runs, FOLDER / 'predictions.png')}")


if __name__ == "__main__":
    main()
