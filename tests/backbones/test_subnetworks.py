"""Are sub-networks what the papers say: which blocks can be dropped, and what is computed and trained?"""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
import torchvision
from torch import nn

from engine import backbones
from engine.backbones import droppable_stages, require_droppable, run_without
from engine.errors import RecipeError
from tests.backbones.droppable_blocks import (
    CIFAR,
    IMAGENET,
    LARGE,
    RESNET50,
    Doubling,
    features,
    layers,
    make,
    own,
    stages_of,
)


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("resnet34", IMAGENET, RESNET50),
        ("resnet50", IMAGENET, RESNET50),
        ("resnet50", CIFAR, RESNET50),
        ("resnet32", CIFAR, layers(4, 4, 4)),
        ("resnet110", CIFAR, layers(17, 17, 17)),
        ("wrn_28_10", CIFAR, layers(3, 3, 3)),
        ("wrn_16_8", CIFAR, layers(1, 1, 1)),
        # Its very first block keeps the shape, unlike in wider ones.
        ("wrn_16_1", CIFAR, layers(1, 1, 1)),
        ("mobilenet_v3_large", IMAGENET, LARGE),
        ("mobilenet_v3_large", CIFAR, LARGE),
        ("mobilenet_v3_small", IMAGENET, features([3], [5, 6], [8], [10, 11])),
        # Without its stride the first block becomes one that can be dropped.
        ("mobilenet_v3_small", CIFAR, features([1], [3], [5, 6], [8], [10, 11])),
    ],
)
def test_droppable_blocks_are_those_of_the_table(
    name: str, shape: tuple[int, int, int], expected: tuple[tuple[str, ...], ...]
) -> None:
    assert stages_of(name, shape) == expected


@pytest.mark.parametrize(
    ("name", "count"),
    [("resnet50", 12), ("resnet110", 51), ("wrn_28_10", 9), ("wrn_16_8", 3), ("mobilenet_v3_large", 10)],
)
def test_as_many_blocks_can_be_dropped_as_the_table_says(name: str, count: int) -> None:
    assert len(list(itertools.chain(*stages_of(name, IMAGENET)))) == count


def test_the_smallest_sub_network_of_a_cifar_resnet_has_one_block_in_each_stage() -> None:
    network = make("resnet32", widths=(4, 4, 8), shortcut="identity", device="meta")
    dropped = set(itertools.chain(*droppable_stages(network)))
    assert [name for name in network._modules if name not in dropped] == [
        "stem",
        "layer1_0",
        "layer2_0",
        "layer3_0",
        "classifier",
    ]


def test_a_network_of_ones_own_needs_bypassable_alone() -> None:
    network = own(nn.Linear, Doubling, Doubling, nn.Linear, nn.Linear, Doubling, nn.Linear)
    assert require_droppable(network, "mine.py:net") == (("1", "2"), ("5",))
    values = torch.randn(3, 4)
    expected = network[6](network[5](network[4](network[3](network[1](network[0](values))))))
    assert torch.equal(run_without(network, values, {"2"}), expected)


@pytest.mark.parametrize("name", ["vgg11_bn", "resnet8", "shufflenet_v2_x0_5"])
def test_a_network_without_droppable_blocks_is_refused(name: str) -> None:
    with pytest.raises(RecipeError, match=rf"backbone\.name={name}: none of its .* bypassable = True"):
        require_droppable(make(name, device="meta"), name)


# What is computed.


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    ("name", "dropped", "places"),
    [
        ("resnet34", ["layer1_2", "layer3_4", "layer3_5"], ["layer1.2", "layer3.4", "layer3.5"]),
        ("mobilenet_v3_large", ["features_1", "features_10"], ["features.1", "features.10"]),
        ("mobilenet_v2", ["features_3", "features_16"], ["features.3", "features.16"]),
    ],
)
def test_it_computes_what_torchvisions_network_does(
    name: str, dropped: list[str], places: list[str], training: bool
) -> None:
    options = {} if name == "resnet34" else {"dropout": 0.0}
    network = make(name, stem="imagenet", **options)
    reference = getattr(torchvision.models, name)(num_classes=10, **options)
    reference.load_state_dict(backbones.plain_state(network, name))
    network.train(training)
    reference.train(training)
    images = torch.randn(3, 3, 48, 48, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(run_without(network, images, ()), reference(images))
    for place in places:
        reference.set_submodule(place, nn.Identity())
    torch.testing.assert_close(run_without(network, images, dropped), reference(images))


@pytest.mark.parametrize("name", ["resnet14", "wrn_16_1", "mobilenet_v3_small", "efficientnet_b0"])
def test_with_nothing_dropped_it_is_the_network_bit_for_bit(name: str) -> None:
    network = make(name).eval()
    images = torch.randn(2, *CIFAR)
    assert torch.equal(run_without(network, images, frozenset()), network(images))


def test_dropped_blocks_are_not_called_and_the_hooks_of_others_are() -> None:
    network = make("resnet14", widths=(4, 4, 4))
    called: list[str] = []
    for name, child in network.named_children():
        child.register_forward_hook(lambda module, inputs, output, name=name: called.append(name))
    run_without(network, torch.randn(2, *CIFAR), {"layer1_1", "layer3_1"})
    assert called == ["stem", "layer1_0", "layer2_0", "layer2_1", "layer3_0", "classifier"]


def test_dropped_blocks_have_no_gradient_and_do_not_move() -> None:
    network = make("resnet14", widths=(4, 4, 4))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    images = torch.randn(4, *CIFAR)
    # With a momentum and a gradient of the step before.
    network(images).sum().backward()
    optimizer.step()
    before = copy.deepcopy(network.state_dict())
    optimizer.zero_grad()
    run_without(network, images, {"layer2_1"}).square().sum().backward()
    assert all(parameter.grad is None for parameter in network.get_submodule("layer2_1").parameters())
    optimizer.step()
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name]) == name.startswith("layer2_1."), name
