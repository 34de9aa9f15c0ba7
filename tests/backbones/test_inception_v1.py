"""Is InceptionV1 torchvision's GoogLeNet, and are its auxiliary heads apart from it?"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from engine import backbones, streams
from engine.errors import RecipeError
from engine.recipes.backbone import Backbone

CIFAR, IMAGENET = (3, 32, 32), (3, 224, 224)
WITH_HEADS = Backbone(name="inception_v1", auxiliary_heads=True)


def make(
    num_classes: int = 10, image_shape: tuple[int, int, int] = CIFAR, device: str = "cpu", **fields: Any
) -> nn.Sequential:
    with torch.device(device):
        return backbones.build(Backbone(name="inception_v1", **fields), num_classes, image_shape, seed=0)


def heads_of(
    network: nn.Sequential, num_classes: int = 10, image_shape: tuple[int, int, int] = CIFAR, seed: int = 0
) -> dict[str, nn.Module]:
    with streams.seeded(seed, "heads"):
        return backbones.auxiliary_heads(WITH_HEADS, network, num_classes, image_shape)


def size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_outputs_are_those_of_torchvision_with_the_same_weights() -> None:
    with streams.seeded(1, "reference"):
        reference = torchvision.models.googlenet(
            num_classes=7, aux_logits=False, init_weights=False, transform_input=False
        ).eval()
        for module in reference.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.running_mean, -0.2, 0.2)
                nn.init.uniform_(module.running_var, 0.05, 0.15)
    network = make(7, stem="imagenet").eval()
    backbones.load_plain_state(network, "inception_v1", reference.state_dict())
    images = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = reference(images)
        torch.testing.assert_close(network(images), expected)
    assert (expected[0] - expected[1]).abs().max() > 1e-4
    assert list(backbones.plain_state(network, "inception_v1")) == list(reference.state_dict())


def test_it_has_the_parameters_of_torchvision() -> None:
    network = make(100, IMAGENET, "meta")
    assert size(network) == 5_702_404
    # conv1 of 3 x 192 x 9 and its norm, for 3 x 64 x 49, 64 x 64 and 64 x 192 x 9 and their norms.
    small = make(100, CIFAR, "meta")
    assert backbones.parameter_counts(network)["stem"] == 9_408 + 4_096 + 110_592 + 2 * (64 + 64 + 192)
    assert backbones.parameter_counts(small)["stem"] == 5_184 + 2 * 192
    assert size(small) - 5_568 == 5_702_404 - 124_736


def test_large_images_shrink_as_in_the_paper() -> None:
    shapes = backbones.feature_shapes(make(1000, IMAGENET, "meta"), IMAGENET)
    assert [shape[:2] for shape in shapes[:-1]] == [
        (192, 28),
        (256, 28),
        (480, 14),
        (512, 14),
        (512, 14),
        (512, 14),
        (528, 14),
        (832, 7),
        (832, 7),
        (1024, 7),
    ]


def test_small_images_stay_large_until_the_fourth_stage() -> None:
    shapes = backbones.feature_shapes(make(device="meta"), CIFAR)
    assert [shape[1] for shape in shapes[:-1]] == [32, 32, 16, 16, 16, 16, 16, 8, 8, 8]
    assert shapes[-1] == (10,)


def test_convolutions_start_with_the_fan_out_deviation() -> None:
    network = make()
    for module in nn.ModuleList([network, *heads_of(network).values()]).modules():
        if isinstance(module, nn.Conv2d):
            deviation = math.sqrt(2 / (module.kernel_size[0] ** 2 * module.out_channels))
            tolerance = 6 * deviation / math.sqrt(2 * module.weight.numel())
            assert module.weight.std().item() == pytest.approx(deviation, abs=tolerance)


def test_dropout_is_before_the_linear_layer() -> None:
    def probabilities(**fields: Any) -> list[float]:
        return [module.p for module in make(device="meta", **fields).modules() if isinstance(module, nn.Dropout)]

    assert probabilities() == [0.2]
    assert probabilities(dropout=0.4) == [0.4]
    assert probabilities(dropout=0.0) == []


def test_two_heads_have_the_parameters_of_torchvision() -> None:
    network = make(100, IMAGENET, "meta", auxiliary_heads=True)
    with torch.device("meta"):
        heads = heads_of(network, 100, IMAGENET)
        reference = torchvision.models.googlenet(num_classes=100, aux_logits=True, init_weights=False)
    assert list(heads) == ["inception4a", "inception4d"]
    assert size(network) == 5_702_404
    assert size(network) + sum(map(size, heads.values())) == size(reference) == 10_237_388


@pytest.mark.parametrize("image_shape", [CIFAR, (1, 8, 8), (3, 128, 128)])
def test_each_head_reads_the_features_after_its_block(image_shape: tuple[int, int, int]) -> None:
    network = make(5, image_shape).eval()
    heads = heads_of(network, 5, image_shape)
    features = torch.rand(2, *image_shape)
    read = []
    for name, child in network.named_children():
        features = child(features)
        if name in heads:
            before = features.clone()
            assert heads[name](features).shape == (2, 5)
            assert torch.equal(features, before)
            read.append(name)
    assert read == list(heads)


def test_heads_leave_the_network_as_it_is() -> None:
    plain, network = make(), make(auxiliary_heads=True)
    heads = heads_of(network)
    assert list(network.state_dict()) == list(plain.state_dict())
    assert all(torch.equal(tensor, plain.state_dict()[key]) for key, tensor in network.state_dict().items())
    owned = {id(parameter) for parameter in network.parameters()}
    for head in heads.values():
        assert head.training
        assert owned.isdisjoint(id(parameter) for parameter in head.parameters())


def test_the_callers_stream_alone_decides_the_weights_of_the_heads() -> None:
    network = make(device="meta")
    first, again, other = (nn.ModuleDict(heads_of(network, seed=seed)).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not any(torch.equal(first[key], other[key]) for key in first if key.endswith(("conv.weight", "fc1.weight")))


@pytest.mark.parametrize("auxiliary_heads", [None, False])
def test_there_are_no_heads_unless_asked_for(auxiliary_heads: bool | None) -> None:
    settings = Backbone(name="inception_v1", auxiliary_heads=auxiliary_heads)
    assert backbones.auxiliary_heads(settings, make(device="meta"), 10, CIFAR) == {}
    other = Backbone(name="resnet8")
    with torch.device("meta"):
        assert backbones.auxiliary_heads(other, backbones.build(other, 10, CIFAR, seed=0), 10, CIFAR) == {}


def test_other_backbones_have_no_heads_to_ask_for() -> None:
    with pytest.raises(RecipeError, match=r"backbone.auxiliary_heads=True: resnet8 .*InceptionV1 \(inception_v1\)"):
        backbones.build(Backbone(name="resnet8", auxiliary_heads=True), 10, CIFAR, seed=0)
