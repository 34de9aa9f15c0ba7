"""Do ordinary networks, written without this engine, take the exported weights and give the same outputs?"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from engine import backbones
from engine.recipes.backbone import Backbone


class NaiveBlock(nn.Module):
    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = nn.Sequential()
        if stride == 2:
            self.downsample = nn.Sequential(nn.Conv2d(channels, width, 1, 2, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(out + self.downsample(x))


class NaiveResNet(nn.Module):
    def __init__(self, n: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*[NaiveBlock(16, 16, 1) for _ in range(n)])
        self.layer2 = nn.Sequential(NaiveBlock(16, 32, 2), *[NaiveBlock(32, 32, 1) for _ in range(n - 1)])
        self.layer3 = nn.Sequential(NaiveBlock(32, 64, 2), *[NaiveBlock(64, 64, 1) for _ in range(n - 1)])
        self.fc = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(x.mean(dim=(2, 3)))


class NaiveWide(nn.Module):
    """A wide ResNet as one function over its state, after Zagoruyko and Komodakis."""

    def __init__(self, state: dict[str, Tensor], n: int) -> None:
        super().__init__()
        self.state, self.n = state, n

    def activate(self, x: Tensor, name: str) -> Tensor:
        s = self.state
        mean, var = s[f"{name}.running_mean"], s[f"{name}.running_var"]
        return F.relu(F.batch_norm(x, mean, var, s[f"{name}.weight"], s[f"{name}.bias"]))

    def forward(self, x: Tensor) -> Tensor:
        s = self.state
        x = F.conv2d(x, s["conv1.weight"], padding=1)
        for stage in (1, 2, 3):
            for block in range(self.n):
                name = f"layer{stage}.{block}"
                stride = 2 if stage > 1 and block == 0 else 1
                o = self.activate(x, f"{name}.bn1")
                z = F.conv2d(o, s[f"{name}.conv1.weight"], stride=stride, padding=1)
                z = F.conv2d(self.activate(z, f"{name}.bn2"), s[f"{name}.conv2.weight"], padding=1)
                x = z + (F.conv2d(o, s[f"{name}.shortcut.weight"], stride=stride) if block == 0 else x)
        return F.linear(self.activate(x, "bn").mean(dim=(2, 3)), s["fc.weight"], s["fc.bias"])


def make(name: str, num_classes: int = 10, image_shape: tuple[int, int, int] = (3, 32, 32)) -> nn.Sequential:
    """Build, with statistics of batch norms that are not the neutral ones."""
    network = backbones.build(Backbone(name=name), num_classes, image_shape, seed=0)
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None and module.running_var is not None:
            module.running_mean.uniform_(-0.2, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.uniform_(module.bias, -0.2, 0.2, generator=generator)
    return network.eval()


def images(height: int = 32) -> Tensor:
    return torch.rand(2, 3, height, height, generator=torch.Generator().manual_seed(2))


def test_a_naive_cifar_resnet_takes_the_exported_weights() -> None:
    network = make("resnet14")
    naive = NaiveResNet(2).eval()
    naive.load_state_dict(backbones.plain_state(network, "resnet14"))
    with torch.no_grad():
        torch.testing.assert_close(naive(images()), network(images()))


def test_a_naive_wide_resnet_takes_the_exported_weights() -> None:
    network = make("wrn_16_2")
    naive = NaiveWide(backbones.plain_state(network, "wrn_16_2"), 2)
    with torch.no_grad():
        torch.testing.assert_close(naive(images()), network(images()))


def test_a_dense_net_of_torchvision_takes_the_exported_weights() -> None:
    network = make("densenet_bc_22_4")
    # torchvision has no stem for small images and counts growth and layers in the same way.
    reference = torchvision.models.DenseNet(4, (3, 3, 3), 8, num_classes=10).eval()  # type: ignore[arg-type]
    reference.features.conv0 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
    reference.features.norm0, reference.features.relu0, reference.features.pool0 = nn.ModuleList([nn.Identity()] * 3)
    reference.load_state_dict(backbones.plain_state(network, "densenet_bc_22_4"))
    with torch.no_grad():
        torch.testing.assert_close(reference(images()), network(images()))


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnext50_32x4d"])
def test_torchvision_takes_the_exported_weights(name: str) -> None:
    network = make(name, 7, (3, 128, 128))
    reference = getattr(torchvision.models, name)(num_classes=7).eval()
    reference.load_state_dict(backbones.plain_state(network, name))
    with torch.no_grad():
        torch.testing.assert_close(reference(images(128)), network(images(128)))


@pytest.mark.parametrize("name", ["resnet8", "resnet18", "wrn_10_1", "densenet_bc_10_4"])
def test_exported_weights_come_back(name: str) -> None:
    network = make(name)
    state = {key: tensor.clone() for key, tensor in backbones.plain_state(network, name).items()}
    other = backbones.build(Backbone(name=name), 10, (3, 32, 32), seed=9)
    backbones.load_plain_state(other, name, state)
    loaded = other.state_dict()
    assert all(torch.equal(tensor, loaded[key]) for key, tensor in network.state_dict().items())
