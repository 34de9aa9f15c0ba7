"""Are the scores of label maps those of one confusion matrix over all images?"""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.errors import DataError
from engine.tasks import CohortSegmentationScore, ConfusionMatrix, SegmentationScore

NAMES = ("sky", "road", "car")


def logits_of(predicted: Tensor, classes: int = 3) -> Tensor:
    """Return logits [B, classes, H, W] whose largest one is the prediction."""
    return F.one_hot(predicted, classes).movedim(-1, 1).float()


def test_a_confusion_matrix_by_hand() -> None:
    labels = torch.tensor([[[0, 0, 0, 0], [1, 1, 1, 255], [2, 2, 255, 255]]], dtype=torch.uint8)
    predicted = torch.tensor([[[0, 0, 0, 1], [1, 1, 0, 0], [2, 1, 2, 0]]])
    score = SegmentationScore(NAMES)
    score.update(logits_of(predicted), labels)
    # sky: 3 right, 1 missed, 1 too many; road: 2 right, 1 missed, 2 too many; car: 1 right, 1 missed.
    found = score.result()
    assert found["iou_of_sky"] == 3 / 5
    assert found["iou_of_road"] == 2 / 5
    assert found["iou_of_car"] == 1 / 2
    assert found["mean_iou"] == pytest.approx((3 / 5 + 2 / 5 + 1 / 2) / 3)
    assert found["pixel_accuracy"] == pytest.approx(6 / 9)
    assert found["mean_class_accuracy"] == pytest.approx((3 / 4 + 2 / 3 + 1 / 2) / 3)
    assert found["images"] == 1


def test_the_matrix_is_of_the_whole_split_not_a_mean_over_images() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (6, 5, 7), generator=generator).to(torch.uint8)
    labels[torch.rand(labels.shape, generator=generator) < 0.2] = 255
    predicted = torch.randint(0, 3, labels.shape, generator=generator)
    together, apart = SegmentationScore(NAMES), SegmentationScore(NAMES)
    together.update(logits_of(predicted), labels)
    for row in range(6):
        apart.update(logits_of(predicted[row : row + 1]), labels[row : row + 1])
    assert apart.result() == together.result()
    ious = []
    for label in range(3):
        known = labels != 255
        mine, theirs = (labels == label) & known, (predicted == label) & known
        ious.append(int((mine & theirs).sum()) / int((mine | theirs).sum()))
    assert together.result()["mean_iou"] == pytest.approx(sum(ious) / 3)


def test_a_class_that_is_neither_there_nor_predicted_is_left_out_of_the_mean() -> None:
    score = ConfusionMatrix(NAMES)
    labels = torch.tensor([[[0, 0, 1, 1]]], dtype=torch.uint8)
    score.update(torch.tensor([[[0, 0, 1, 0]]]), labels)
    found = score.result()
    assert "iou_of_car" not in found
    assert found["mean_iou"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert found["mean_class_accuracy"] == pytest.approx((1 + 1 / 2) / 2)
    # Once it is predicted, its intersection is empty and its union is not.
    score.update(torch.tensor([[[2, 0, 1, 1]]]), labels)
    assert score.result()["iou_of_car"] == 0


def test_logits_are_enlarged_to_the_size_of_the_labels() -> None:
    logits = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(1))
    labels = F.interpolate(logits, (13, 17), mode="bilinear").argmax(1).to(torch.uint8)
    score = SegmentationScore(NAMES)
    score.update(logits, labels)
    assert score.result()["pixel_accuracy"] == 1


def test_a_prediction_that_is_not_a_number_is_wrong() -> None:
    score = SegmentationScore(NAMES)
    score.update(torch.full((1, 3, 2, 2), math.nan), torch.zeros(1, 2, 2, dtype=torch.uint8))
    assert score.result()["mean_iou"] == score.result()["pixel_accuracy"] == 0


def test_labels_that_cannot_be_are_refused() -> None:
    score = SegmentationScore(NAMES)
    with pytest.raises(DataError, match="label 7 found, but there are 3 classes, 0 to 2, and 255 for pixels without"):
        score.update(torch.zeros(1, 3, 2, 2), torch.full((1, 2, 2), 7, dtype=torch.uint8))
    score = SegmentationScore(NAMES)
    score.update(torch.zeros(1, 3, 2, 2), torch.full((1, 2, 2), 255, dtype=torch.uint8))
    with pytest.raises(DataError, match="none of the 1 scored images has a labelled pixel"):
        score.result()


def test_names_become_words_that_differ() -> None:
    score = ConfusionMatrix(("a/b", "a b", "c"))
    score.update(torch.tensor([[[0, 1, 2]]]), torch.tensor([[[0, 1, 2]]], dtype=torch.uint8))
    assert [name for name in score.result() if name.startswith("iou_of_")] == ["iou_of_a_b", "iou_of_a_b_1", "iou_of_c"]


def test_a_cohort_predicts_by_the_mean_of_probabilities() -> None:
    generator = torch.Generator().manual_seed(2)
    outputs = {"a": 3 * torch.randn(2, 3, 4, 4, generator=generator), "b": torch.randn(2, 3, 8, 8, generator=generator)}
    whole = [F.interpolate(each, (8, 8), mode="bilinear").softmax(1) for each in outputs.values()]
    labels = (whole[0] + whole[1]).argmax(1).to(torch.uint8)
    score = CohortSegmentationScore(NAMES)
    score.update({**outputs, "left": torch.full((2, 3, 4, 4), math.nan)}, labels)
    assert score.result()["pixel_accuracy"] == 1
    assert score.result()["images"] == 2
    # Neither of them alone predicts that.
    assert all(bool((each.argmax(1) != labels).any()) for each in whole)
