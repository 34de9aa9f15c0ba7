"""Is similarity matching the published loss, and does it stay finite?"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import RecipeError
from engine.objectives import Context, SimilarityMatching, label_similarity, similarity_matrix
from engine.streams import generator, seeded


def naive_similarity(features: np.ndarray) -> np.ndarray:
    """Compare one pair of images at a time, in float64."""
    rows = []
    for image in features.astype(np.float64):
        if features.ndim == 4 and image.shape[0] > 3 and image.shape[1] > 1:
            row = [float(np.std(channel, ddof=1)) for channel in image]
        else:
            row = [float(value) for value in image.ravel()]
        mean = sum(row) / len(row)
        rows.append([value - mean for value in row])
    norms = [math.sqrt(sum(value * value for value in row)) + 1e-8 for row in rows]
    size = len(rows)
    result = np.zeros((size, size))
    for i in range(size):
        for j in range(size):
            product = sum(a * b for a, b in zip(rows[i], rows[j], strict=True))
            result[i, j] = min(1.0, max(-1.0, product / norms[i] / norms[j]))
    return result


@pytest.mark.parametrize("shape", [(5, 8, 4, 6), (5, 3, 4, 4), (5, 8, 1, 1), (5, 7)])
def test_similarity_matrix_equals_the_formula(shape: tuple[int, ...]) -> None:
    features = torch.randn(shape, generator=generator("similarity", *shape))
    np.testing.assert_allclose(similarity_matrix(features).numpy(), naive_similarity(features.numpy()), atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(labels=st.lists(st.integers(0, 6), min_size=1, max_size=8), spare=st.integers(0, 3))
def test_label_similarity_is_that_of_one_hot_rows(labels: list[int], spare: int) -> None:
    num_classes = 7 + spare
    expected = naive_similarity(np.eye(num_classes)[labels])
    np.testing.assert_allclose(label_similarity(torch.tensor(labels), num_classes).numpy(), expected, atol=1e-6)


def test_term_is_the_mean_squared_difference_after_its_convolution() -> None:
    with seeded("similarity"):
        term = SimilarityMatching((4, 5, 5), num_classes=3)
    features, labels = torch.randn(6, 4, 5, 5, generator=generator("features")), [0, 1, 2, 0, 1, 0]
    loss = term(features, Context(torch.tensor(labels))).loss
    weight, padded = (
        term.convolution.weight.detach().numpy(),
        np.pad(features.numpy(), [(0, 0), (0, 0), (1, 1), (1, 1)]),
    )
    convolved = np.zeros((6, 4, 5, 5))
    for row in range(5):
        for column in range(5):
            window = padded[:, :, row : row + 3, column : column + 3]
            convolved[:, :, row, column] = np.tensordot(window, weight, axes=([1, 2, 3], [1, 2, 3]))
    difference = naive_similarity(convolved) - naive_similarity(np.eye(3)[labels])
    assert loss.item() == pytest.approx(float((difference**2).mean()), rel=1e-4)
    assert sum(parameter.numel() for parameter in term.parameters()) == 4 * 4 * 9


def test_features_that_follow_the_labels_have_no_loss() -> None:
    labels = torch.arange(12) % 4
    features = torch.eye(4)[labels]
    torch.testing.assert_close(similarity_matrix(features), label_similarity(labels, 4))


@pytest.mark.parametrize("shape", [(4, 8, 3, 3), (1, 8, 3, 3), (4, 5)])
def test_constant_features_have_a_finite_gradient(shape: tuple[int, ...]) -> None:
    features = torch.ones(shape, requires_grad=True)
    similarity_matrix(features).square().mean().backward()
    assert features.grad is not None and bool(features.grad.isfinite().all())


def test_half_precision_features_under_autocast() -> None:
    term = SimilarityMatching((4, 5, 5), num_classes=3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = term(torch.rand(6, 4, 5, 5).bfloat16(), Context(torch.arange(6) % 3)).loss
        rows = torch.randn(6, 9, generator=generator("rows"))
        similarity = similarity_matrix(rows)
    assert loss.dtype == torch.float32
    np.testing.assert_allclose(similarity.numpy(), naive_similarity(rows.numpy()), atol=1e-5)


def test_flat_features_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"similarity matching takes maps.*\(64,\)"):
        SimilarityMatching((64,), num_classes=10)
