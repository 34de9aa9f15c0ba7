"""Does a batch-norm neck stand between the features and a classifier without bias, in every family?"""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from engine import backbones
from engine.errors import RecipeError
from engine.learners.hooks import BEFORE_NECK, POOLED, OutputHooks
from engine.recipes import Backbone
from engine.streams import generator

IMAGE = (3, 32, 32)
NECKED = Backbone(name="resnet8", neck="batch_norm")
FAMILIES = ("resnet18", "wrn_10_1", "densenet_22_12", "mobilenet_v1_025", "mobilenet_v2", "vgg11_bn", "inception_v1")


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_has_one(name: str) -> None:
    with torch.device("meta"):
        plain, necked = (
            backbones.build(Backbone(name=name, neck=neck), 7, IMAGE, seed=0) for neck in (None, "batch_norm")
        )
    assert backbones.feature_shapes(necked, IMAGE)[-1] == (7,)
    own = [key for key in necked.state_dict() if key not in plain.state_dict()]
    assert [key.rpartition(".")[2] for key in own] == ["weight", "running_mean", "running_var", "num_batches_tracked"]
    (bias,) = [key for key in plain.state_dict() if key not in necked.state_dict()]
    assert bias.endswith(".bias")
    # Behind pooling and dropout, directly before the classifier.
    last, classifier = list(necked.modules())[-2:]
    assert isinstance(last, backbones.BatchNormNeck)
    assert isinstance(classifier, nn.Linear)


def test_what_is_compared_comes_behind_it_and_what_is_learned_from_distances_before_it() -> None:
    network = backbones.build(NECKED, 7, IMAGE, seed=0)
    hooks = OutputHooks(network, (POOLED, BEFORE_NECK))
    images = torch.randn(4, *IMAGE, generator=generator("neck"))
    with hooks.recording() as found:
        network(images)
    features = network.eval()[:-1](images)
    with hooks.recording() as evaluated:
        logits = network(images)
    before, after = found[BEFORE_NECK], found[POOLED]
    torch.testing.assert_close(after.mean(dim=0), torch.zeros(64), atol=1e-5, rtol=0)
    torch.testing.assert_close(after, nn.functional.batch_norm(before, None, None, training=True))
    torch.testing.assert_close(evaluated[BEFORE_NECK], features.mean(dim=(2, 3)))
    extractor = backbones.without_classifier(network)
    torch.testing.assert_close(extractor(images), evaluated[POOLED], rtol=0, atol=0)
    assert logits.abs().max() < 0.1


def test_weights_without_a_neck_start_a_network_with_one(tmp_path: Path) -> None:
    plain = backbones.build(Backbone(name="resnet8"), 10, IMAGE, seed=3)
    file = tmp_path / "plain.safetensors"
    safetensors.torch.save_file(backbones.plain_state(plain, "resnet8"), file)
    given = Backbone(name="resnet8", neck="batch_norm", weights=str(file), weights_without="classifier")
    loaded, fresh = (backbones.build(settings, 7, IMAGE, seed=0).state_dict() for settings in (given, NECKED))
    for key, value in loaded.items():
        assert value.equal(fresh[key] if key.startswith("classifier") else plain.state_dict()[key])
    with pytest.raises(RecipeError, match="the names do not fit resnet8: missing neck"):
        backbones.build(Backbone(name="resnet8", neck="batch_norm", weights=str(file)), 10, IMAGE, seed=0)


def test_a_network_without_a_linear_layer_in_a_sequence_has_none(tmp_path: Path) -> None:
    file = tmp_path / "network.py"
    file.write_text(
        "from torch import nn\n"
        "def network(num_classes, image_shape):\n"
        "    last = nn.Sequential(nn.Conv2d(4, num_classes, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3), last)\n"
    )
    with pytest.raises(RecipeError, match=r"^backbone.neck=batch_norm: .*network has no last linear layer in an"):
        backbones.build(Backbone(name=f"{file}:network", neck="batch_norm"), 7, IMAGE, seed=0)
