"""The published CIFAR-10 recipes at a budget that a CPU can pay: ResNet-32, K = 4, paper beside ours.

    python -m experiments.cifar10_small_budget --root DIR [--seeds 0,1,2]

DIR holds CIFAR-10 in any layout that the engine reads. The recipes are the shipped ones (published cuts, heads and
weights) with another budget: 5000 training images (stratified), 2000 test images, batch 64, learning rate 0.1,
6 epochs, cosine to 0 over all steps without warm-up, channels_last, one thread. Interrupted, it goes on where it was.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

from matplotlib.figure import Figure

import engine
from engine.comparison import ComparisonRow, comparison_table, plot_comparison
from engine.tasks import ACCURACY
from engine.tracking import Record, open_console

RECIPES = {
    "end-to-end": "end_to_end_cifar10_resnet32",
    "greedy K=4": "greedy_cifar10_resnet32_k4",
    "DGL K=4": "dgl_cifar10_resnet32_k4",
    "InfoPro softmax K=4": "infopro_softmax_cifar10_resnet32_k4",
    "InfoPro contrast K=4": "infopro_cifar10_resnet32_k4",
}
BUDGET = (
    "data.train_limit=5000",
    "data.test_limit=2000",
    "data.batch_size=64",
    "optimizer.learning_rate=0.1",
    "epochs=6",
    "schedule.interval=step",
    "schedule.warmup_epochs=0",
    "numerics.channels_last=true",
    "plan.executor=process",
)
FOLDER = Path("runs") / "cifar10_small_budget"


def plot_learning(results: dict[str, list[engine.Result]], path: Path) -> None:
    """Draw the test accuracy of each method over epochs, the mean of its seeds and each seed."""
    figure = Figure(figsize=(7, 4.2), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    for index, (label, runs) in enumerate(results.items()):
        curves = [
            [record.value for record in engine.load(run.run_dir).metrics() if is_test_accuracy(record)] for run in runs
        ]
        epochs = range(1, len(curves[0]) + 1)
        for curve in curves:
            axes.plot(epochs, [100 * value for value in curve], color=f"C{index}", linewidth=0.8, alpha=0.4)
        mean = [100 * statistics.mean(values) for values in zip(*curves, strict=True)]
        axes.plot(epochs, mean, color=f"C{index}", linewidth=2.2, marker="o", label=f"{label} ({len(runs)} seeds)")
    axes.set_xlabel("epoch")
    axes.set_ylabel("test accuracy (%)")
    axes.set_title("CIFAR-10 (JPEG copy), ResNet-32, 5000 images: thin lines are seeds", loc="left", fontsize=10)
    axes.grid(True, color="#e6e6e6")
    axes.legend(frameon=False, fontsize=9)
    figure.savefig(path)


def is_test_accuracy(record: Record) -> bool:
    """Return whether a record is the accuracy of the deployed network."""
    return (record.learner, record.split, record.name) == (None, "test", "accuracy")


def main() -> None:
    """Run every recipe with every seed, then print and plot the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True, help="folder that holds CIFAR-10")
    parser.add_argument("--seeds", default="0,1,2")
    arguments = parser.parse_args()
    results: dict[str, list[engine.Result]] = {label: [] for label in RECIPES}
    for seed in map(int, arguments.seeds.split(",")):
        for label, name in RECIPES.items():
            words = [*BUDGET, f"data.root={arguments.root}", f"seed={seed}"]
            recipe, plan = engine.apply_overrides(engine.load_recipe(name), engine.Plan(), words)
            with open_console(sys.stderr, quiet=False) as console:
                result = engine.train(recipe, plan, FOLDER / f"{name}_seed{seed}", console=console)
            if result.status != "finished":
                sys.exit(f"interrupted; the same command goes on from {result.run_dir}")
            results[label].append(result)
            print(f"{label} seed {seed}: {result.test_score:.2%}, {result.seconds:.0f} s", flush=True)
    rows = [
        ComparisonRow(
            label=label,
            scores=tuple(result.test_score or 0.0 for result in runs),
            memory_bytes=runs[0].peak_memory_bytes,
            images_per_second=statistics.median(result.images_per_second or 0.0 for result in runs),
        )
        for label, runs in results.items()
    ]
    print(comparison_table(rows, ACCURACY))
    plot_learning(results, FOLDER / "learning.png")
    plot_comparison(rows, FOLDER / "comparison.png", "CIFAR-10, ResNet-32, 5000 images, 6 epochs", ACCURACY)


if __name__ == "__main__":
    main()
