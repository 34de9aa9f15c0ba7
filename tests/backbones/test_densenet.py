"""Are the plain DenseNets those of Huang et al. (2017)?"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine import backbones
from engine.errors import RecipeError
from engine.recipes.backbone import Backbone

CIFAR = (3, 32, 32)


def make(name: str, num_classes: int = 10, device: str = "meta") -> nn.Sequential:
    with torch.device(device):
        return backbones.build(Backbone(name=name), num_classes, CIFAR, seed=0)


def millions(name: str, num_classes: int = 10) -> float:
    return sum(backbones.parameter_counts(make(name, num_classes)).values()) / 1e6


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("densenet_40_12", 1.0),
        ("densenet_100_12", 7.0),
        ("densenet_100_24", 27.2),
        ("densenet_bc_100_12", 0.8),
        ("densenet_bc_250_24", 15.3),
        ("densenet_bc_190_40", 25.6),
    ],
)
def test_it_has_the_millions_of_parameters_of_table_2(name: str, published: float) -> None:
    # With 10 classes; the table has one digit.
    assert millions(name) == pytest.approx(published, abs=0.05)


def test_parameters_are_what_the_layers_add_up_to() -> None:
    # DenseNet-40, k = 12: 36 layers of batch norm and 3x3 convolution in three stages, two transitions, no compression.
    channels, expected = 16, 3 * 16 * 9
    for stage in range(3):
        for _ in range(12):
            expected += 2 * channels + 9 * channels * 12
            channels += 12
        if stage < 2:
            expected += 2 * channels + channels * channels
    expected += 2 * channels + 100 * channels + 100
    assert channels == 448
    assert sum(backbones.parameter_counts(make("densenet_40_12", 100)).values()) == expected


def test_transitions_halve_the_image_and_keep_the_channels() -> None:
    shapes = dict(
        zip(make("densenet_40_12")._modules, backbones.feature_shapes(make("densenet_40_12"), CIFAR), strict=True)
    )
    assert shapes["stem"] == (16, 32, 32)
    assert shapes["transition1"] == (160, 16, 16)
    assert shapes["transition2"] == (304, 8, 8)
    assert shapes["dense3_11"] == (448, 8, 8)


def naive(state: dict[str, Tensor], x: Tensor, layers: int) -> Tensor:
    """Return the outputs of a plain DenseNet as one function over its state, in evaluation mode."""

    def activate(x: Tensor, name: str) -> Tensor:
        mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        return F.relu(F.batch_norm(x, mean, var, state[f"{name}.weight"], state[f"{name}.bias"]))

    x = F.conv2d(x, state["features.conv0.weight"], padding=1)
    for stage in (1, 2, 3):
        for layer in range(1, layers + 1):
            name = f"features.denseblock{stage}.denselayer{layer}"
            x = torch.cat((x, F.conv2d(activate(x, f"{name}.norm1"), state[f"{name}.conv1.weight"], padding=1)), 1)
        if stage < 3:
            name = f"features.transition{stage}"
            x = F.avg_pool2d(F.conv2d(activate(x, f"{name}.norm"), state[f"{name}.conv.weight"]), 2)
    x = activate(x, "features.norm5").mean(dim=(2, 3))
    return F.linear(x, state["classifier.weight"], state["classifier.bias"])


def test_a_naive_function_takes_the_exported_weights() -> None:
    network = make("densenet_13_5", device="cpu").eval()
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None and module.running_var is not None:
            module.running_mean.uniform_(-0.2, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    images = torch.rand(2, 3, 32, 32, generator=generator)
    with torch.no_grad():
        expected = naive(backbones.plain_state(network, "densenet_13_5"), images, layers=3)
        torch.testing.assert_close(network(images), expected)
    assert expected.std() > 1e-3


def test_impossible_depths_are_named() -> None:
    with pytest.raises(RecipeError, match=r"backbone.name=densenet_41_12.*3 n \+ 4.*densenet_40_12"):
        make("densenet_41_12")
    with pytest.raises(RecipeError, match=r"backbone.name=densenet_bc_41_12.*6 n \+ 4"):
        make("densenet_bc_41_12")
