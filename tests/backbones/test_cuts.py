"""Are networks cut where the papers, the rule and the user say?"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import pytest
import torch
from torch import nn

from engine import backbones
from engine.errors import RecipeError
from engine.recipes.backbone import Backbone

CIFAR, STL, IMAGENET = (3, 32, 32), (3, 96, 96), (3, 224, 224)


def make(name: str) -> nn.Sequential:
    with torch.device("meta"):
        return backbones.build(Backbone(name=name), 10, CIFAR, seed=0)


def chain(length: int) -> nn.Sequential:
    children: OrderedDict[str, nn.Module] = OrderedDict((f"block{index}", nn.Identity()) for index in range(length))
    children["classifier"] = nn.Identity()
    return nn.Sequential(children)


def ends(
    network: nn.Sequential, num_segments: int, cuts: str | Sequence[str], name: str, shape: tuple[int, int, int]
) -> list[str]:
    """Cut, check that the segments cover the network in order, and return the children that end them."""
    segments = backbones.cut(network, num_segments, cuts, name, shape)
    covered = [index for start, stop in segments for index in range(start, stop)]
    assert covered == list(range(len(network)))
    assert len(segments) == num_segments
    assert all(start < stop for start, stop in segments)
    return [list(network._modules)[stop - 1] for _, stop in segments[:-1]]


def layers(text: str) -> list[str]:
    return [f"layer{point.replace('.', '_')}" for point in text.split()]


PUBLISHED = [
    ("resnet32", 2, "2.1"),
    ("resnet32", 3, "1.4 2.4"),
    ("resnet32", 4, "1.2 2.1 3.0"),
    ("resnet32", 8, "1.0 1.2 1.4 2.1 2.3 3.0 3.2"),
    ("resnet110", 2, "2.8"),
    ("resnet110", 3, "1.17 2.17"),
    ("resnet110", 4, "1.11 2.7 3.3"),
    ("resnet110", 8, "1.4 1.11 2.0 2.7 2.14 3.3 3.10"),
    ("resnet110", 16, "1.1 1.4 1.7 1.10 1.13 1.16 2.1 2.4 2.7 2.11 2.15 3.1 3.5 3.9 3.13"),
]
PUBLISHED_MEMORY = [
    ("resnet32", CIFAR, 2, "1.3"),
    ("resnet32", CIFAR, 4, "1.2 1.4 2.2"),
    ("resnet32", CIFAR, 8, "1.1 1.2 1.3 2.1 2.2 3.1 3.2"),
    ("resnet110", CIFAR, 2, "1.14"),
    ("resnet110", CIFAR, 3, "1.9 2.2"),
    ("resnet110", CIFAR, 4, "1.6 1.14 2.8"),
    ("resnet110", STL, 2, "1.14"),
    ("resnet110", STL, 3, "1.8 2.1"),
    ("resnet110", STL, 4, "1.6 1.14 2.8"),
    ("resnet101", IMAGENET, 2, "2.0"),
    ("resnet152", IMAGENET, 2, "2.5"),
    ("resnext101_32x8d", IMAGENET, 2, "2.2"),
]


@pytest.mark.parametrize(("name", "num_segments", "expected"), PUBLISHED)
@pytest.mark.parametrize("shape", [CIFAR, STL])
def test_published_cuts(name: str, num_segments: int, expected: str, shape: tuple[int, int, int]) -> None:
    assert ends(make(name), num_segments, "published", name, shape) == layers(expected)


def test_the_finest_published_cut_of_resnet32_is_after_every_block() -> None:
    network = make("resnet32")
    assert ends(network, 16, "published", "resnet32", CIFAR) == list(network._modules)[:15]
    assert backbones.cut(network, 16, "published", "resnet32", CIFAR)[-1] == (15, 17)


@pytest.mark.parametrize(("name", "shape", "num_segments", "expected"), PUBLISHED_MEMORY)
def test_published_cuts_by_memory(name: str, shape: tuple[int, int, int], num_segments: int, expected: str) -> None:
    assert ends(make(name), num_segments, "published_memory", name, shape) == layers(expected)


@pytest.mark.parametrize(("num_segments", "expected"), [(1, []), (2, [4]), (4, [2, 4, 5]), (7, [1, 2, 3, 4, 5, 6])])
def test_balanced_cuts_of_seven_blocks(num_segments: int, expected: list[int]) -> None:
    segments = backbones.cut(make("resnet14"), num_segments, "balanced_layers", "resnet14", CIFAR)
    assert [stop for _, stop in segments] == [*expected, 8]


def test_balanced_cuts_are_never_empty_and_differ_by_at_most_one_block() -> None:
    for length in range(1, 61):
        network = chain(length)
        for num_segments in range(1, length + 1):
            ends(network, num_segments, "balanced_layers", "chain", CIFAR)
            segments = backbones.cut(network, num_segments, "balanced_layers", "chain", CIFAR)
            # Rounding moves either end of a segment by half a block at most.
            blocks = [min(stop, length) - start for start, stop in segments]
            assert max(abs(count - length / num_segments) for count in blocks) <= 1


@pytest.mark.parametrize("cuts", ["published", "published_memory", "balanced_layers", ()])
def test_one_segment_is_the_whole_network(cuts: str | tuple[str, ...]) -> None:
    assert backbones.cut(make("resnet8"), 1, cuts, "resnet8", CIFAR) == ((0, 5),)


def test_cuts_by_name() -> None:
    network = make("resnet14")
    assert ends(network, 3, ("stem", "layer2_1"), "resnet14", CIFAR) == ["stem", "layer2_1"]
    assert backbones.cut_points(network) == ("stem", *layers("1.0 1.1 2.0 2.1 3.0"))


@pytest.mark.parametrize(
    ("num_segments", "cuts", "parts"),
    [
        (9, "balanced_layers", ("method.num_segments=9", "resnet14 has 7 blocks that can end a segment", "use 1..7")),
        (0, "balanced_layers", ("method.num_segments=0", "1..7")),
        (
            2,
            "published",
            ("method.cuts=published", "resnet14", "2 segments", "resnet32: 2, 3, 4, 8, 16", "balanced_layers"),
        ),
        (2, "published_memory", ("method.cuts=published_memory", "resnet152: 2", "method.cuts=balanced_layers")),
        (2, "blanced", ("method.cuts=blanced", "balanced_layers, published, published_memory")),
        (3, ("stem",), ("1 blocks are named", "method.num_segments=3 needs 2", "set method.num_segments=2")),
        (1, ("stem",), ("1 blocks are named", "needs 0")),
        (2, ("layer1_2",), ("cannot be cut after 'layer1_2'", "layer1_1")),
        (2, ("layer3_1",), ("cannot be cut after 'layer3_1'", "from stem to layer3_0")),
        (3, ("layer2_0", "stem"), ("in the order of the network", "set method.cuts=stem,layer2_0.")),
        (3, ("stem", "stem"), ("each block once", "set method.cuts=stem method.num_segments=2")),
    ],
)
def test_impossible_cuts_are_named_with_a_remedy(
    num_segments: int, cuts: str | tuple[str, ...], parts: tuple[str, ...]
) -> None:
    with pytest.raises(RecipeError) as raised:
        backbones.cut(make("resnet14"), num_segments, cuts, "resnet14", CIFAR)
    for part in parts:
        assert part in str(raised.value)


def test_published_numbers_of_segments_are_listed_for_a_known_network() -> None:
    with pytest.raises(RecipeError, match="resnet110 into 5 segments .*resnet110: 2, 3, 4, 8, 16"):
        backbones.cut(make("resnet110"), 5, "published", "resnet110", CIFAR)
