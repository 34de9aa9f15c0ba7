"""Test accuracy over the epochs: the mean of an arm's seeds, and each seed."""

from __future__ import annotations

import statistics
from pathlib import Path

import engine
from engine.tracking.figures import open_figure, write_figure
from experiments.studies.study import Results


def parts(results: Results, figures: Path) -> dict[str, str]:
    """Draw the curves; there is no further table."""
    figure = open_figure(7, 4.2, "ResNet-32, 5,000 images: thin lines are seeds")
    axes = figure.add_subplot()
    for index, (label, runs) in enumerate(results.items()):
        curves = [accuracies_of(engine.load(result.run_dir)) for result in runs.values()]
        epochs = range(1, len(curves[0]) + 1)
        for curve in curves:
            axes.plot(epochs, [100 * value for value in curve], color=f"C{index}", linewidth=0.8, alpha=0.4)
        mean = [100 * statistics.fmean(values) for values in zip(*curves, strict=True)]
        axes.plot(epochs, mean, color=f"C{index}", linewidth=2.2, marker="o", label=f"{label} ({len(runs)} seeds)")
    axes.set_xlabel("epoch")
    axes.set_ylabel("test accuracy (%)")
    axes.grid(True, color="#e6e6e6")
    axes.legend(frameon=False, fontsize=9)
    write_figure(figure, figures / "cifar10_small_budget.png")
    return {}


def accuracies_of(run: engine.Run) -> list[float]:
    """Return the accuracy of the deployed network at each evaluation."""
    wanted = (None, "test", "accuracy")
    return [record.value for record in run.metrics() if (record.learner, record.split, record.name) == wanted]
