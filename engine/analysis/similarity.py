"""Similarity of networks and segments: what they predict, where they err, and what their features say."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from engine.analysis.analysis import Analysis, Arrays, Measured, Row
from engine.analysis.features import local_outputs, segments_before
from engine.analysis.opened import OpenedRun
from engine.analysis.predictions import log_probabilities
from engine.tracking.figures import INK, TEXT_SIZE, dress, open_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# More would not be readable in their cells.
_MOST_NUMBERS = 12
# Letters of a name in the room beside a matrix; below it, where they are turned, lines would lie on one another.
_LINE = 32


class Similarity(Analysis):
    """Agreement, error correlation, divergence, CKA and distances of features: peers, segments, runs.

    A segment before the last predicts by its own head; its features are those that it hands on, pooled. Of a whole
    network they are those that enter its last linear layer. Of networks for label maps the predictions are compared, of
    whole networks.
    """

    name = "similarity"
    title = "Similarity of predictions and features"
    compares = True
    of_pixels = True
    columns = {
        "first": "a network, or a segment with its own head",
        "second": "another",
        "agreement": "share of the images for which both predict the same class",
        "disagreement": "1 - agreement",
        "error_correlation": "Pearson's correlation of being wrong; not a number where one errs always or never",
        "kl": "mean KL(first || second) of the predictions, nats",
        "kl_back": "mean KL(second || first), nats",
        "jensen_shannon": "mean Jensen-Shannon divergence, nats; at most ln 2",
        "ensemble_gain": "accuracy of the mean probability, minus the mean of both accuracies",
        "cka": "linear CKA of the centred features, 0 to 1; no rotation changes it (Kornblith et al. 2019)",
        "feature_distance": "mean Euclidean distance of the features; not a number where their widths differ",
        "feature_cosine": "mean cosine of the features; a rotation changes both it and the distance",
    }

    def parts(self, opened: OpenedRun, network: str) -> tuple[str, ...]:
        """Return the segments with heads of their own, and the network."""
        heads = () if opened.run.facts.label_maps else segments_before(opened, network)
        return (*heads, "")

    def measure(self, opened: OpenedRun, network: str, part: str) -> Arrays:
        """Return ``labels`` [N], and where there are some ``features`` [N, D] and ``logits`` [N, classes]."""
        if not part:
            logits, labels = opened.predictions(network)
            arrays = {"logits": logits, "labels": labels}
            return arrays if opened.run.facts.label_maps else {**arrays, "features": opened.outputs(network)[1]}
        predicted, found = local_outputs(opened, network, part)
        arrays = {"features": found.numpy(), "labels": opened.images.batch.labels}
        return arrays if predicted is None else {**arrays, "logits": predicted.numpy()}

    def rows(self, found: Sequence[Measured]) -> list[Row]:
        """Return a row for each pair."""
        rows: list[Row] = []
        for one, other in combinations(found, 2):
            row: Row = {"first": _name(one), "second": _name(other)}
            rows.append(
                row | compared_predictions(one.arrays, other.arrays) | compared_features(one.arrays, other.arrays)
            )
        return rows

    def draw(self, found: Sequence[Measured], title: str) -> Figure:
        """Draw agreement and CKA of all pairs as two matrices."""
        side = 2.6 + 0.55 * len(found)
        figure = open_figure(2 * side + 0.6, side + 0.5, title)
        rows = {(row["first"], row["second"]): row for row in self.rows(found)}
        names = [_name(each) for each in found]
        drawn = [f"{each.label} {each.part}".rstrip() for each in found]
        for axes, column, words in zip(
            figure.subplots(1, 2),
            ("agreement", "cka"),
            ("agreement of predictions", "linear CKA of features"),
            strict=True,
        ):
            values = np.eye(len(names))
            for (first, second), row in rows.items():
                place = names.index(str(first)), names.index(str(second))
                values[place] = values[place[::-1]] = row[column]
            _matrix(axes, drawn, values, words)
        return figure


def _name(measured: Measured) -> str:
    return f"{measured.name} {measured.part}".rstrip()


def _matrix(axes: Axes, names: Sequence[str], values: np.ndarray, title: str) -> None:
    dress(axes, f"{title} (0 to 1)")
    axes.grid(False)
    axes.imshow(values, cmap="Greys", vmin=0.0, vmax=1.0)
    words = [textwrap.fill(name, _LINE) for name in names]
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=TEXT_SIZE - 1, parse_math=False)
    axes.set_yticks(range(len(names)), words, fontsize=TEXT_SIZE - 1, parse_math=False)
    if len(names) > _MOST_NUMBERS:
        return
    for (down, across), value in np.ndenumerate(values):
        shown = "-" if math.isnan(value) else f"{value:.2f}"
        ink = "white" if value > 0.55 else INK
        axes.text(across, down, shown, ha="center", va="center", fontsize=TEXT_SIZE - 1.5, color=ink)


def compared_predictions(one: Arrays, other: Arrays) -> Row:
    """Return what the predictions of two say of one another; not a number where one predicts no class.

    Args:
        one: ``logits`` [N, classes] and ``labels`` [N].
        other: the same, of the same images.
    """
    names = list(Similarity.columns)[2:9]
    if "logits" not in one or "logits" not in other:
        return dict.fromkeys(names, math.nan)
    labels = one["labels"]
    first, second = log_probabilities(one["logits"]), log_probabilities(other["logits"])
    guesses = first.argmax(axis=1), second.argmax(axis=1)
    agreement = float((guesses[0] == guesses[1]).mean())
    middle = np.logaddexp(first, second) - math.log(2)
    together = middle.argmax(axis=1)
    alone = [float((guess == labels).mean()) for guess in guesses]
    values = (
        agreement,
        1.0 - agreement,
        correlation(guesses[0] != labels, guesses[1] != labels),
        _divergence(first, second),
        _divergence(second, first),
        (_divergence(first, middle) + _divergence(second, middle)) / 2,
        float((together == labels).mean()) - sum(alone) / 2,
    )
    return dict(zip(names, values, strict=True))


def compared_features(one: Arrays, other: Arrays) -> Row:
    """Return CKA, mean distance and mean cosine of two ``features`` [N, D] and [N, E] of the same images, if any."""
    found: Row = dict.fromkeys(("cka", "feature_distance", "feature_cosine"), math.nan)
    if "features" not in one or "features" not in other:
        return found
    first, second = (each["features"].astype(np.float64) for each in (one, other))
    found["cka"] = linear_cka(first, second)
    if first.shape == second.shape:
        lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
        cosines = (first * second).sum(axis=1) / np.where(lengths > 0, lengths, 1.0)
        found["feature_distance"] = float(np.linalg.norm(first - second, axis=1).mean())
        found["feature_cosine"] = float(cosines.mean())
    return found


def linear_cka(first: np.ndarray, second: np.ndarray) -> float:
    """Return |Y'X|^2 / (|X'X| |Y'Y|) of centred features, in Frobenius norms (Kornblith et al. 2019, equation 4).

    Args:
        first: X, float64 [N, D].
        second: Y, float64 [N, E], of the same images.

    Returns:
        a number in [0, 1]; not a number where all features of one are equal.
    """
    centred = [each - each.mean(axis=0) for each in (first, second)]
    own = [float(np.linalg.norm(each.T @ each)) for each in centred]
    if min(own) == 0.0:
        return math.nan
    return float(np.linalg.norm(centred[1].T @ centred[0])) ** 2 / (own[0] * own[1])


def _divergence(logs: np.ndarray, others: np.ndarray) -> float:
    # What has probability 0 adds nothing, though its logarithm may be infinite.
    with np.errstate(invalid="ignore"):
        terms = np.where(np.exp(logs) > 0, np.exp(logs) * (logs - others), 0.0)
    return float(terms.sum(axis=1).mean())


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Return Pearson's correlation of two arrays of one shape; not a number where one is constant."""
    first, second = (each.astype(np.float64).ravel() for each in (one, other))
    if first.std() == 0.0 or second.std() == 0.0:
        return math.nan
    return float(np.corrcoef(first, second)[0, 1])
