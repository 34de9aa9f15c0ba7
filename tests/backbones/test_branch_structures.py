"""Are branches made of what was published: blocks, parameters, operations?"""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from engine import backbones
from engine.backbones import branches
from engine.errors import RecipeError
from engine.recipes.backbone import Backbone

CIFAR, IMAGENET = (3, 32, 32), (3, 224, 224)
POOLED = {"resnet32", "resnet110", "resnet1202"}
# Millions of parameters of main path, branch near the top and deep branch, and millions of multiplications and
# additions of convolutions and linear layers, counted from the released code: 100 classes, or 1000 from ResNet-18 on.
PUBLISHED: dict[str, tuple[tuple[float, float, float], tuple[str, str, str]]] = {
    "resnet32": ((0.470, 1.379, 0.298), ("68.9", "87.3", "35.4")),
    "resnet110": ((1.734, 5.220, 0.816), ("252.9", "332.7", "82.6")),
    "resnet1202": ((19.427, 58.987, 9.238), ("2829", "3768", "941")),
    "wrn_16_8": ((11.008, 31.044, 5.823), ("1548", "1980", "772")),
    "wrn_28_10": ((36.537, 107.464, 20.145), ("5243", "6868", "2622")),
    "densenet_40_12": ((1.060, 2.039, 0.650), ("264.9", "125.0", "112.5")),
    "densenet_100_12": ((7.085, 14.197, 2.494), ("1770", "891", "382")),
    "densenet_bc_100_12": ((0.800, 4.943, 0.600), ("288.0", "304.5", "88.8")),
    "densenet_bc_190_40": ((25.822, 57.667, 7.783), ("9302", "3648", "1296")),
    "densenet_bc_250_24": ((15.481, 34.092, 4.900), ("5419", "2145", "805")),
    "resnet18": ((11.690, 31.968, 9.826), ("1814", "1517", "591")),
    "resnet34": ((21.798, 50.847, 12.187), ("3664", "2442", "1054")),
    "resnet50": ((25.557, 58.668, 16.298), ("4089", "2830", "1402")),
    "resnet101": ((44.549, 58.668, 26.353), ("7801", "2830", "3367")),
    "resnet152": ((60.193, 58.668, 33.056), ("11514", "2830", "4678")),
    # Not in the released code: our rule.
    "mobilenet_v1": ((4.232, 7.328, 3.291), ("569", "260", "209")),
}
IMAGENET_NAMES = list(PUBLISHED)[10:]
SLOW = {"resnet1202", "densenet_bc_190_40", "densenet_bc_250_24"}
# Main blocks in each stage of the last three, and the published lengths that the rule gives, too.
RULED = {
    "resnet32": ((5, 5), 3),
    "resnet110": ((18, 18), 3),
    "resnet1202": ((200, 200), 3),
    "wrn_16_8": ((2, 2), 3),
    "wrn_28_10": ((4, 4), 3),
    "densenet_40_12": ((12, 12), 3),
    "densenet_100_12": ((32, 32), 3),
    "densenet_100_24": ((32, 32), 3),
    "densenet_bc_190_40": ((31, 31), 3),
    "resnet18": ((2, 2), 4),
    "resnet34": ((6, 3), 4),
    "resnet50": ((6, 3), 4),
    "resnet101": ((23, 3), 4),
    "resnet152": ((36, 3), 4),
}


@functools.lru_cache
def parts(name: str) -> tuple[tuple[nn.Module, tuple[int, ...]], ...]:
    """Return main path, branch near the top and deep branch on the meta device, each with the shape of its input."""
    num_classes, image_shape = (1000, IMAGENET) if name in IMAGENET_NAMES else (100, CIFAR)
    fields: dict[str, Any] = {"shortcut": "pooled_identity"} if name in POOLED else {}
    with torch.device("meta"):
        network = backbones.build(Backbone(name=name, **fields), num_classes, image_shape, seed=0)
        plans = backbones.branch_plans(name, network, image_shape, 2)
        built = [backbones.build_branch(plan, name, network, num_classes, image_shape) for plan in plans]
    assert [plan.name for plan in plans] == ["near_top", "deep"]
    return ((network, image_shape), *((branch, plan.features) for branch, plan in zip(built, plans, strict=True)))


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def operations(module: nn.Module, shape: tuple[int, ...]) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module.eval()(torch.empty(1, *shape, device="meta"))
    return counter.get_total_flops() / 2


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in PUBLISHED]
)
def test_parts_have_the_parameters_and_operations_of_the_released_code(name: str) -> None:
    millions, expected = PUBLISHED[name]
    assert tuple(round(parameters(module) / 1e6, 3) for module, _ in parts(name)) == millions
    for (module, shape), text in zip(parts(name), expected, strict=True):
        digits = len(text.partition(".")[2])
        assert f"{operations(module, shape) / 1e6:.{digits}f}" == text


def convolution_and_norm(channels: int, out_channels: int) -> int:
    return 9 * channels * out_channels + 2 * out_channels


def basic(channels: int, out_channels: int) -> int:
    return convolution_and_norm(channels, out_channels) + convolution_and_norm(out_channels, out_channels)


def test_branches_of_resnet32_have_the_parameters_of_the_formula() -> None:
    _, (near_top, _), (deep, _) = parts("resnet32")
    assert parameters(near_top) == basic(32, 128) + 4 * basic(128, 128) + 128 * 100 + 100
    first = basic(16, 32) + 4 * basic(32, 32)
    assert parameters(deep) == first + basic(32, 64) + 2 * basic(64, 64) + 64 * 100 + 100


@pytest.mark.parametrize("name", RULED)
def test_the_rule_gives_the_published_lengths(name: str) -> None:
    lengths, stages = RULED[name]
    near_top, deep = branches._PUBLISHED[name, stages]
    assert branches._counts(lengths[-1:], stages) == near_top
    assert branches._counts(lengths, stages) == deep


def test_only_two_published_networks_deviate_from_the_rule() -> None:
    assert {name for name, _ in branches._PUBLISHED} - set(RULED) == {"densenet_bc_100_12", "densenet_bc_250_24"}


def plans(name: str, count: int, image_shape: tuple[int, int, int] = CIFAR) -> tuple[backbones.BranchPlan, ...]:
    with torch.device("meta"):
        network = backbones.build(Backbone(name=name), 10, image_shape, seed=0)
    found = backbones.branch_plans(name, network, image_shape, count)
    assert {plan.name: plan.fork for plan in found} == backbones.forks_of(network, image_shape, count)
    shapes = dict(zip(network._modules, backbones.feature_shapes(network, image_shape), strict=True))
    assert all(plan.features == shapes[plan.fork] for plan in found)
    return found


def test_plans_go_down_the_network() -> None:
    near_top, deep, deep3 = plans("resnet34", 3, IMAGENET)
    assert (near_top.name, near_top.fork, near_top.features, near_top.factor) == (
        "near_top",
        "layer3_5",
        (256, 14, 14),
        2,
    )
    assert (deep.name, deep.fork, deep.features, deep.factor) == ("deep", "layer2_3", (128, 28, 28), 1)
    assert (deep3.name, deep3.fork, deep3.features, deep3.factor) == ("deep3", "layer1_2", (64, 56, 56), 1)
    assert near_top.blocks == ("layer4_0", "layer4_1", "layer4_2")
    assert deep.blocks == ("layer3_0", "layer3_1", "layer3_2", "layer4_0", "layer4_1")
    assert deep3.counts == (2, 3, 2)


def test_missing_blocks_are_the_last_one_again_and_a_transition_stays() -> None:
    near_top, deep = plans("densenet_bc_100_12", 2)
    assert near_top.blocks == (*(f"dense3_{index}" for index in range(16)), *["dense3_15"] * 16)
    assert near_top.factor == 3
    assert deep.blocks[16] == "transition2"
    (_, deep) = plans("densenet_bc_82_4", 2)
    assert deep.counts == (7, 7)
    assert deep.blocks[6:9] == ("dense2_6", "transition2", "dense3_0")


def test_a_pooled_block_stays_when_its_stage_is_shortened() -> None:
    _, deep = plans("vgg16_bn", 2)
    assert deep.counts == (1, 2)
    assert deep.blocks == ("conv4_1", "conv4_3", "conv5_1", "conv5_2", "conv5_3")


def test_more_branches_than_stages_allow_are_refused_with_the_number_that_is_possible() -> None:
    with pytest.raises(RecipeError, match=r"method.num_branches=3.* 3 stages.*1 to 2"):
        plans("resnet8", 3)
    assert len(plans("resnet8", 2)) == 2


def test_lengths_of_other_numbers_of_stages_follow_the_rule() -> None:
    # A table holds for the stages that it was made for: images of 2 pixels are halved only once.
    (near_top,) = plans("resnet32", 1, (3, 2, 2))
    assert near_top.counts == (10,)
