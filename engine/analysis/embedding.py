"""Features of networks in one plane: principal components of all of them together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from engine.analysis.analysis import Analysis, Arrays, Measured, Row, owner
from engine.analysis.opened import OpenedRun
from engine.tracking.figures import INK, TEXT_SIZE, colours, dress, open_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Embedding(Analysis):
    """First two principal components of the features that enter the last linear layer, of all networks together.

    The features of each network are standardised first, so that none decides the plane by its scale. Two networks that
    were not trained together may differ by a rotation, which no plane shows: CKA, of `similarity`, is blind to it.
    """

    name = "embedding"
    title = "Features in the plane of their first two principal components"
    reading = "All networks in one plane; names: the mean of each class, from its images"
    columns = {
        "position": "of the image in its split",
        "label": "its class",
        "component_1": "along the direction of most variance of the standardised features",
        "component_2": "along the direction of most variance of what is left",
        "share_1": "share of the variance along the first direction",
        "share_2": "along the second",
    }

    def refusal_together(self, runs: Sequence[OpenedRun]) -> str | None:
        """Refuse features of different widths: they have no plane in common."""
        widths = {f"{name} of {opened.run.path}": opened.width(name) for opened in runs for name in opened.networks}
        if len(set(widths.values())) < 2:
            return None
        listed = ", ".join(f"{name} has {width}" for name, width in widths.items())
        return f"features of different widths have no plane in common ({listed}); give networks alike"

    def measure(self, opened: OpenedRun, network: str, part: str) -> Arrays:
        """Return ``features`` [N, D], float32, and ``labels`` and ``positions``, int64 [N]."""
        images = opened.images
        return {
            "features": opened.outputs(network)[1],
            "labels": images.batch.labels,
            "positions": images.places,
        }

    def rows(self, found: Sequence[Measured]) -> list[Row]:
        """Return a row for each image and network."""
        planes, (first, second) = _planes(found)
        return point_rows(found, planes, ("component_1", "component_2"), {"share_1": first, "share_2": second})

    def draw(self, found: Sequence[Measured], title: str) -> Figure:
        """Draw a panel for each network: points by class, and the name of each class at its mean."""
        planes, shares = _planes(found)
        across, up = (f"component {number} ({100 * share:.0f} % of variance)" for number, share in enumerate(shares, 1))
        return draw_planes(found, planes, title, across, up)


def _planes(found: Sequence[Measured]) -> tuple[list[np.ndarray], tuple[float, float]]:
    """Return the points of each network, and the shares of the variance along both directions."""
    standardised = standardised_features(found)
    points, shares = principal_components(np.concatenate(standardised))
    return np.split(points, np.cumsum([len(each) for each in standardised])[:-1]), shares


def standardised_features(found: Sequence[Measured]) -> list[np.ndarray]:
    """Return the features of each network, float64 [N, D], each with mean 0 and deviation 1, or 0 where it is."""
    return [_standardised(each.arrays["features"].astype(np.float64)) for each in found]


def _standardised(features: np.ndarray) -> np.ndarray:
    deviation = features.std(axis=0)
    result: np.ndarray = (features - features.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)
    return result


def point_rows(
    found: Sequence[Measured], planes: Sequence[np.ndarray], axes: tuple[str, str], about: Mapping[str, float]
) -> list[Row]:
    """Return a row for each image and network.

    Args:
        found: what was measured of each network.
        planes: its points, float64 [N, 2].
        axes: the columns of a point's two numbers.
        about: more columns, equal in all rows.
    """
    return [
        {
            **owner(each),
            "position": int(position),
            "label": each.class_names[int(label)],
            axes[0]: float(first),
            axes[1]: float(second),
            **about,
        }
        for each, plane in zip(found, planes, strict=True)
        for position, label, (first, second) in zip(each.arrays["positions"], each.arrays["labels"], plane, strict=True)
    ]


def draw_planes(found: Sequence[Measured], planes: Sequence[np.ndarray], title: str, across: str, up: str) -> Figure:
    """Draw a panel for each network: points by class, and its run's name of each class in the middle of its points."""
    figure = open_figure(max(6.5, 0.5 + 4.3 * len(found)), 4.9, title)
    panels = figure.subplots(1, len(found), sharex=True, sharey=True, squeeze=False)[0]
    # By label: runs of the same images may call their classes by other names.
    drawn = [*colours(max((each.class_names for each in found), key=len)).values()]
    for axes, each, plane in zip(panels, found, planes, strict=True):
        for label, name in enumerate(each.class_names):
            own = plane[each.arrays["labels"] == label]
            if not len(own):
                continue
            axes.scatter(own[:, 0], own[:, 1], 7, drawn[label], linewidths=0, alpha=0.6)
            box = {"facecolor": "white", "edgecolor": INK, "linewidth": 0.6, "pad": 1.5}
            middle = own.mean(axis=0)
            axes.text(*middle, name, ha="center", va="center", fontsize=TEXT_SIZE, color=INK, bbox=box)
        dress(axes, each.label, across, up if axes is panels[0] else "")
    return figure


def principal_components(features: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
    """Return the first two principal components, and the shares of the variance along them.

    The sign of each direction is that which makes its largest entry positive, so that it is the same in every run.

    Args:
        features: float64 [N, D].

    Returns:
        float64 [N, 2], zeros where there are fewer directions, and two numbers.
    """
    centred = features - features.mean(axis=0)
    _, lengths, directions = np.linalg.svd(centred, full_matrices=False)
    directions = directions[:2]
    largest = np.take_along_axis(directions, abs(directions).argmax(axis=1, keepdims=True), axis=1)
    directions = directions * np.sign(largest)
    points = np.zeros((len(features), 2))
    points[:, : len(directions)] = centred @ directions.T
    total = float((lengths**2).sum()) or 1.0
    shares = [float(length**2) / total for length in lengths[:2]] + [0.0, 0.0]
    return points, (shares[0], shares[1])
