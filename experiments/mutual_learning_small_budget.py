"""Deep Mutual Learning at a budget that a CPU can pay: two small ResNets, 100 classes, gain over independent training.

    python -m experiments.mutual_learning_small_budget --root DIR [--seeds 0,1,2]

DIR holds 100 classes of 32x32 images in any layout of Parquet shards that the engine reads. The recipes are the shipped
ones of CIFAR-100 (simultaneous schedule, lambda = 1, T = 1, weight decay 5e-4, batch 64) with another budget: ResNet-20
of a quarter of the work (widths 8, 16, 32), 10,000 training images (stratified), 12 epochs, learning rate 0.1 (0.2 for
independent_scaled), cosine to 0 over all steps, channels_last, one thread. The arms of a seed start from the same
weights and see the same images in the same order. Interrupted, it goes on where it was.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

from matplotlib.figure import Figure

import engine
from engine.tasks import ACCURACY
from engine.tracking import format_scores, open_console

ARMS = ("independent", "independent_scaled", "dml")
BUDGET = (
    "data.name=parquet",
    "data.train_limit=10000",
    "backbone.name=resnet20",
    "backbone.widths=8,16,32",
    "epochs=12",
    "schedule.kind=cosine",
    "schedule.interval=step",
    "numerics.channels_last=true",
    "plan.executor=process",
    "plan.evaluate_every_epochs=3",
)
FOLDER = Path("runs") / "mutual_learning_small_budget"


def train(arm: str, seed: int, root: str) -> engine.Result:
    """Train one arm with one seed, or return what it came to."""
    name = f"{arm}_cifar100_resnet32_resnet32"
    words = [*BUDGET, f"data.root={root}", f"seed={seed}"]
    recipe, plan = engine.apply_overrides(engine.load_recipe(name), engine.Plan(), words)
    with open_console(sys.stderr, quiet=False) as console:
        result = engine.train(recipe, plan, FOLDER / f"{arm}_seed{seed}", console=console)
    if result.status != "finished":
        sys.exit(f"interrupted; the same command goes on from {result.run_dir}")
    return result


def plot_gains(gains: dict[str, list[float]], path: Path) -> None:
    """Draw the gain of each peer of each seed over the same peer trained independently, and their mean."""
    figure = Figure(figsize=(6, 3.4), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    for place, values in enumerate(gains.values()):
        axes.plot([100 * value for value in values], [place] * len(values), "o", color=f"C{place}", alpha=0.6)
        axes.plot([100 * statistics.mean(values)], [place], "|", color="black", markersize=28, markeredgewidth=2)
    axes.axvline(0, color="#888888", linewidth=1)
    axes.set_yticks(range(len(gains)), list(gains))
    axes.set_ylim(-0.6, len(gains) - 0.4)
    axes.set_xlabel("gain in test accuracy over independent (points)")
    axes.set_title("dots: peers of all seeds; bar: their mean", loc="left", fontsize=10)
    axes.grid(True, axis="x", color="#e6e6e6")
    figure.savefig(path)


def main() -> None:
    """Run every arm with every seed, then print the table and plot the gains."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True, help="folder that holds the images")
    parser.add_argument("--seeds", default="0,1,2")
    arguments = parser.parse_args()
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    results = {arm: [train(arm, seed, arguments.root) for seed in seeds] for arm in ARMS}

    def scores(arm: str, network: str, name: str) -> list[float]:
        return [result.metrics[f"{network}/test/{name}"] for result in results[arm]]

    peers = {arm: scores(arm, "peer0", "accuracy") + scores(arm, "peer1", "accuracy") for arm in ARMS}
    gains = {
        arm: [ours - alone for ours, alone in zip(peers[arm], peers["independent"], strict=True)] for arm in ARMS[1:]
    }
    print(f"{'arm':20}  {'peers':>16}  {'gain':>16}  {'ensemble':>16}  {'KL':>6}  {'disagree':>8}")
    for arm in ARMS:
        gain = format_scores(ACCURACY, gains[arm]) if arm in gains else ""
        ensemble = format_scores(ACCURACY, scores(arm, "ensemble", "accuracy"))
        kl = statistics.mean(scores(arm, "ensemble", "kl_between_peers"))
        disagreement = statistics.mean(scores(arm, "ensemble", "disagreement"))
        own = format_scores(ACCURACY, peers[arm])
        print(f"{arm:20}  {own:>16}  {gain:>16}  {ensemble:>16}  {kl:6.3f}  {disagreement:8.3f}")
    plot_gains(gains, FOLDER / "gains.png")
    print(f"gains: {FOLDER / 'gains.png'}")


if __name__ == "__main__":
    main()
