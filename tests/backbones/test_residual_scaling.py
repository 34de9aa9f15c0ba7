"""Is a residual branch scaled where it ends, so that dropping its block leaves the whole network in expectation?"""

from __future__ import annotations

import copy
import pickle
from collections import OrderedDict

import pytest
import torch
from torch import nn

from engine import backbones
from engine.backbones import droppable_stages, run_without, scaled_branches
from engine.errors import RecipeError
from tests.backbones.droppable_blocks import Doubling, make, own


class DoublingWithEnd(Doubling):
    @property
    def branch_end(self) -> nn.Module:
        return self.branch


KINDS = ["resnet14", "resnet50", "wrn_16_2", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0"]
KINDS += ["efficientnet_v2_s"]


def block_of(name: str) -> nn.Sequential:
    """The first droppable block of a network, in a sequence of its own."""
    network = make(name)
    child = droppable_stages(network)[0][0]
    return nn.Sequential(OrderedDict([(child, network.get_submodule(child))]))


def channels_of(block: nn.Module) -> int:
    return next(part for part in block.modules() if isinstance(part, nn.Conv2d)).in_channels


@pytest.mark.parametrize("name", KINDS)
def test_a_scaled_branch_is_one_whose_last_layer_is_larger(name: str) -> None:
    network = block_of(name).eval()
    child, block = next(iter(network.named_children()))
    inputs = torch.rand(2, channels_of(block), 8, 8)
    plain = network(inputs)
    with scaled_branches(network, {child: 1.0}):
        assert torch.equal(network(inputs), plain)
    with scaled_branches(network, {child: 0.0}):
        assert torch.equal(network(inputs), inputs)
    with scaled_branches(network, {child: 2.0}):
        doubled = network(inputs)
    assert not torch.allclose(doubled, plain)
    assert torch.equal(network(inputs), plain)
    last = list(block.branch_end.modules())[-1]
    if name == "efficientnet_v2_s":
        # Its branch ends with an activation, so no layer's weights can double it.
        assert isinstance(last, nn.SiLU)
        torch.testing.assert_close(doubled - inputs, 2 * (plain - inputs))
        return
    with torch.no_grad():
        for parameter in last.parameters():
            parameter *= 2
    assert torch.equal(network(inputs), doubled)


@pytest.mark.parametrize("name", [name for name in KINDS if not name.startswith("resnet")])
def test_dropping_and_scaling_give_the_whole_network_in_expectation(name: str) -> None:
    network = block_of(name).eval()
    child, block = next(iter(network.named_children()))
    inputs = torch.randn(2, channels_of(block), 8, 8)
    survives = 0.7
    with scaled_branches(network, {child: 1 / survives}):
        kept = run_without(network, inputs, ())
    dropped = run_without(network, inputs, {child})
    torch.testing.assert_close(survives * kept + (1 - survives) * dropped, network(inputs))


def test_gradients_of_a_scaled_branch_are_scaled() -> None:
    network = own(DoublingWithEnd)
    values = torch.randn(3, 4)
    network(values).sum().backward()
    plain = network[0].branch.weight.grad.clone()
    network.zero_grad()
    with scaled_branches(network, {"0": 4.0}):
        network(values).sum().backward()
    assert torch.equal(network[0].branch.weight.grad, 4 * plain)


def test_factors_end_with_an_error_inside() -> None:
    network = own(DoublingWithEnd, DoublingWithEnd)
    values = torch.randn(3, 4)
    plain = network(values)
    with pytest.raises(ValueError, match="inside"), scaled_branches(network, {"0": 2.0, "1": 3.0}):
        assert not torch.equal(network(values), plain)
        raise ValueError("inside")
    assert torch.equal(network(values), plain)


def test_a_block_that_does_not_tell_where_its_branch_ends_is_named() -> None:
    network = own(DoublingWithEnd, Doubling)
    expected = r"block '1' \(Doubling\) has no branch_end.*Define a property branch_end"
    with pytest.raises(RecipeError, match=expected), scaled_branches(network, {"0": 2.0, "1": 1.0}):
        pass
    assert not network[0].branch._forward_hooks


@pytest.mark.parametrize("name", KINDS)
def test_where_a_branch_ends_is_no_weight_and_is_copied_with_its_block(name: str) -> None:
    network = make(name)
    assert not any("branch_end" in key for key in network.state_dict())
    for twin in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        for child in backbones.bypassable(network):
            block, original = twin.get_submodule(child), network.get_submodule(child)
            assert block.branch_end in set(block.modules())
            assert block.branch_end not in set(original.modules())
