"""Is the average precision of a ranking that of published examples and of scikit-learn?"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from engine.streams import generator
from engine.tasks.retrieval_score import scores_of_ranking

# Relevance by rank, then average precision as a sum of steps and by trapezoids, computed with other code.
PUBLISHED = [
    ("1 0 1 0 0 1", 0.7222, 0.6778),
    ("0 1 1 0 1", 0.5889, 0.4611),
    ("0 0 0 1", 0.25, 0.125),
    ("1 1 1", 1.0, 1.0),
    ("1 0 0 0 1 1 0 1", 0.6, 0.5598),
]


@pytest.mark.parametrize(("relevance", "step", "trapezoid"), PUBLISHED)
def test_average_precision_of_known_rankings(relevance: str, step: float, trapezoid: float) -> None:
    right = np.array([word == "1" for word in relevance.split()])
    found = scores_of_ranking(right)
    assert found["mean_average_precision"] == pytest.approx(step, abs=5e-5)
    assert found["mean_average_precision_trapezoid"] == pytest.approx(trapezoid, abs=5e-5)
    assert found["rank1"] == float(right[0])
    assert found["rank5"] == 1.0
    last = np.flatnonzero(right)[-1] + 1
    assert found["mean_inverse_negative_penalty"] == pytest.approx(right.sum() / last)


def test_average_precision_is_scikit_learn_s() -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    stream = generator("average precision")
    for _ in range(20):
        right = (torch.rand(50, generator=stream) < 0.2).numpy()
        right[7] = True
        expected = metrics.average_precision_score(right, -np.arange(50))
        assert scores_of_ranking(right)["mean_average_precision"] == pytest.approx(expected)
