"""Are the networks for segmentation dilated as published, and cut like all others?"""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch
import torchvision
from torch import nn

from engine import backbones
from engine.errors import RecipeError
from engine.recipes import Backbone

IMAGE = (3, 64, 96)


def make(name: str, classes: int = 11, device: str = "cpu", **options: object) -> nn.Sequential:
    with torch.device(device):
        return backbones.build(Backbone(name=name, **options), classes, IMAGE, seed=0)


@pytest.mark.parametrize(("stride", "grid"), [(8, (8, 12)), (16, (4, 6)), (32, (2, 3))])
@pytest.mark.parametrize("name", ["fcn_resnet18", "deeplabv3_resnet50"])
def test_the_output_stride_is_what_the_field_says(name: str, stride: int, grid: tuple[int, int]) -> None:
    shapes = backbones.feature_shapes(make(name, device="meta", output_stride=stride), IMAGE)
    assert shapes[-1] == (11, *grid)
    assert shapes[-2] == (512 if "18" in name else 2048, *grid)


def test_the_dilated_stages_are_torchvisions_with_its_stem() -> None:
    reference = torchvision.models.resnet50(replace_stride_with_dilation=[False, True, True]).eval()
    network = make("fcn_resnet50", stem="imagenet").eval()
    body = nn.Sequential(*list(network)[:-1])
    own = dict(zip(backbones.plain_state(network, "fcn_resnet50"), network.state_dict(), strict=True))
    theirs = reference.state_dict()
    network.load_state_dict({key: theirs.get(plain, network.state_dict()[key]) for plain, key in own.items()})
    assert set(theirs) - set(own) == {"fc.weight", "fc.bias"}
    images = torch.randn(1, *IMAGE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = body(images)
        features = reference.maxpool(reference.relu(reference.bn1(reference.conv1(images))))
        for stage in (reference.layer1, reference.layer2, reference.layer3, reference.layer4):
            features = stage(features)
    torch.testing.assert_close(found, features)
    assert found.std() > 1e-3


def test_weights_of_torchvisions_resnet_are_loaded_by_name(tmp_path: Path) -> None:
    reference = torchvision.models.resnet18()
    torch.save(reference.state_dict(), tmp_path / "resnet18.pth")
    options = {"stem": "imagenet", "weights": str(tmp_path / "resnet18.pth")}
    network = make("deeplabv3_resnet18", **options, weights_without="classifier")
    fresh = make("deeplabv3_resnet18", stem="imagenet")
    state, theirs = backbones.plain_state(network, "deeplabv3_resnet18"), reference.state_dict()
    heads = {name for name in state if name.startswith("decode_head.")}
    assert set(state) - heads == {name for name in theirs if not name.startswith("fc.")}
    assert all(torch.equal(state[name], theirs[name]) for name in set(state) - heads)
    # The head starts as in a network without weights.
    assert torch.equal(network.get_submodule("head.conv_seg").weight, fresh.get_submodule("head.conv_seg").weight)
    with pytest.raises(RecipeError, match=r"the names do not fit deeplabv3_resnet18: missing decode_head"):
        make("deeplabv3_resnet18", **options)


@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_weights_of_mmsegmentations_deep_stem_are_loaded_by_name(prefix: str, tmp_path: Path) -> None:
    # Names as its checkpoints have them: of the body alone, and of a whole network.
    trained = backbones.plain_state(make("fcn_resnet18"), "fcn_resnet18")
    body = {f"{prefix}{name}": value for name, value in trained.items() if not name.startswith("decode_head.")}
    others = {"fc.weight": torch.zeros(1000, 512)} if not prefix else {"auxiliary_head.conv_seg.bias": torch.zeros(19)}
    safetensors.torch.save_file({**body, **others}, tmp_path / "v1c.safetensors")
    weights = {"weights": str(tmp_path / "v1c.safetensors"), "weights_without": "classifier"}
    with torch.device("cpu"):
        network = backbones.build(Backbone(name="deeplabv3_resnet18", **weights), 11, IMAGE, seed=5)
    found = backbones.plain_state(network, "deeplabv3_resnet18")
    assert all(torch.equal(found[name.removeprefix(prefix)], value) for name, value in body.items())


def test_deeplab_behind_resnet_101_has_the_layers_of_infopros_code() -> None:
    network = make("deeplabv3_resnet101", 19, "meta")
    state = {name: tuple(each.shape) for name, each in backbones.plain_state(network, "deeplabv3_resnet101").items()}
    assert [state[f"stem.{place}.weight"] for place in (0, 3, 6)] == [(32, 3, 3, 3), (32, 32, 3, 3), (64, 32, 3, 3)]
    assert state["decode_head.bottleneck.conv.weight"] == (512, 2560, 3, 3)
    assert state["decode_head.conv_seg.weight"] == (19, 512, 1, 1)
    dilations = {name: module.dilation[0] for name, module in network.named_modules() if isinstance(module, nn.Conv2d)}
    assert [dilations[f"head.aspp_modules.{branch}.conv"] for branch in range(4)] == [1, 12, 24, 36]
    assert [dilations[f"layer3_{block}.conv2"] for block in (0, 1, 22)] == [1, 2, 2]
    assert [dilations[f"layer4_{block}.conv2"] for block in range(3)] == [2, 4, 4]
    (heads,) = backbones.auxiliary_heads(
        Backbone(name="deeplabv3_resnet101", auxiliary_heads=True), network, 19, IMAGE
    ).items()
    assert heads[0] == "layer3_22"
    assert [tuple(weight.shape) for weight in heads[1].parameters() if weight.dim() == 4] == [
        (19, 256, 1, 1),
        (256, 1024, 3, 3),
    ]


def test_segments_one_after_the_other_are_the_whole_network() -> None:
    network = make("deeplabv3_resnet18", output_stride=16).eval()
    images = torch.randn(2, *IMAGE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        whole, features = network(images), images
        for start, stop in backbones.cut(network, 3, "balanced_layers", "deeplabv3_resnet18", IMAGE):
            features = network[start:stop](features)
    assert torch.equal(features, whole)
    assert whole.shape == (2, 11, 4, 6)


def test_the_last_convolution_starts_small() -> None:
    last = make("deeplabv3_resnet18").get_submodule("head.conv_seg")
    assert isinstance(last, nn.Conv2d)
    assert 0.005 < float(last.weight.detach().std()) < 0.015
    assert last.bias is not None
    assert not last.bias.any()


def test_stems_of_other_networks_are_refused_on_both_sides() -> None:
    with pytest.raises(RecipeError, match=r"backbone\.stem=cifar: fcn_resnet18 lowers the resolution as far as"):
        make("fcn_resnet18", stem="cifar")
    with pytest.raises(RecipeError, match=r"backbone\.stem=deep is for networks for segmentation"):
        make("resnet18", stem="deep")
    with pytest.raises(RecipeError, match=r"backbone\.output_stride=8: resnet18 is a torchvision ResNet, which has no"):
        make("resnet18", output_stride=8)
