"""Are the losses of label maps means over the pixels that they say?"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.objectives import (
    Context,
    HookedPixelClassification,
    Objective,
    PixelClassification,
    dense_dgl_head,
    dense_infopro_head,
    dense_linear_head,
    enlarged,
    pixel_cross_entropy,
)
from engine.recipes import PixelMean


def example() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(0, 5, (2, 9, 11), generator=generator).to(torch.uint8)
    labels[torch.rand(labels.shape, generator=generator) < 0.3] = 255
    return torch.randn(2, 5, 4, 5, generator=generator), labels


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", [(9, 11), (3, 4), (4, 5), (1, 1)])
def test_enlarging_is_torchs_bilinear_interpolation(size: tuple[int, int], align_corners: bool) -> None:
    maps = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64).float()
    expected = F.interpolate(maps, size, mode="bilinear", align_corners=align_corners)
    torch.testing.assert_close(enlarged(maps, size, align_corners=align_corners), expected)


@pytest.mark.parametrize("align_corners", [False, True])
def test_the_two_means_differ_in_their_denominator_only(align_corners: bool) -> None:
    logits, labels = example()
    whole = F.interpolate(logits, (9, 11), mode="bilinear", align_corners=align_corners)
    labelled = F.cross_entropy(whole, labels.long(), ignore_index=255)
    of_all = F.cross_entropy(whole, labels.long(), ignore_index=255, reduction="none").mean()
    torch.testing.assert_close(pixel_cross_entropy(logits, labels, "labelled", align_corners=align_corners), labelled)
    torch.testing.assert_close(pixel_cross_entropy(logits, labels, "all", align_corners=align_corners), of_all)
    assert of_all < labelled


@pytest.mark.parametrize("mean", ["labelled", "all"])
def test_pixels_without_a_class_change_no_gradient(mean: PixelMean) -> None:
    # Logits as large as the labels: each pixel has its own.
    logits = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(1), requires_grad=True)
    labels = torch.ones(1, 4, 4, dtype=torch.uint8)
    labels[0, 2:] = 255
    pixel_cross_entropy(logits, labels, mean).backward()
    assert logits.grad is not None
    assert torch.equal(logits.grad[:, :, 2:], torch.zeros(1, 3, 2, 4))
    assert float(logits.grad[:, :, :2].abs().min()) > 0
    other = logits.detach().clone()
    other[:, :, 2:] += 10
    other.requires_grad_()
    pixel_cross_entropy(other, labels, mean).backward()
    assert other.grad is not None
    assert torch.equal(other.grad, logits.grad)


@pytest.mark.parametrize("mean", ["labelled", "all"])
def test_maps_without_any_class_give_no_loss(mean: PixelMean) -> None:
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = pixel_cross_entropy(logits, torch.full((1, 8, 8), 255, dtype=torch.uint8), mean)
    loss.backward()
    assert loss == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_terms_behind_a_head_and_inside_a_body() -> None:
    features, labels = torch.randn(2, 6, 4, 5, generator=torch.Generator().manual_seed(4)), example()[1]
    head = nn.Conv2d(6, 5, kernel_size=1)
    behind = PixelClassification(head, "labelled", align_corners=True)
    expected = pixel_cross_entropy(head(features), labels, "labelled", align_corners=True)
    objective = Objective({"cross_entropy": behind}, {"cross_entropy": 1.0})
    assert torch.equal(objective(features, Context(labels)).total, expected)
    assert objective.need_labels == {"cross_entropy"}
    inside = HookedPixelClassification("layer3_1", head, "all")
    assert inside.hooks == ("layer3_1",)
    value = inside(torch.zeros(1), Context(labels, hooked={"layer3_1": features}))
    assert torch.equal(value.loss, pixel_cross_entropy(head(features), labels, "all"))
    assert not inside.needs_labels


def test_heads_keep_the_positions() -> None:
    features = torch.randn(2, 64, 6, 8)
    for head in (
        dense_linear_head((64, 6, 8), 7),
        dense_dgl_head((64, 6, 8), 7),
        dense_infopro_head((64, 6, 8), 7, 512),
    ):
        assert head(features).shape == (2, 7, 6, 8)


def test_infopros_head_is_the_published_one_behind_resnet_101() -> None:
    head = dense_infopro_head((1024, 64, 128), 19, 2048)
    assert [tuple(weight.shape) for weight in head.parameters()] == [
        (512, 1024, 3, 3),
        (512,),
        (512,),
        (512,),
        (19, 512, 1, 1),
        (19,),
    ]
