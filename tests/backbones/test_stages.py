"""Are stages what lies between down-samplings, whatever the family and the stem?"""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import nn

from engine import backbones
from engine.backbones.stages import StageEnd, starts_stage
from engine.errors import RecipeError
from engine.recipes.backbone import Backbone

SMALL, LARGE = (3, 32, 32), (3, 224, 224)


def ends(network: nn.Sequential, image_shape: tuple[int, int, int]) -> list[str]:
    """Return the last block of each stage, after a check that the stages are all blocks, in order, each once."""
    stages = backbones.stages_of(network, image_shape)
    assert [block for start, stop in stages for block in range(start, stop)] == list(range(len(network) - 1))
    assert all(start < stop for start, stop in stages)
    names = list(network._modules)
    return [names[stop - 1] for _, stop in stages]


@pytest.mark.parametrize(
    ("name", "image_shape", "expected"),
    [
        ("resnet32", SMALL, "layer1_4 layer2_4 layer3_4"),
        ("wrn_28_10", SMALL, "layer1_3 layer2_3 layer3_3"),
        ("densenet_40_12", SMALL, "transition1 transition2 dense3_11"),
        ("densenet_bc_100_12", SMALL, "transition1 transition2 dense3_15"),
        ("resnet50", SMALL, "layer1_2 layer2_3 layer3_5 layer4_2"),
        ("resnet50", LARGE, "layer1_2 layer2_3 layer3_5 layer4_2"),
        ("vgg11_bn", SMALL, "conv1_1 conv2_1 conv3_2 conv4_2 conv5_2"),
        ("inception_v1", SMALL, "inception3b inception4e inception5b"),
        ("inception_v1", LARGE, "inception3b inception4e inception5b"),
        ("mobilenet_v1", SMALL, "block3 block5 block11 block13"),
        ("mobilenet_v1", LARGE, "block1 block3 block5 block11 block13"),
        ("mobilenet_v2", LARGE, "features_1 features_3 features_6 features_13 features_18"),
        # Its stem and its first block each halve the image alone.
        ("mobilenet_v3_small", LARGE, "features_3 features_8 features_12"),
        ("shufflenet_v2_x0_5", SMALL, "stage2_3 stage3_7 conv5"),
        ("shufflenet_v2_x0_5", LARGE, "stage2_3 stage3_7 conv5"),
        ("mnasnet0_5", SMALL, "layers_8_2 layers_9_2 layers_11_1 head"),
        ("mnasnet0_5", LARGE, "layers_8_2 layers_9_2 layers_11_1 head"),
        ("efficientnet_b0", LARGE, "features_1_0 features_2_1 features_3_1 features_5_2 features_8"),
    ],
)
def test_stages_end_where_the_family_ends_them(name: str, image_shape: tuple[int, int, int], expected: str) -> None:
    with torch.device("meta"):
        network = backbones.build(Backbone(name=name), 10, image_shape, seed=0)
    assert ends(network, image_shape) == expected.split()


def sequence(**blocks: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(blocks))


def convolution(channels: int, stride: int = 1) -> nn.Module:
    return nn.Conv2d(channels, 4, 3, stride=stride, padding=1)


def test_blocks_that_are_all_alone_are_stages_each() -> None:
    network = sequence(
        a=convolution(3, 2), b=convolution(4, 2), c=convolution(4, 2), d=convolution(4), last=nn.Flatten()
    )
    assert ends(network, SMALL) == ["a", "b", "d"]


def test_a_marked_block_ends_its_stage_whether_it_pools_or_not() -> None:
    pooled = StageEnd(convolution(4), nn.MaxPool2d(2))
    marked = StageEnd(convolution(4))
    network = sequence(a=convolution(3), b=pooled, c=convolution(4), d=marked, e=convolution(4), last=nn.Flatten())
    assert ends(network, SMALL) == ["b", "d", "e"]
    # Its own pooling would start a stage, were it not marked.
    network = sequence(a=convolution(3), b=nn.Sequential(*pooled), c=convolution(4), last=nn.Flatten())
    assert ends(network, SMALL) == ["a", "c"]


@pytest.mark.parametrize("image_shape", [SMALL, (3, 256, 128)])
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_a_last_stage_of_stride_1_is_a_stage(name: str, image_shape: tuple[int, int, int]) -> None:
    found = []
    for last_stride in (None, 2, 1):
        with torch.device("meta"):
            network = backbones.build(Backbone(name=name, last_stride=last_stride), 10, image_shape, seed=0)
        found.append((backbones.stages_of(network, image_shape), backbones.forks_of(network, image_shape, 3)))
    assert found[0] == found[1] == found[2]
    assert len(found[0][0]) == 4
    if name == "resnet18":
        assert found[2] == (
            ((0, 3), (3, 5), (5, 7), (7, 9)),
            {"near_top": "layer3_1", "deep": "layer2_1", "deep3": "layer1_1"},
        )


def test_a_last_stage_whose_maps_have_one_row_at_its_start_is_none_whatever_its_stride() -> None:
    image_shape = (3, 16, 16)
    for last_stride in (2, 1):
        with torch.device("meta"):
            settings = Backbone(name="resnet18", stem="imagenet", last_stride=last_stride)
            network = backbones.build(settings, 10, image_shape, seed=0)
        assert backbones.stages_of(network, image_shape) == ((0, 3), (3, 5), (5, 9))


@pytest.mark.parametrize("name", [name for name in backbones.names() if "resnet" in name])
def test_nothing_changes_where_no_stride_is_chosen(name: str) -> None:
    with torch.device("meta"):
        network = backbones.build(Backbone(name=name), 10, LARGE, seed=0)
    assert not any(starts_stage(block) for block in network)


@pytest.mark.parametrize(
    ("blocks", "sizes"), [(2, [1, 1]), (3, [1, 1, 1]), (4, [1, 1, 1, 1]), (8, [2, 2, 2, 2]), (11, [3, 3, 2, 3])]
)
def test_a_network_without_reductions_has_four_equal_groups(blocks: int, sizes: list[int]) -> None:
    with torch.device("meta"):
        hidden = [nn.Linear(3072, 3072) for _ in range(blocks - 1)]
        network = nn.Sequential(nn.Flatten(), *hidden, nn.Linear(3072, 10))
    assert [stop - start for start, stop in backbones.stages_of(network, SMALL)] == sizes


def test_a_network_of_one_block_is_refused_with_a_remedy() -> None:
    network = sequence(body=nn.Flatten(), last=nn.Linear(3072, 10))
    with pytest.raises(RecipeError, match=r"1 blocks before its classifier.*at least 2.*more children"):
        backbones.stages_of(network, SMALL)
