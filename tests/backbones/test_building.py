"""Does build keep to the recipe: names, options, seeds, files of the user's own?"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from engine import backbones, streams
from engine.errors import RecipeError
from engine.recipes.backbone import Backbone

SHAPE = (3, 16, 16)


def make(name: str, seed: int = 0, peer: int = 0, num_classes: int = 10, **fields: Any) -> nn.Sequential:
    return backbones.build(Backbone(name=name, **fields), num_classes, SHAPE, seed, peer)


def same(first: nn.Module, second: nn.Module) -> bool:
    states = first.state_dict(), second.state_dict()
    return all(torch.equal(tensor, states[1][key]) for key, tensor in states[0].items())


def test_every_listed_name_can_be_built_and_has_a_line() -> None:
    listed = backbones.names()
    for name, line in listed.items():
        assert line and "\n" not in line
        with torch.device("meta"):
            network = make(name)
        assert list(network._modules)[-1] in ("classifier", "head")
        assert all(child.isidentifier() for child in network._modules)
    assert {"resnet8", "resnet110", "resnet18", "resnet152", "wrn_28_10", "densenet_bc_100_12"} <= set(listed)


def test_seed_and_peer_alone_decide_the_initial_weights() -> None:
    first = make("resnet8", seed=3, peer=1)
    torch.rand(5)
    assert same(first, make("resnet8", seed=3, peer=1))
    assert not same(first, make("resnet8", seed=3, peer=0))
    assert not same(first, make("resnet8", seed=4, peer=1))


def test_cutting_changes_no_weight() -> None:
    whole = make("resnet8")
    cut = make("resnet8")
    for start, stop in backbones.cut(cut, 3, "balanced_layers", "resnet8", SHAPE):
        segment = cut[start:stop]
        assert all(torch.equal(tensor, whole.state_dict()[key]) for key, tensor in segment.state_dict().items())


def test_building_leaves_the_global_stream_alone() -> None:
    before = torch.get_rng_state()
    make("resnet8")
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        ({"name": "resnt32"}, ("backbone.name=resnt32", "resnet32", "file.py:function")),
        ({"name": "resnet30"}, ("backbone.name=resnet30", "6 n + 2", "resnet")),
        ({"name": "resnet2"}, ("6 n + 2",)),
        ({"name": "wrn_15_2"}, ("6 n + 4", "wrn_16_2")),
        ({"name": "wrn_16_0"}, ("no such backbone", "wrn_16_2")),
        ({"name": "resnet8", "dropout": 0.3}, ("backbone.dropout=0.3", "resnet8", "CIFAR ResNet", "wrn_16_2")),
        ({"name": "resnet50", "shortcut": "identity"}, ("backbone.shortcut=identity", "resnet50", "resnet110")),
        ({"name": "wrn_16_2", "widths": (1, 2, 3)}, ("backbone.widths", "wide ResNet", "resnet8")),
        ({"name": "densenet_bc_100_12", "stem": "cifar"}, ("backbone.stem=cifar", "DenseNet-BC", "resnet18")),
        ({"name": "resnet8", "options": {"a": 1}}, ("backbone.options", "'a'", "shortcut, widths")),
        ({"name": "resnet8", "widths": (1, 2)}, ("backbone.widths=(1, 2)", "3")),
        ({"name": "resnet8", "widths": (4, 2, 2), "shortcut": "identity"}, ("backbone.widths", "projection")),
    ],
)
def test_wrong_settings_are_named_with_a_remedy(fields: dict[str, Any], parts: tuple[str, ...]) -> None:
    with pytest.raises(RecipeError) as raised:
        make(**fields)
    for part in parts:
        assert part in str(raised.value)


OWN = """
from __future__ import annotations
from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import nn

@dataclass
class Sizes:
    width: int

def network(num_classes, image_shape, width=4):
    sizes = Sizes(width)
    return nn.Sequential(OrderedDict(
        first=nn.Conv2d(image_shape[0], sizes.width, 3),
        second=nn.Conv2d(sizes.width, sizes.width, 3),
        last=nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(sizes.width, num_classes)),
    ))

class Special(nn.Sequential):
    pass

def module(num_classes, image_shape):
    return nn.Linear(1, 1)

def special(num_classes, image_shape):
    return Special(nn.Flatten(), nn.Linear(768, num_classes))

def single(num_classes, image_shape):
    return nn.Sequential(nn.Flatten())

def shared(num_classes, image_shape):
    block = nn.Conv2d(3, 3, 1)
    return nn.Sequential(block, nn.Sequential(block), nn.Flatten(), nn.Linear(768, num_classes))

def thousand(num_classes, image_shape):
    return nn.Sequential(nn.Flatten(), nn.Linear(768, 1000))

def grey(num_classes, image_shape):
    return nn.Sequential(nn.Conv2d(1, 3, 1), nn.Flatten(), nn.Linear(768, num_classes))

def broken(num_classes, image_shape):
    raise KeyError("no luck")
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "json.py"
    path.write_text(OWN)
    return path


def test_a_function_of_the_users_own_is_called_with_its_options(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import json

    network = make(f"{own}:network", seed=1, options={"width": 6}, num_classes=5)
    assert backbones.feature_shapes(network, SHAPE) == ((6, 14, 14), (6, 12, 12), (5,))
    assert sys.modules["json"] is json
    assert same(network, make(f"{own}:network", seed=1, options={"width": 6}, num_classes=5))
    assert not same(network, make(f"{own}:network", seed=2, options={"width": 6}, num_classes=5))
    monkeypatch.chdir(own.parent)
    assert same(network, make("json.py:network", seed=1, options={"width": 6}, num_classes=5))
    assert backbones.cut(network, 2, ("first",), "json.py:network", SHAPE) == ((0, 1), (1, 3))
    assert list(backbones.plain_state(network, "json.py:network")) == list(network.state_dict())


def test_what_a_file_of_the_users_own_makes_beside_its_function_belongs_to_one_network(tmp_path: Path) -> None:
    path = tmp_path / "one.py"
    path.write_text(
        "from torch import nn\n"
        "CLASSIFIER = nn.Linear(768, 10)\n"
        "def network(num_classes, image_shape):\n"
        "    return nn.Sequential(nn.Flatten(), CLASSIFIER)\n"
    )
    with torch.device("meta"):
        assert make(f"{path}:network")[1].weight.is_meta
    first, again, other = (make(f"{path}:network", seed=seed) for seed in (1, 1, 2))
    assert same(first, again) and not same(first, other)
    assert len({id(network[1]) for network in (first, again, other)}) == 3


def test_a_function_may_read_the_numbers_that_it_makes_wherever_its_network_is_wanted(tmp_path: Path) -> None:
    path = tmp_path / "rates.py"
    path.write_text(
        "import torch\n"
        "from torch import nn\n"
        "LARGEST = torch.tensor(0.1).item()\n"
        "def network(num_classes, image_shape):\n"
        "    rates = [rate.item() for rate in torch.linspace(0, LARGEST, 3)]\n"
        "    same = nn.Linear(8, 8)\n"
        "    body = nn.Sequential(same, nn.Dropout(rates[2]).eval(), same)\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(768, 8), body, nn.Linear(8, num_classes))\n"
    )
    with torch.device("meta"):
        promised = make(f"{path}:network")
        assert torch.empty(1).is_meta
    network = make(f"{path}:network")
    space: dict[str, Any] = {}
    assert all(parameter.is_meta for parameter in promised.parameters())
    for each in (promised, network):
        assert each[2][0] is each[2][2] and each.training and not each[2][1].training
        assert each[2][1].p == pytest.approx(0.1)
    exec(path.read_text(), space)
    with streams.seeded(0, "backbone", 0):
        assert same(network, space["network"](10, SHAPE))


@pytest.mark.parametrize(
    ("function", "parts"),
    [
        ("netwrk", ("no function 'netwrk'", "network")),
        ("module", ("torch.nn.modules.linear.Linear", "torch.nn.Sequential")),
        ("special", ("Special", "torch.nn.Sequential itself")),
        ("single", ("1 children", "at least 2")),
        ("shared", ("'0' and '1' share", "cut")),
        ("thousand", ("(1000,)", "(10,)", "num_classes")),
        ("grey", ("child '0'", "(3, 16, 16)")),
        ("broken", ("KeyError", "no luck", "backbone.options")),
    ],
)
def test_an_unusable_function_is_named_with_a_remedy(own: Path, function: str, parts: tuple[str, ...]) -> None:
    with pytest.raises(RecipeError) as raised:
        make(f"{own}:{function}")
    for part in parts:
        assert part in str(raised.value)


def test_an_unusable_file_is_named_with_the_cause(own: Path) -> None:
    with pytest.raises(RecipeError, match="there is no file .*absent.py"):
        make(f"{own.parent}/absent.py:network")
    with pytest.raises(RecipeError, match="no function is named"):
        make(str(own))
    with pytest.raises(RecipeError, match=r"TypeError.*no_such_option"):
        make(f"{own}:network", options={"no_such_option": 1})
    with pytest.raises(RecipeError, match=r"backbone.dropout .*backbone.options"):
        make(f"{own}:network", dropout=0.1)
    own.write_text("import torch\nimport surely_missing\n")
    known = set(sys.modules)
    with pytest.raises(RecipeError, match="ModuleNotFoundError: No module named 'surely_missing'"):
        make(f"{own}:network")
    assert set(sys.modules) <= known
