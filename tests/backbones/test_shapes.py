"""Does foretelling shapes leave the network alone, and allocate nothing?"""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from engine import backbones
from engine.errors import RecipeError
from engine.recipes.backbone import Backbone


class Devices(TorchDispatchMode):
    """Collects the devices on which operations give tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = function(*args, **(kwargs or {}))
        # A detached tensor shares its memory.
        if isinstance(out, torch.Tensor) and function is not torch.ops.aten.detach.default:
            self.seen.add(out.device.type)
        return out


def test_the_network_is_untouched_and_nothing_is_allocated() -> None:
    network = backbones.build(Backbone(name="resnet8"), 10, (3, 32, 32), seed=0)
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    identities = [id(parameter) for parameter in network.parameters()]
    with Devices() as devices:
        shapes = backbones.feature_shapes(network, (3, 32, 32))
    assert devices.seen == {"meta"}
    assert shapes == ((16, 32, 32), (16, 32, 32), (32, 16, 16), (64, 8, 8), (10,))
    assert network.training and all(module.training for module in network.modules())
    assert identities == [id(parameter) for parameter in network.parameters()]
    assert all(torch.equal(before[key], tensor) for key, tensor in network.state_dict().items())


def test_a_network_on_meta_has_the_same_shapes() -> None:
    with torch.device("meta"):
        network = backbones.build(Backbone(name="resnet50"), 1000, (3, 224, 224), seed=0)
    shapes = backbones.feature_shapes(network, (3, 224, 224))
    assert shapes[0] == (64, 56, 56)
    assert shapes[-2:] == ((2048, 7, 7), (1000,))


def test_weights_on_meta_are_checked_but_not_filled() -> None:
    with torch.device("meta"):
        network = backbones.build(Backbone(name="resnet8"), 10, (3, 32, 32), seed=0)
    state = {key: torch.zeros(tensor.shape) for key, tensor in backbones.plain_state(network, "resnet8").items()}
    backbones.load_plain_state(network, "resnet8", state)
    assert all(parameter.is_meta for parameter in network.parameters())


def test_parameters_are_counted_by_child() -> None:
    with torch.device("meta"):
        network = backbones.build(Backbone(name="resnet8"), 10, (3, 32, 32), seed=0)
    counts = backbones.parameter_counts(network)
    assert counts["stem"] == 3 * 16 * 9 + 32
    assert counts["layer1_0"] == 2 * (16 * 16 * 9 + 32)
    assert counts["classifier"] == 650
    assert list(counts) == list(network._modules)


class Pair(nn.Module):
    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return features, features


def test_children_that_do_not_fit_are_named() -> None:
    convolution = nn.Conv2d(3, 4, 3)
    wrong = nn.Sequential(OrderedDict(first=convolution, second=nn.Conv2d(5, 4, 3)))
    with pytest.raises(RecipeError, match=r"child 'second' cannot take an input of shape \(4, 6, 6\).*\(3, 8, 8\)"):
        backbones.feature_shapes(wrong, (3, 8, 8))
    with pytest.raises(RecipeError, match="child 'pair' returns a tuple"):
        backbones.feature_shapes(nn.Sequential(OrderedDict(first=convolution, pair=Pair())), (3, 8, 8))
