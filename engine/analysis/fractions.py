"""Fraction loss: how near the rules of mixed knowledge fraction came to the truth while a network was trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from engine.analysis.analysis import Analysis, Arrays, Measured, Row, owner
from engine.analysis.drawing import legend_beside, log_scale_up, styles
from engine.analysis.opened import OpenedRun
from engine.tracking import Record
from engine.tracking.figures import dress, open_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PREFIX = "fraction/"
_ERRORS = ("base_error", "model_error", "negative_share")
_LAST = 5  # The mean of the last fifth says where a curve ends.


class Fractions(Analysis):
    """Fraction loss of every rule over the steps of a training (Tang et al., Mixed Knowledge Fraction, figure 5).

    The numbers are those that the training itself has measured, with ``method.measure_fraction_every``, and recorded up
    to the checkpoint: nothing can be measured afterwards, for a checkpoint does not hold the batches.
    """

    name = "fractions"
    title = "Fraction loss of every rule, as measured in training"
    looks_at_images = False
    reading = "Each rule splits what a network says of mixed images; the lower, the nearer to the truth"
    columns = {
        "measure": (
            "a rule, with its fraction loss; base_error: that of the stored knowledge itself; model_error: how far "
            "predictions of mixtures are from mixtures of predictions; negative_share: of the estimates of linear"
        ),
        "measured": "how often in training",
        "first": "the first value",
        "mean": "mean of all",
        "last": "mean of the last fifth",
        "last_from_bases": "what is left of last when the mixture is exact: the fault of the stored knowledge",
        "last_from_mixing": "what is left of last when the bases are true: the fault of the prediction on the mixture",
    }

    def refusal(self, opened: OpenedRun) -> str | None:
        """Refuse runs that have measured no fraction loss."""
        if _records(opened):
            return None
        return (
            f"method.kind={opened.run.recipe.method.kind} has recorded no {PREFIX}...; train a recipe such as "
            "mkf_digits with method.measure_fraction_every=10"
        )

    def measure(self, opened: OpenedRun, network: str, part: str) -> Arrays:
        """Return for each rule ``[points, 2]``, float64: step and value."""
        found: dict[str, list[tuple[float, float]]] = {}
        for record in _records(opened):
            found.setdefault(record.name.removeprefix(PREFIX), []).append((record.step, record.value))
        return {rule: np.array(points) for rule, points in found.items()}

    def rows(self, found: Sequence[Measured]) -> list[Row]:
        """Return a row for each rule, the best at the end first."""
        rows = []
        for each in found:
            own: list[Row] = []
            for rule, points in each.arrays.items():
                if "/" in rule:
                    continue
                values = points[:, 1]
                own.append(
                    {
                        **owner(each),
                        "measure": rule,
                        "measured": len(values),
                        "first": float(values[0]),
                        "mean": float(values.mean()),
                        "last": _last(points),
                        "last_from_bases": _last(each.arrays.get(f"{rule}/bases")),
                        "last_from_mixing": _last(each.arrays.get(f"{rule}/model")),
                    }
                )
            rows += sorted(own, key=lambda row: (row["last"], row["measure"]))
        return rows

    def draw(self, found: Sequence[Measured], title: str) -> Figure:
        """Draw the loss over the steps, a panel for each network and a curve for each rule."""
        figure = open_figure(2.6 + 5.0 * len(found), 4.8, title)
        rules = sorted({rule for each in found for rule in each.arrays if "/" not in rule and rule not in _ERRORS})
        drawn = styles(rules)
        panels = figure.subplots(1, len(found), sharey=True, squeeze=False)[0]
        for axes, each in zip(panels, found, strict=True):
            for rule in rules:
                points = each.arrays[rule]
                axes.plot(points[:, 0], points[:, 1], label=rule, markevery=0.1, **drawn[rule].line())
            log_scale_up(axes)
            dress(axes, each.label, "step", "fraction loss (log scale)" if axes is panels[0] else "")
        legend_beside(figure, panels[-1])
        return figure


def _last(points: np.ndarray | None) -> float:
    """Return the mean of the last fifth of a curve [points, 2]; not a number where there is none."""
    if points is None:
        return float("nan")
    return float(points[-max(1, len(points) // _LAST) :, 1].mean())


def _records(opened: OpenedRun) -> list[Record]:
    step = opened.run.checkpoint.step
    return [each for each in opened.run.metrics() if each.name.startswith(PREFIX) and each.step <= step]
