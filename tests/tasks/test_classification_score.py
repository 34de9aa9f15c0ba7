"""Are predicted classes scored exactly, however they are batched?"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from engine.errors import DataError
from engine.streams import generator
from engine.tasks import ClassificationScore


def naive_score(logits: Tensor, labels: list[int]) -> dict[str, float]:
    """Score one image at a time in Python numbers."""
    correct = correct_in_top5 = 0
    loss = 0.0
    bins: list[list[tuple[float, int]]] = [[] for _ in range(15)]
    for row, label in zip(logits.double().tolist(), labels, strict=True):
        ranked = sorted(range(len(row)), key=lambda j: (-row[j], j))
        hit = int(ranked[0] == label)
        correct += hit
        correct_in_top5 += int(label in ranked[:5])
        top = max(row)
        total = sum(math.exp(value - top) for value in row)
        loss += top + math.log(total) - row[label]
        confidence = 1.0 / total
        for index in range(15):
            if index / 15 < confidence <= (index + 1) / 15:
                bins[index].append((confidence, hit))
    error = 0.0
    for members in bins:
        if members:
            mean_confidence = sum(confidence for confidence, _ in members) / len(members)
            accuracy = sum(hit for _, hit in members) / len(members)
            error += len(members) / len(labels) * abs(accuracy - mean_confidence)
    count = len(labels)
    scores = {"accuracy": correct / count, "loss": loss / count, "expected_calibration_error": error, "images": count}
    if logits.shape[1] > 5:
        scores["top5_accuracy"] = correct_in_top5 / count
    return scores


@settings(max_examples=40)
@given(
    batches=st.lists(st.integers(1, 7), min_size=1, max_size=5),
    num_classes=st.integers(2, 9),
    seed=st.integers(0, 100),
    coarse=st.booleans(),
)
def test_equals_counting_by_hand_for_ragged_batches(
    batches: list[int], num_classes: int, seed: int, coarse: bool
) -> None:
    total = sum(batches)
    logits = 3 * torch.randn(total, num_classes, generator=generator("score", seed))
    if coarse:
        logits = logits.round()
    labels = torch.randint(num_classes, (total,), generator=generator("labels", seed))
    score = ClassificationScore(num_classes)
    for some_logits, some_labels in zip(logits.split(batches), labels.split(batches), strict=True):
        score.update(some_logits, some_labels)
    assert score.result() == pytest.approx(naive_score(logits, labels.tolist()), rel=1e-12, abs=1e-12)


def test_top5_is_reported_for_more_than_five_classes_only() -> None:
    for num_classes, reported in [(5, False), (6, True)]:
        score = ClassificationScore(num_classes)
        score.update(torch.arange(float(num_classes))[None], torch.tensor([1]))
        assert ("top5_accuracy" in score.result()) is reported
        assert score.result()["accuracy"] == 0.0
    assert score.result()["top5_accuracy"] == 1.0


def test_perfect_and_certain_predictions_are_calibrated() -> None:
    labels = torch.arange(8)
    score = ClassificationScore(8)
    score.update(1000 * torch.eye(8), labels)
    assert score.result() == {
        "accuracy": 1.0,
        "top5_accuracy": 1.0,
        "loss": 0.0,
        "expected_calibration_error": 0.0,
        "images": 8,
    }


def test_certain_but_wrong_predictions_are_not() -> None:
    score = ClassificationScore(4)
    score.update(1000 * torch.eye(4), torch.tensor([1, 2, 3, 0]))
    assert score.result()["expected_calibration_error"] == 1.0


def test_confidence_on_the_edge_of_a_bin_belongs_to_the_lower_bin() -> None:
    score = ClassificationScore(3)
    # Confidences 5/15, on the edge and wrong, and 0.36, above it and right: two bins, so the errors do not cancel.
    score.update(
        torch.tensor([[1 / 3, 1 / 3, 1 / 3], [0.36, 0.32, 0.32]], dtype=torch.float64).log(), torch.tensor([2, 0])
    )
    assert score.result()["expected_calibration_error"] == pytest.approx((1 / 3 + 0.64) / 2)


@pytest.mark.parametrize("label", [10, -1])
def test_labels_beyond_the_logits_are_refused(label: int) -> None:
    with pytest.raises(DataError, match=f"label {label} found.*10 classes"):
        ClassificationScore(10).update(torch.zeros(3, 10), torch.tensor([0, label, 1]))


def test_an_empty_split_is_refused() -> None:
    with pytest.raises(DataError, match="no image"):
        ClassificationScore(10).result()


def test_predictions_that_are_not_numbers_are_wrong_and_show_in_the_loss() -> None:
    score = ClassificationScore(7)
    score.update(torch.full((4, 7), math.nan), torch.tensor([0, 1, 2, 6]))
    result = score.result()
    assert result["accuracy"] == 0.0 and result["top5_accuracy"] == 0.0
    assert math.isnan(result["loss"]) and math.isnan(result["expected_calibration_error"])


def test_scoring_keeps_no_graph_and_takes_half_precision() -> None:
    logits = torch.randn(4, 3, generator=generator("half")).bfloat16().requires_grad_()
    score = ClassificationScore(3)
    score.update(logits, torch.arange(4) % 3)
    assert score.result() == pytest.approx(naive_score(logits.detach(), [0, 1, 2, 0]), rel=1e-12)
