"""Are torchvision's networks the same as flat sequences, and do small images stay large in them?"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from engine import backbones, streams
from engine.recipes.backbone import Backbone

CIFAR, IMAGENET = (3, 32, 32), (3, 224, 224)
ELSEWHERE = ("resnet", "resnext", "wrn", "densenet", "mobilenet_v1", "inception", "fcn", "deeplabv3")
LISTED = [name for name in backbones.names() if not name.startswith(ELSEWHERE)]
# One of each family and shape of code; the others differ in widths and numbers of blocks.
QUICK = ["mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large", "efficientnet_b0", "mnasnet0_5"]
QUICK += ["shufflenet_v2_x0_5", "vgg11_bn"]
VGG = [name for name in LISTED if name.startswith("vgg")]
MOBILE = [name for name in LISTED if name not in VGG]
# One of each kind of block.
RESIDUAL = ["mobilenet_v2", "mobilenet_v3_small", "mnasnet0_5", "efficientnet_b0", "efficientnet_v2_s"]
SMALL = ["mobilenet_v2", "mobilenet_v3_small", "mnasnet0_5", "efficientnet_b0", "shufflenet_v2_x0_5"]


def marked(names: list[str]) -> list[Any]:
    return [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in names]


def make(
    name: str, num_classes: int = 10, image_shape: tuple[int, int, int] = CIFAR, device: str = "cpu", **fields: Any
) -> nn.Sequential:
    with torch.device(device):
        return backbones.build(Backbone(name=name, **fields), num_classes, image_shape, seed=0)


def reference_of(name: str, num_classes: int = 10, device: str = "cpu") -> nn.Module:
    """Return torchvision's own network, with statistics of batch norms that are not the neutral ones."""
    with torch.device(device), streams.seeded(1, "reference"):
        reference = getattr(torchvision.models, name)(num_classes=num_classes)
        for module in reference.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.running_mean, -0.2, 0.2)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.uniform_(module.bias, -0.2, 0.2)
    return reference.eval()


def images(height: int, channels: int = 3) -> Tensor:
    return torch.rand(2, channels, height, height, generator=torch.Generator().manual_seed(2))


def shapes_of(network: nn.Sequential, image_shape: tuple[int, int, int] = CIFAR) -> dict[str, tuple[int, ...]]:
    return dict(zip(network._modules, backbones.feature_shapes(network, image_shape), strict=True))


def test_the_families_are_there() -> None:
    assert {"mobilenet_v3_large", "shufflenet_v2_x1_0", "efficientnet_b7", "mnasnet1_3", "vgg19_bn"} <= set(LISTED)
    assert len(LISTED) == 26


@pytest.mark.parametrize("name", marked(LISTED))
def test_names_and_shapes_of_all_weights_are_those_of_torchvision(name: str) -> None:
    network = make(name, 1000, IMAGENET, "meta")
    state, expected = backbones.plain_state(network, name), reference_of(name, 1000, "meta").state_dict()
    assert {key: tensor.shape for key, tensor in state.items()} == {
        key: tensor.shape for key, tensor in expected.items()
    }
    shapes = backbones.feature_shapes(network, IMAGENET)
    assert shapes[-2][1:] == (7, 7)
    assert shapes[-1] == (1000,)


@pytest.mark.parametrize("name", [*RESIDUAL, "mobilenet_v3_large", "shufflenet_v2_x0_5", "shufflenet_v2_x1_0"])
def test_outputs_are_those_of_torchvision_with_its_weights(name: str) -> None:
    reference = reference_of(name, 7)
    network = make(name, 7, stem="imagenet").eval()
    backbones.load_plain_state(network, name, reference.state_dict())
    with torch.no_grad():
        expected = reference(images(64))
        torch.testing.assert_close(network(images(64)), expected)
    # Otherwise all networks would agree.
    assert expected.std() > 1e-3


def test_the_convolutions_of_vgg_are_those_of_torchvision() -> None:
    reference = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["A"], batch_norm=True).eval()
    network = make("vgg11_bn").eval()
    state = backbones.plain_state(network, "vgg11_bn")
    reference.load_state_dict({key.removeprefix("features."): state[key] for key in state if "features." in key})
    with torch.no_grad():
        torch.testing.assert_close(network[:-1](images(64)), reference(images(64)))


def test_the_classifier_of_vgg_for_large_images_is_that_of_torchvision() -> None:
    own = make("vgg11_bn", image_shape=IMAGENET, device="meta").get_submodule("classifier.classifier")
    expected = reference_of("vgg11_bn", device="meta").get_submodule("classifier")
    assert [repr(layer) for layer in own.children()] == [repr(layer) for layer in expected.children()]


def test_vgg_for_small_images_has_one_linear_layer() -> None:
    # Convolutions with a bias as in torchvision, and 512 features: a usual form for CIFAR-10.
    network = make("vgg16_bn", device="meta")
    assert sum(backbones.parameter_counts(network).values()) == 14_728_266
    assert shapes_of(network)["conv5_3"] == (512, 1, 1)
    assert backbones.parameter_counts(network)["classifier"] == 5_130


@pytest.mark.parametrize("name", marked(MOBILE))
def test_small_images_end_at_four_pixels(name: str) -> None:
    network = make(name, device="meta")
    shapes = list(shapes_of(network).values())
    assert shapes[0][1:] == (32, 32)
    assert shapes[-2][1:] == (4, 4)
    whole = make(name, image_shape=IMAGENET, device="meta")
    assert backbones.parameter_counts(whole) == backbones.parameter_counts(network)
    assert backbones.feature_shapes(make(name, stem="imagenet", device="meta"), CIFAR)[-2][1:] == (1, 1)


@pytest.mark.parametrize(
    ("name", "last_at_32", "last_at_16", "last_at_8"),
    [
        ("mobilenet_v2", "features_3", "features_6", "features_13"),
        ("mobilenet_v3_small", "features_1", "features_3", "features_8"),
        ("mobilenet_v3_large", "features_3", "features_6", "features_12"),
        ("efficientnet_b0", "features_2_1", "features_3_1", "features_5_2"),
        ("mnasnet1_0", "layers_8_2", "layers_9_2", "layers_11_1"),
        ("shufflenet_v2_x1_0", "stem", "stage2_3", "stage3_7"),
    ],
)
def test_small_images_shrink_where_the_plan_says(name: str, last_at_32: str, last_at_16: str, last_at_8: str) -> None:
    last = {shape[1]: child for child, shape in shapes_of(make(name, device="meta")).items() if len(shape) == 3}
    assert [last[32], last[16], last[8]] == [last_at_32, last_at_16, last_at_8]


@pytest.mark.parametrize(
    ("name", "stem"), [*((name, "cifar") for name in RESIDUAL), ("mobilenet_v3_small", "imagenet")]
)
def test_all_blocks_that_keep_the_shape_can_be_bypassed(name: str, stem: str) -> None:
    shapes = list(shapes_of(network := make(name, device="meta", stem=stem), (3, 64, 64)).items())
    same = [child for (_, before), (child, after) in pairwise(shapes) if before == after]
    assert list(backbones.bypassable(network)) == same
    assert len(same) >= 6


@pytest.mark.parametrize("name", RESIDUAL)
def test_a_block_that_can_be_bypassed_adds_to_its_input(name: str) -> None:
    network = make(name).eval()
    for child in backbones.bypassable(network):
        block = network.get_submodule(child)
        for module in block.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.zeros_(module.weight)
        channels = next(part for part in block.modules() if isinstance(part, nn.Conv2d)).in_channels
        features = images(4, channels)
        assert torch.equal(block(features), features), child


def test_the_units_of_a_shuffle_net_cannot_be_bypassed() -> None:
    assert backbones.bypassable(make("shufflenet_v2_x0_5", device="meta")) == ()


@pytest.mark.parametrize("name", [*SMALL, "vgg11_bn", "mobilenet_v1_025", "inception_v1"])
def test_no_child_writes_to_its_input_and_cutting_changes_nothing(name: str) -> None:
    network = make(name)
    features = images(32)
    shapes = backbones.feature_shapes(network, CIFAR)
    for (child_name, child), shape in zip(network.named_children(), shapes, strict=True):
        features = features.detach()
        before, version = features.clone(), features._version
        out = child(features)
        assert features._version == version, child_name
        assert torch.equal(features, before), child_name
        assert tuple(out.shape) == (2, *shape), child_name
        assert any(parameter.requires_grad for parameter in child.parameters()), child_name
        out.sum().backward()
        features = out
    segments = backbones.cut(network, 4, "balanced_layers", name, CIFAR)
    cut = features = images(32)
    network.eval()
    for start, stop in segments:
        cut = network[start:stop](cut)
    assert torch.equal(cut, network(features))


@pytest.mark.parametrize(
    ("name", "stem"),
    [*((name, "imagenet") for name in (*SMALL, "vgg11_bn", "inception_v1")), ("inception_v1", "cifar")],
)
def test_images_of_one_channel_are_taken(name: str, stem: str) -> None:
    network = make(name, image_shape=(1, 32, 32), device="meta", stem=stem)
    assert backbones.feature_shapes(network, (1, 32, 32))[-1] == (10,)


@pytest.mark.parametrize("name", SMALL)
def test_initial_weights_are_spread_as_in_torchvision(name: str) -> None:
    with streams.seeded(1, "reference"):
        expected = getattr(torchvision.models, name)(num_classes=10).state_dict()
    state = backbones.plain_state(make(name), name)
    grey = backbones.plain_state(make(name, image_shape=(1, 32, 32)), name)
    first = next(iter(state))
    assert grey[first].shape[1] == 1
    for key, tensor in state.items():
        if not tensor.is_floating_point() or tensor.numel() < 50:
            continue
        deviation = expected[key].std().item()
        # Six standard errors of the difference of two estimated deviations.
        tolerance = 6 * deviation / tensor.numel() ** 0.5
        assert tensor.std().item() == pytest.approx(deviation, abs=tolerance), key
        assert tensor.mean().item() == pytest.approx(expected[key].mean().item(), abs=1.5 * tolerance), key
    fan = (3.0 if name.startswith("shuffle") else 1.0) ** 0.5
    assert grey[first].std().item() == pytest.approx(fan * state[first].std().item(), rel=0.25)


def test_vgg_starts_as_in_torchvision() -> None:
    network = make("vgg11_bn")
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            deviation = (2 / (9 * module.out_channels)) ** 0.5
            tolerance = 6 * deviation / (2 * module.weight.numel()) ** 0.5
            assert module.weight.std().item() == pytest.approx(deviation, abs=tolerance)
            assert module.bias is not None and (module.bias == 0).all()
    linear = network.get_submodule("classifier.classifier")
    assert isinstance(linear, nn.Linear)
    assert linear.weight.std().item() == pytest.approx(0.01, rel=0.07)
    assert (linear.bias == 0).all()


@pytest.mark.parametrize(
    ("name", "published"),
    [("mobilenet_v2", 0.2), ("mobilenet_v3_large", 0.2), ("mnasnet1_0", 0.2), ("efficientnet_b2", 0.3)],
)
def test_dropout_replaces_the_published_one(name: str, published: float) -> None:
    def probabilities(**fields: Any) -> list[float]:
        classifier = make(name, device="meta", **fields).get_submodule("classifier")
        return [module.p for module in classifier.modules() if isinstance(module, nn.Dropout)]

    assert probabilities() == [published]
    assert probabilities(dropout=0.7) == [0.7]
    assert probabilities(dropout=0.0) == []
    wet = make(name, device="meta", dropout=0.0)
    assert list(wet.state_dict()) == list(make(name, device="meta").state_dict())


def test_dropout_of_vgg() -> None:
    def probabilities(image_shape: tuple[int, int, int], **fields: Any) -> list[float]:
        network = make("vgg11_bn", image_shape=image_shape, device="meta", **fields)
        return [module.p for module in network.modules() if isinstance(module, nn.Dropout)]

    assert probabilities(IMAGENET) == [0.5, 0.5]
    assert probabilities(IMAGENET, dropout=0.1) == [0.1, 0.1]
    assert probabilities(IMAGENET, dropout=0.0) == probabilities(CIFAR) == []
    assert probabilities(CIFAR, dropout=0.1) == [0.1]


def test_a_file_as_torchvision_publishes_it_loads(tmp_path: Path) -> None:
    reference = reference_of("mobilenet_v3_small", 12)
    torch.save(reference.state_dict(), tmp_path / "weights.pth")
    network = make("mobilenet_v3_small", 12, stem="imagenet", weights=str(tmp_path / "weights.pth")).eval()
    with torch.no_grad():
        torch.testing.assert_close(network(images(64)), reference(images(64)))
