"""Are the families' networks the published ones: parameters, shapes, initial weights, no write to an input?"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from engine import backbones
from engine.recipes.backbone import Backbone

SMALL = ["resnet8", "resnet14", "resnet18", "resnet50", "wrn_10_1", "densenet_bc_10_4"]


def make(
    name: str, num_classes: int = 10, image_shape: tuple[int, int, int] = (3, 32, 32), **fields: Any
) -> nn.Sequential:
    return backbones.build(Backbone(name=name, **fields), num_classes, image_shape, seed=0)


def count(name: str, num_classes: int = 10, image_shape: tuple[int, int, int] = (3, 32, 32), **fields: Any) -> int:
    with torch.device("meta"):
        network = make(name, num_classes, image_shape, **fields)
    assert all(parameter.is_meta for parameter in network.parameters())
    return sum(backbones.parameter_counts(network).values())


@pytest.mark.parametrize(
    ("depth", "projection", "identity"),
    [
        (20, 272_474, 269_722),
        (32, 466_906, 464_154),
        (44, 661_338, 658_586),
        (56, 855_770, 853_018),
        (110, 1_730_714, 1_727_962),
    ],
)
def test_cifar_resnets_have_the_published_parameters(depth: int, projection: int, identity: int) -> None:
    name = f"resnet{depth}"
    assert count(name) == count(name, shortcut="projection") == projection
    assert count(name, shortcut="identity") == identity
    assert count(name, num_classes=100) == projection + 5_850


@pytest.mark.parametrize(
    ("name", "ten", "hundred"),
    [
        ("wrn_16_2", 691_674, 703_284),
        ("wrn_16_8", 10_961_370, 11_007_540),
        ("wrn_28_10", 36_479_194, 36_536_884),
        ("wrn_40_2", 2_243_546, 2_255_156),
        ("densenet_bc_100_12", 769_162, 800_032),
    ],
)
def test_wide_and_dense_networks_have_the_published_parameters(name: str, ten: int, hundred: int) -> None:
    assert count(name) == ten
    assert count(name, num_classes=100) == hundred


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"])
def test_imagenet_resnets_have_the_parameters_of_torchvision(name: str) -> None:
    with torch.device("meta"):
        reference = getattr(torchvision.models, name)()
    expected = sum(parameter.numel() for parameter in reference.parameters())
    assert count(name, 1000, (3, 224, 224)) == expected
    # 3x3 instead of 7x7 in the first convolution.
    assert count(name, 1000, (3, 32, 32)) == expected - 64 * 3 * (49 - 9)


@pytest.mark.parametrize(("name", "parameters"), [("resnext50_32x4d", 25_028_904), ("resnext101_32x8d", 88_791_336)])
def test_resnexts_have_the_names_shapes_and_parameters_of_torchvision(name: str, parameters: int) -> None:
    with torch.device("meta"):
        network = make(name, 1000, (3, 224, 224))
        reference = getattr(torchvision.models, name)()
    assert {key: tensor.shape for key, tensor in backbones.plain_state(network, name).items()} == {
        key: tensor.shape for key, tensor in reference.state_dict().items()
    }
    assert count(name, 1000, (3, 224, 224)) == parameters
    assert count(name, 1000, (3, 32, 32)) == parameters - 64 * 3 * (49 - 9)


def test_the_stem_follows_the_image_height_unless_given() -> None:
    def height_after_stem(height: int, **fields: Any) -> int:
        with torch.device("meta"):
            network = make("resnet18", image_shape=(3, height, height), **fields)
        return backbones.feature_shapes(network, (3, height, height))[0][1]

    assert height_after_stem(128) == 32
    assert height_after_stem(127) == 127
    assert height_after_stem(32, stem="imagenet") == 8
    assert height_after_stem(128, stem="cifar") == 128


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", SMALL)
def test_real_features_have_the_foretold_shapes(name: str, channels: int) -> None:
    network = make(name, 7, (channels, 16, 16))
    features = torch.rand(2, channels, 16, 16)
    shapes = backbones.feature_shapes(network, (channels, 16, 16))
    for child, shape in zip(network, shapes, strict=True):
        features = child(features)
        assert tuple(features.shape) == (2, *shape)
    assert shapes[-1] == (7,)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("fields", [{"name": name} for name in SMALL] + [{"name": "resnet8", "shortcut": "identity"}])
def test_no_child_writes_to_its_input(fields: dict[str, Any], training: bool) -> None:
    network = make(**fields).train(training)
    features = torch.rand(2, 3, 32, 32)
    for name, child in network.named_children():
        features = features.detach()
        before, version = features.clone(), features._version
        out = child(features)
        assert features._version == version, name
        assert torch.equal(features, before), name
        out.sum().backward()
        features = out


@pytest.mark.parametrize("name", SMALL)
def test_segments_in_a_chain_equal_the_uncut_network_bit_for_bit(name: str) -> None:
    whole, cut = make(name).eval(), make(name).eval()
    images = torch.rand(2, 3, 32, 32)
    for num_segments in (1, 3, len(cut) - 1):
        features = images
        for start, stop in backbones.cut(cut, num_segments, "balanced_layers", name, (3, 32, 32)):
            features = cut[start:stop](features)
        assert torch.equal(features, whole(images))


def test_convolutions_start_with_the_fan_out_deviation() -> None:
    for name in ("resnet14", "wrn_16_2", "densenet_bc_40_12"):
        for module in make(name).modules():
            if isinstance(module, nn.Conv2d):
                height, width = module.kernel_size
                deviation = math.sqrt(2 / (height * width * module.out_channels))
                # Six standard errors of an estimated deviation.
                tolerance = 6 * deviation / math.sqrt(2 * module.weight.numel())
                assert module.weight.std().item() == pytest.approx(deviation, abs=tolerance), (name, module)
            if isinstance(module, nn.BatchNorm2d):
                assert (module.weight == 1).all() and (module.bias == 0).all()


def test_widths_replace_the_channels_of_the_stages() -> None:
    with torch.device("meta"):
        network = make("resnet8", widths=(4, 6, 12), shortcut="identity")
    shapes = backbones.feature_shapes(network, (3, 32, 32))
    assert shapes == ((4, 32, 32), (4, 32, 32), (6, 16, 16), (12, 8, 8), (10,))


def test_an_identity_shortcut_keeps_every_second_pixel_and_adds_zeros() -> None:
    network = make("resnet8", widths=(2, 3, 3), shortcut="identity")
    block = network.get_submodule("layer2_0")
    for module in block.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.zeros_(module.weight)
    features = torch.rand(1, 2, 8, 8)
    out: Tensor = block.eval()(features)
    assert torch.equal(out[:, :2], features[:, :, ::2, ::2])
    assert (out[:, 2:] == 0).all()


def test_dropout_acts_between_the_convolutions_in_training_only() -> None:
    images = torch.rand(2, 3, 16, 16)
    dry, wet = make("wrn_10_1"), make("wrn_10_1", dropout=0.5)
    assert torch.equal(dry.eval()(images), wet.eval()(images))
    assert not torch.equal(dry.train()(images), wet.train()(images))


@pytest.mark.parametrize("name", SMALL)
def test_only_blocks_that_keep_the_shape_can_be_bypassed(name: str) -> None:
    with torch.device("meta"):
        network = make(name)
    shapes = dict(zip(network._modules, backbones.feature_shapes(network, (3, 32, 32)), strict=True))
    order = list(network._modules)
    same = [child for before, child in pairwise(order) if shapes[before] == shapes[child]]
    assert list(backbones.bypassable(network)) == same


def test_some_blocks_can_be_bypassed() -> None:
    with torch.device("meta"):
        network = make("resnet14")
    assert backbones.bypassable(network) == ("layer1_0", "layer1_1", "layer2_1", "layer3_1")
