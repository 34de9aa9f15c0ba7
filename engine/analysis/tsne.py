"""Features of networks as neighbourhoods: t-SNE of all of them together (van der Maaten and Hinton 2008)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from engine.analysis.analysis import Measured, Row
from engine.analysis.embedding import Embedding, draw_planes, point_rows, principal_components, standardised_features
from engine.analysis.opened import OpenedRun

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PERPLEXITY = 30.0
_FEWEST_POINTS = 4
_FIRST_DEVIATION = 1e-4  # Of the points before the first step, as in scikit-learn.


class TSNE(Embedding):
    """t-SNE of the features that enter the last linear layer, of all networks together; needs scikit-learn.

    The features of each network are standardised first. It begins at their first two principal components, so that
    nothing is drawn, and computes in one thread, as sums of several have no fixed order.
    """

    name = "tsne"
    title = "Neighbourhoods of the features: t-SNE of all networks together"
    reading = (
        "Near points are near in the features; distances between clusters and their sizes say nothing. Names: the "
        "mean of each class"
    )
    columns = {
        "position": "of the image in its split",
        "label": "its class",
        "x": "across; neither it nor y has a unit",
        "y": "up",
        "perplexity": "how many neighbours a point counts, about",
        "divergence": "KL of the neighbourhoods in the plane from those of the features, nats: the lower, the truer",
    }

    def refusal_together(self, runs: Sequence[OpenedRun]) -> str | None:
        """Refuse also where scikit-learn is missing, and fewer images than have neighbourhoods."""
        try:
            import sklearn.manifold  # noqa: F401
        except ImportError:
            return (
                "needs scikit-learn; pip install 'local-learning[analysis]', or give embedding, the principal "
                "components, which need nothing more"
            )
        count = len(runs[0].places)
        if count < _FEWEST_POINTS:
            return f"{count} images have no neighbourhoods; give --images {_FEWEST_POINTS} or more"
        return super().refusal_together(runs)

    def rows(self, found: Sequence[Measured]) -> list[Row]:
        """Return a row for each image and network."""
        planes, perplexity, divergence = _planes(found)
        return point_rows(found, planes, ("x", "y"), {"perplexity": perplexity, "divergence": divergence})

    def draw(self, found: Sequence[Measured], title: str) -> Figure:
        """Draw a panel for each network: points by class, and the name of each class at its mean."""
        planes, perplexity, _ = _planes(found)
        return draw_planes(found, planes, title, f"t-SNE, perplexity {perplexity:.3g}", "")


def _planes(found: Sequence[Measured]) -> tuple[list[np.ndarray], float, float]:
    """Return the points of each network, the perplexity, and the divergence that is left."""
    each = standardised_features(found)
    features = np.ascontiguousarray(np.concatenate(each))
    points, perplexity, divergence = _embedded(features.tobytes(), features.shape[1])
    return np.split(points, np.cumsum([len(one) for one in each])[:-1]), perplexity, divergence


@functools.lru_cache(maxsize=1)
def _embedded(content: bytes, width: int) -> tuple[np.ndarray, float, float]:
    """Return t-SNE of features, which are bytes so that table and picture share what takes seconds.

    Args:
        content: float64 [N, width], row by row.
        width: of a row.

    Returns:
        float64 [N, 2], the perplexity, and the divergence.
    """
    from sklearn.manifold import TSNE as Algorithm
    from threadpoolctl import threadpool_limits

    features = np.frombuffer(content).reshape(-1, width)
    start, _ = principal_components(features)
    deviation = float(start[:, 0].std())
    perplexity = min(_PERPLEXITY, (len(features) - 1) / 3)
    with threadpool_limits(1):
        algorithm = Algorithm(
            perplexity=perplexity,
            init=(start * (_FIRST_DEVIATION / deviation if deviation else 0.0)).astype(np.float32),
            learning_rate="auto",
        )
        points = algorithm.fit_transform(features).astype(np.float64)
    return points, perplexity, float(algorithm.kl_divergence_)
