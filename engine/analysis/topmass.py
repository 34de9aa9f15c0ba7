"""Mass of the likeliest classes, by rank (Zhang et al. 2018, Deep Mutual Learning, figure 4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from engine.analysis.analysis import Analysis, Arrays, Measured, Row, owner
from engine.analysis.drawing import legend, log_scale_up, styles
from engine.analysis.opened import OpenedRun
from engine.analysis.predictions import entropies, log_probabilities
from engine.tracking.figures import dress, open_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RANKS = 5
"""Classes that are looked at; all where there are fewer."""


class TopMass(Analysis):
    """Mean probability of the likeliest class, of the second, and so on to the fifth.

    On training images the paper's first rank is the true class, because all of them are predicted right. Where that is
    not so, ``true_first_2`` and so on say what is left for the others when the label is put first, whatever is
    predicted.
    """

    name = "topmass"
    title = "Mass of the likeliest classes"
    of_pixels = True
    columns = {
        **{f"mass_{rank}": f"mean probability of rank {rank}" for rank in range(1, RANKS + 1)},
        "secondary_mass": "1 - mass_1: what is left for all but the likeliest class",
        "effective_classes": "mean of exp(entropy): among how many classes a prediction wavers",
        **{
            f"true_first_{rank}": f"mean probability of rank {rank} when the label is put first"
            for rank in range(1, RANKS + 1)
        },
    }

    def measure(self, opened: OpenedRun, network: str, part: str) -> Arrays:
        """Return mean masses ``ranked`` and ``true_first``, float64 [ranks], and ``effective_classes``, float64 []."""
        logits, labels = opened.predictions(network)
        logs = log_probabilities(logits)
        return {
            "ranked": ranked_mass(np.exp(logs)),
            "true_first": ranked_mass(np.exp(logs), labels),
            "effective_classes": np.array(np.exp(entropies(logs)).mean()),
        }

    def rows(self, found: Sequence[Measured]) -> list[Row]:
        """Return a row for each network."""
        rows = []
        for each in found:
            ranked, true_first = each.arrays["ranked"], each.arrays["true_first"]
            row = owner(each)
            row |= {f"mass_{rank}": float(mass) for rank, mass in enumerate(ranked, start=1)}
            row |= {
                "secondary_mass": 1.0 - float(ranked[0]),
                "effective_classes": float(each.arrays["effective_classes"]),
            }
            row |= {f"true_first_{rank}": float(mass) for rank, mass in enumerate(true_first, start=1)}
            rows.append(row)
        return rows

    def draw(self, found: Sequence[Measured], title: str) -> Figure:
        """Draw the masses over the ranks, on a logarithmic axis."""
        figure = open_figure(10.0, 4.2, title)
        left, right = figure.subplots(1, 2, sharey=True)
        drawn = styles([each.label for each in found])
        for axes, name in ((left, "ranked"), (right, "true_first")):
            for each in found:
                masses = each.arrays[name]
                axes.plot(np.arange(1, len(masses) + 1), masses, label=each.label, **drawn[each.label].line())
                axes.set_xticks(np.arange(1, len(masses) + 1))
            log_scale_up(axes)
        dress(left, "by probability", "rank of the class", "mean probability (log scale)")
        dress(right, "the label first, the others by probability", "rank of the class")
        legend(left)
        return figure


def ranked_mass(probabilities: np.ndarray, first: np.ndarray | None = None) -> np.ndarray:
    """Return the mean probability by rank, float64 [ranks].

    Args:
        probabilities: [N, classes].
        first: classes int64 [N] that are rank 1, whatever their probability; the likeliest ones unless given.
    """
    key = probabilities
    if first is not None:
        key = probabilities.copy()
        key[np.arange(len(key)), first] = np.inf
    # Stable, so that equal probabilities have the order of their classes.
    order = np.argsort(-key, axis=1, kind="stable")[:, :RANKS]
    result: np.ndarray = np.take_along_axis(probabilities, order, axis=1).mean(axis=0)
    return result
