"""Is MobileNetV1 the published network, and do its stride plans lead where they should?"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import engine
from engine import backbones
from engine.errors import RecipeError
from engine.recipes.backbone import Backbone
from engine.streams import generator

CIFAR, IMAGENET = (3, 32, 32), (3, 224, 224)
THREE = (1, 1, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)


def make(
    name: str = "mobilenet_v1",
    num_classes: int = 10,
    image_shape: tuple[int, int, int] = CIFAR,
    device: str = "meta",
    **fields: Any,
) -> nn.Sequential:
    with torch.device(device):
        return backbones.build(Backbone(name=name, **fields), num_classes, image_shape, seed=0)


def sizes(image_shape: tuple[int, int, int] = CIFAR, **fields: Any) -> list[int]:
    """Return the heights of the features after the stem and the 13 blocks."""
    shapes = backbones.feature_shapes(make(image_shape=image_shape, **fields), image_shape)
    assert all(shape[1] == shape[2] for shape in shapes[:-1])
    return [shape[1] for shape in shapes[:-1]]


def test_relu6_stops_at_6_everywhere_and_changes_no_weight() -> None:
    plain, capped = (make("mobilenet_v1_025", device="cpu", activation=each) for each in (None, "relu6"))
    weights = plain.state_dict()
    assert weights.keys() == capped.state_dict().keys()
    assert all(value.equal(weights[key]) for key, value in capped.state_dict().items())
    largest = []
    for network in (plain, capped):
        features = 50 * torch.randn(2, *CIFAR, generator=generator("relu6"))
        # Without statistics of its own, a batch norm passes on how large the features are.
        for block in network.eval()[:-1]:
            features = 50 * block(features).detach()
            largest.append(float(features.max()))
    assert max(largest[14:]) == 300 == min(largest[14:])
    assert min(largest[:14]) > 300


@pytest.mark.parametrize(
    ("name", "num_classes", "expected"),
    [
        ("mobilenet_v1", 10, 3_217_226),
        ("mobilenet_v1", 100, 3_309_476),
        ("mobilenet_v1", 751, 3_976_751),
        ("mobilenet_v1", 1000, 4_231_976),
        ("mobilenet_v1_100", 1000, 4_231_976),
        # The paper's table 6 has 2.6, 1.3 and 0.5 million.
        ("mobilenet_v1_075", 1000, 2_585_560),
        ("mobilenet_v1_050", 1000, 1_331_592),
        ("mobilenet_v1_025", 1000, 470_072),
    ],
)
def test_it_has_the_published_parameters_whatever_the_strides(name: str, num_classes: int, expected: int) -> None:
    for fields in ({}, {"strides": "four"}, {"stem": "imagenet"}):
        assert sum(backbones.parameter_counts(make(name, num_classes, **fields)).values()) == expected


def test_the_smallest_width_is_eight_channels() -> None:
    shapes = backbones.feature_shapes(make("mobilenet_v1_010"), CIFAR)
    assert [shape[0] for shape in shapes] == [8, 8, 12, 12, 25, 25, *[51] * 6, 102, 102, 10]


def test_three_halvings_end_small_images_at_four_pixels() -> None:
    assert sizes() == sizes(strides="three") == sizes(strides=THREE) == [32] * 4 + [16] * 2 + [8] * 6 + [4] * 2


def test_four_halvings_end_small_images_at_two_pixels() -> None:
    assert sizes(strides="four") == [32] * 2 + [16] * 2 + [8] * 2 + [4] * 6 + [2] * 2


def test_large_images_get_the_published_plan() -> None:
    published = [112] * 2 + [56] * 2 + [28] * 2 + [14] * 6 + [7] * 2
    assert sizes(IMAGENET) == sizes(IMAGENET, strides="four", stem="imagenet") == published
    assert sizes((3, 127, 127))[0] == 127
    assert sizes((3, 128, 128))[0] == 64
    assert sizes(IMAGENET, stem="cifar")[-1] == 28


def test_strides_of_ones_own() -> None:
    assert sizes(strides=(2,) * 5 + (1,) * 8) == [32, 16, 8, 4, 2] + [1] * 9


@pytest.mark.parametrize("strides", [(), (1, 2), THREE + (1,)])
def test_another_number_of_strides_is_named_with_a_remedy(strides: tuple[int, ...]) -> None:
    with pytest.raises(RecipeError) as raised:
        make(strides=strides)
    for part in ("backbone.strides", f"found {len(strides)} strides", "13 blocks", "three, four"):
        assert part in str(raised.value)


def test_strides_are_a_field_of_mobilenet_v1_alone() -> None:
    with pytest.raises(RecipeError, match=r"backbone.strides=three: resnet8 .*MobileNetV1"):
        make("resnet8", strides="three")


@pytest.mark.parametrize("name", ["mobilenet_v1_000", "mobilenet_v1_5", "mobilenet_v1_"])
def test_impossible_widths_are_no_names(name: str) -> None:
    with pytest.raises(RecipeError, match=r"no such backbone.*mobilenet_v1"):
        make(name)


@pytest.mark.parametrize(
    ("word", "expected"),
    [("three", "three"), ("four", "four"), (",".join(map(str, THREE)), THREE), (str(list(THREE)), THREE)],
)
def test_strides_on_the_command_line(word: str, expected: object) -> None:
    words = ("backbone.name=mobilenet_v1", f"backbone.strides={word}")
    recipe, _ = engine.apply_overrides(engine.load_recipe("infopro_digits"), engine.Plan(), words)
    assert recipe.backbone.strides == expected


@pytest.mark.parametrize(
    ("word", "part"),
    [("thre", "did you mean 'three'?"), ("1,2,3", "backbone.strides.2: found 3; input should be 1 or 2")],
)
def test_wrong_strides_on_the_command_line(word: str, part: str) -> None:
    with pytest.raises(RecipeError) as raised:
        engine.apply_overrides(engine.load_recipe("infopro_digits"), engine.Plan(), (f"backbone.strides={word}",))
    assert part in str(raised.value)


def naive(state: dict[str, Tensor], images: Tensor, strides: tuple[int, ...]) -> Tensor:
    """Return the outputs of MobileNetV1 as one function over its state, in evaluation mode."""

    def normalise(x: Tensor, name: str) -> Tensor:
        mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        return F.relu(F.batch_norm(x, mean, var, state[f"{name}.weight"], state[f"{name}.bias"]))

    x = normalise(F.conv2d(images, state["conv1.weight"], padding=1), "bn1")
    for block, stride in enumerate(strides, start=1):
        weight = state[f"block{block}.conv1.weight"]
        x = F.conv2d(x, weight, stride=stride, padding=1, groups=len(weight))
        x = F.conv2d(normalise(x, f"block{block}.bn1"), state[f"block{block}.conv2.weight"])
        x = normalise(x, f"block{block}.bn2")
    return F.linear(x.mean(dim=(2, 3)), state["fc.weight"], state["fc.bias"])


def test_a_naive_function_takes_the_exported_weights() -> None:
    network = make("mobilenet_v1_050", device="cpu").eval()
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None and module.running_var is not None:
            module.running_mean.uniform_(-0.2, 0.2, generator=generator)
            module.running_var.uniform_(0.05, 0.15, generator=generator)
    images = torch.rand(2, 3, 32, 32, generator=generator)
    with torch.no_grad():
        expected = naive(backbones.plain_state(network, "mobilenet_v1_050"), images, THREE)
        torch.testing.assert_close(network(images), expected)
    assert expected.std() > 1e-3


def test_convolutions_start_with_the_fan_out_deviation() -> None:
    for module in make("mobilenet_v1_050", device="cpu").modules():
        if isinstance(module, nn.Conv2d):
            assert module.bias is None
            # Of a convolution of each channel alone, fan-out is counted as if it gave every output from one input.
            deviation = math.sqrt(2 / (module.kernel_size[0] ** 2 * module.out_channels))
            tolerance = 6 * deviation / math.sqrt(2 * module.weight.numel())
            assert module.weight.std().item() == pytest.approx(deviation, abs=tolerance)


def test_dropout_acts_in_training_only() -> None:
    images = torch.rand(2, 3, 16, 16)
    dry, wet = make("mobilenet_v1_025", device="cpu"), make("mobilenet_v1_025", device="cpu", dropout=0.5)
    assert torch.equal(dry.eval()(images), wet.eval()(images))
    assert not torch.equal(dry.train()(images), wet.train()(images))
    assert not any(isinstance(module, nn.Dropout) for module in dry.modules())
