"""Stability: how far an arm's seeds scatter, and whether those that end badly began badly."""

from __future__ import annotations

import statistics
from pathlib import Path

import engine
from engine.tasks import ACCURACY
from engine.tracking.scores import format_score
from experiments.studies.study import Results
from experiments.studies.tables import markdown

_LEARNED = 0.9


def parts(results: Results, figures: Path) -> dict[str, str]:
    """Return the table of seeds; there is no picture."""
    lines = []
    for arm, runs in results.items():
        scores = [result.metrics["test/accuracy"] for result in runs.values()]
        fitted = [training_accuracies(engine.load(result.run_dir)) for result in runs.values()]
        learned = [next((epoch for epoch, share in each.items() if share >= _LEARNED), None) for each in fitted]
        lines.append(
            [
                arm,
                f"{100 * statistics.stdev(scores):.2f}" if len(scores) > 1 else "-",
                format_score(ACCURACY, min(scores)),
                format_score(ACCURACY, max(scores)),
                ", ".join("never" if epoch is None else str(epoch) for epoch in learned),
                format_score(ACCURACY, min(list(each.values())[-1] for each in fitted)),
            ]
        )
    header = ["arm", "deviation (points)", "lowest seed", "highest seed", "epochs until 90 % are learned, by seed"]
    return {"seeds": markdown([*header, "learned at the end, lowest seed"], lines)}


def training_accuracies(run: engine.Run) -> dict[int, float]:
    """Return by epoch the share of the training images that the deployed network is right of, as training sees them.

    Several reports of an epoch count with their mean.
    """
    found: dict[int, list[float]] = {}
    for record in run.metrics():
        if (record.split, record.name) == ("train", "accuracy"):
            found.setdefault(record.epoch, []).append(record.value)
    return {epoch: statistics.fmean(values) for epoch, values in sorted(found.items())}
