"""Do branches compute what the rest of the network would, from weights of their own, in every family?"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from engine import backbones, streams
from engine.backbones.segmentation import is_for_segmentation
from engine.errors import RecipeError
from engine.recipes.backbone import Backbone

CIFAR = (3, 32, 32)
# One of each family, and of each way to draw initial weights.
QUICK = ["resnet8", "wrn_10_1", "densenet_13_5", "densenet_bc_16_4", "resnet18", "vgg11_bn", "inception_v1"]
QUICK += ["mobilenet_v1_025", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "mnasnet0_5"]
QUICK += ["shufflenet_v2_x0_5"]
LIGHT = ["resnet8", "wrn_10_1", "densenet_13_5", "densenet_bc_16_4", "mobilenet_v1_025", "shufflenet_v2_x0_5"]


def make(
    name: str, image_shape: tuple[int, int, int] = CIFAR, seed: int = 0, device: str = "cpu", num_classes: int = 10
) -> nn.Sequential:
    with torch.device(device):
        return backbones.build(Backbone(name=name), num_classes, image_shape, seed)


def branches(
    name: str, network: nn.Sequential, image_shape: tuple[int, int, int] = CIFAR, count: int = 2, num_classes: int = 10
) -> dict[backbones.BranchPlan, nn.Sequential]:
    plans = backbones.branch_plans(name, network, image_shape, count)
    with streams.seeded(5, "branches"):
        return {plan: backbones.build_branch(plan, name, network, num_classes, image_shape) for plan in plans}


def rest_of(network: nn.Sequential, fork: str) -> nn.Sequential:
    return network[list(network._modules).index(fork) + 1 :]


@pytest.mark.parametrize("name", QUICK)
def test_a_branch_as_wide_and_long_as_the_main_path_is_the_main_path(name: str) -> None:
    """What the branch computes with the main path's weights equals the main path, and its own are drawn like them."""
    network = make(name, num_classes=100).eval()
    plan = backbones.branch_plans(name, network, CIFAR, 2)[1]
    rest = rest_of(network, plan.fork)
    plan = dataclasses.replace(plan, factor=1, blocks=tuple(rest._modules)[:-1])
    with streams.seeded(5, "branches"):
        branch = backbones.build_branch(plan, name, network, 100, CIFAR)
    assert branch.training
    own, main = branch.state_dict(), rest.state_dict()
    assert {key: tensor.shape for key, tensor in own.items()} == {key: tensor.shape for key, tensor in main.items()}
    compared = 0
    for key, tensor in own.items():
        if tensor.unique().numel() == 1:
            assert torch.equal(tensor, main[key]), key
        elif tensor.numel() >= 1000:
            # Six standard errors of the ratio of two estimated deviations, of numbers with at most a normal's tails.
            tolerance = 6 / tensor.numel() ** 0.5
            assert (tensor.std() / main[key].std()).item() == pytest.approx(1, abs=tolerance), key
            assert tensor.abs().max() < 1.5 * main[key].abs().max(), key
            compared += 1
        else:
            assert main[key].unique().numel() > 1, key
    assert compared
    features = torch.rand(2, *plan.features)
    branch.load_state_dict(main)
    with torch.no_grad():
        assert torch.equal(branch.eval()(features), rest(features))


def check_that_branches_learn(name: str) -> None:
    network = make(name)
    for plan, branch in branches(name, network).items():
        features = torch.rand(2, *plan.features, requires_grad=True)
        logits = branch(features)
        assert tuple(logits.shape) == (2, 10)
        logits.square().sum().backward()
        assert features.grad is not None and features.grad.abs().sum() > 0
        assert all(parameter.grad is not None for parameter in branch.parameters())
        assert all(child.isidentifier() for child in branch._modules)
        assert list(branch._modules)[-1] == "classifier"
        main = {id(part) for part in (*network.modules(), *network.parameters(), *network.buffers())}
        assert not main & {id(part) for part in (*branch.modules(), *branch.parameters(), *branch.buffers())}


@pytest.mark.parametrize("name", LIGHT)
def test_branches_learn_and_share_nothing_with_the_network(name: str) -> None:
    check_that_branches_learn(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in backbones.names() if not is_for_segmentation(name)])
def test_branches_of_every_listed_backbone_learn(name: str) -> None:
    check_that_branches_learn(name)


@pytest.mark.parametrize("name", LIGHT)
def test_odd_images_are_fine(name: str) -> None:
    network = make(name, (3, 33, 33), device="meta")
    with torch.device("meta"):
        for plan, branch in branches(name, network, (3, 33, 33)).items():
            assert tuple(branch(torch.rand(4, *plan.features)).shape) == (4, 10)


def test_weights_depend_on_the_generator_alone() -> None:
    sources = [make("resnet8", seed=0), make("resnet8", seed=1), make("resnet8", device="meta")]
    states = [
        {f"{plan.name}.{key}": tensor for plan, branch in made.items() for key, tensor in branch.state_dict().items()}
        for made in (branches("resnet8", network) for network in sources)
    ]
    assert all(torch.equal(tensor, states[0][key]) for state in states[1:] for key, tensor in state.items())
    plan = backbones.branch_plans("resnet8", sources[0], CIFAR, 1)[0]
    with streams.seeded(6, "branches"):
        other = backbones.build_branch(plan, "resnet8", sources[0], 10, CIFAR)
    assert not torch.equal(other.state_dict()["classifier.fc.weight"], states[0]["near_top.classifier.fc.weight"])


def test_plans_draw_nothing_and_the_network_stays_as_it_is() -> None:
    network = make("resnet8")
    before, stream = {key: tensor.clone() for key, tensor in network.state_dict().items()}, torch.get_rng_state()
    backbones.branch_plans("resnet8", network, CIFAR, 2)
    branches("resnet8", network)
    assert torch.equal(stream, torch.get_rng_state())
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())
    assert network.training and all(not parameter.is_meta for parameter in network.parameters())


def test_nothing_is_allocated_on_the_meta_device() -> None:
    network = make("resnet8")
    with torch.device("meta"):
        made = branches("resnet8", network)
    assert all(tensor.is_meta for branch in made.values() for tensor in branch.state_dict().values())


def test_a_single_image_in_training_raises_the_error_of_batch_norm() -> None:
    network = make("wrn_10_1", (3, 4, 4))
    near_top = next(iter(branches("wrn_10_1", network, (3, 4, 4)).values()))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        near_top(torch.rand(1, 32, 2, 2))


def test_dropout_of_the_main_path_is_kept() -> None:
    with torch.device("meta"):
        network = backbones.build(Backbone(name="wrn_10_1", dropout=0.3), 10, CIFAR, seed=0)
        for branch in branches("wrn_10_1", network).values():
            assert [module.p for module in branch.modules() if isinstance(module, nn.Dropout)] == [0.3] * (
                len(branch) - 1
            )


OWN = """
from collections import OrderedDict

from torch import nn

class Block(nn.Module):
    def __init__(self, channels, width, stride):
        super().__init__()
        self.norm = nn.GroupNorm(2, channels)
        self.convolution = nn.Conv2d(channels, width, 3, stride=stride, padding=1)
        self.shortcut = nn.Identity() if channels == width else nn.Conv2d(channels, width, 1, stride=stride)

    def forward(self, features):
        return self.shortcut(features) + self.convolution(self.norm(features).relu())

def network(num_classes, image_shape):
    return nn.Sequential(OrderedDict(
        stem=nn.Conv2d(image_shape[0], 4, 3, padding=1),
        a=Block(4, 4, 1), b=Block(4, 6, 2), c=Block(6, 6, 1), d=Block(6, 8, 2), e=Block(8, 8, 1),
        flat=nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten()),
        last=nn.Linear(32, num_classes),
    ))
"""


def test_networks_of_ones_own_have_branches(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    name = f"{tmp_path}/own.py:network"
    network = make(name, (3, 16, 16))
    near_top, deep = branches(name, network, (3, 16, 16)).items()
    assert [list(branch._modules) for _, branch in (near_top, deep)] == [
        ["d", "e", "flat", "classifier"],
        ["b", "c", "d", "flat", "classifier"],
    ]
    assert near_top[1].get_parameter("classifier.weight").shape == (10, 64)
    for plan, branch in (near_top, deep):
        assert tuple(branch(torch.rand(3, *plan.features)).shape) == (3, 10)


def test_perceptrons_have_branches() -> None:
    hidden = [nn.Sequential(nn.Linear(12, 12), nn.ReLU()) for _ in range(7)]
    network = nn.Sequential(nn.Sequential(nn.Flatten(), nn.Linear(27, 12)), *hidden, nn.Linear(12, 10))
    near_top, deep, deep3 = branches("own.py:perceptron", network, (3, 3, 3), 3).items()
    assert [plan.blocks for plan, _ in (near_top, deep, deep3)] == [("6", "7"), ("4", "6", "7"), ("2", "4", "6", "7")]
    assert near_top[1].get_parameter("7.0.weight").shape == (24, 24)
    for plan, branch in (near_top, deep, deep3):
        assert tuple(branch(torch.rand(3, *plan.features)).shape) == (3, 10)


class Tokens(nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        return features.flatten(2).transpose(1, 2)


class Mean(nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        return features.mean(dim=1)


def test_transformers_have_branches_with_a_wider_hidden_layer() -> None:
    layers = [nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True) for _ in range(7)]
    stem = nn.Sequential(nn.Conv2d(3, 8, 4, stride=4), Tokens())
    network = nn.Sequential(stem, *layers, nn.Sequential(nn.LayerNorm(8), Mean(), nn.Linear(8, 10)))
    near_top, deep = branches("own.py:transformer", network, (3, 16, 16)).items()
    assert near_top[0].features == (16, 8)
    assert near_top[1].get_parameter("6.linear1.weight").shape == (32, 8)
    assert deep[1].get_parameter("6.linear1.weight").shape == (16, 8)
    state = near_top[1].state_dict()
    # As torch's own constructor leaves them.
    assert (state["6.self_attn.out_proj.bias"] == 0).all() and (state["6.self_attn.in_proj_bias"] == 0).all()
    bound = (6 / (8 + 24)) ** 0.5
    assert 0.8 * bound < state["6.self_attn.in_proj_weight"].abs().max() <= bound
    for plan, branch in (near_top, deep):
        logits = branch(torch.rand(3, *plan.features))
        assert tuple(logits.shape) == (3, 10)
        logits.square().sum().backward()
        assert all(parameter.grad is not None for parameter in branch.parameters())


class Skip(nn.Sequential):
    def forward(self, features: Tensor) -> Tensor:
        return features + super().forward(features)


def test_a_wider_path_after_an_identity_shortcut_is_refused_with_a_remedy() -> None:
    blocks = [Skip(nn.Linear(8, 8)) for _ in range(8)]
    network = nn.Sequential(nn.Sequential(nn.Flatten(), nn.Linear(27, 8)), *blocks, nn.Linear(8, 10))
    near_top, deep = backbones.branch_plans("own.py:network", network, (3, 3, 3), 2)
    assert len(backbones.build_branch(deep, "own.py:network", network, 10, (3, 3, 3))) == len(deep.blocks) + 1
    with pytest.raises(RecipeError, match=r"block '7' cannot be repeated 2 times as wide.*method.shape=linear"):
        backbones.build_branch(near_top, "own.py:network", network, 10, (3, 3, 3))


def test_a_branch_that_gives_no_logits_is_refused_with_a_remedy() -> None:
    blocks: OrderedDict[str, nn.Module] = OrderedDict(a=nn.Conv2d(3, 4, 1), b=nn.Conv2d(4, 4, 1))
    for name in ("c", "e"):
        blocks[name] = nn.Conv2d(4, 4, 3, stride=2, padding=1)
        blocks[f"{name}2"] = nn.Conv2d(4, 4, 1)
    blocks |= {"flat": nn.Flatten(), "wide": nn.Linear(16, 8), "last": nn.Linear(8, 10)}
    network = nn.Sequential(blocks)
    _, deep = backbones.branch_plans("own.py:network", network, (3, 8, 8), 2)
    with pytest.raises(RecipeError, match=r"branch deep.*c, c2, e, e2 after b.*\(4, 2, 10\).*\(10,\).*shape=linear"):
        backbones.build_branch(deep, "own.py:network", network, 10, (3, 8, 8))
