"""Are the auxiliary classifiers the published ones?"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from engine.errors import RecipeError
from engine.objectives import conv_head, dgl_head, head_for, imagenet_head, linear_head, prediction_head
from engine.streams import generator, seeded

SIZES = {16: 32, 32: 16, 64: 8}


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def multiply_adds(module: nn.Module, features: Tensor) -> int:
    """Count multiply-adds of convolutions and linear layers on meta tensors."""
    with FlopCounterMode(display=False) as counter:
        module.to("meta").eval()(features.to("meta"))
    return counter.get_total_flops() // 2


@pytest.mark.parametrize(
    ("convolutions", "linears", "outputs", "expected"),
    [
        (0, 1, 10, {16: 170, 32: 330, 64: 650}),
        (1, 1, 10, {16: 5_002, 32: 19_210, 64: 37_642}),
        (1, 2, 10, {16: 10_186, 32: 28_170, 64: 46_602}),
        (1, 2, 128, {16: 25_408, 32: 43_392, 64: 61_824}),
        (2, 2, 10, {16: 19_466, 32: 65_162, 64: 83_594}),
    ],
)
def test_conv_head_has_the_published_parameters(
    convolutions: int, linears: int, outputs: int, expected: dict[int, int]
) -> None:
    heads = {c: conv_head((c, size, size), outputs, 64, convolutions, linears) for c, size in SIZES.items()}
    assert {channels: count(head) for channels, head in heads.items()} == expected


def test_linear_head_and_default_of_the_conv_head() -> None:
    assert {c: count(linear_head((c, size, size), 10)) for c, size in SIZES.items()} == {16: 170, 32: 330, 64: 650}
    assert count(conv_head((16, 32, 32), 10, final_channels=64)) == 10_186


@pytest.mark.parametrize(("channels", "expected"), [(16, 1.20e6), (32, 1.20e6), (64, 2.38e6)])
def test_conv_head_has_the_published_multiply_adds(channels: int, expected: float) -> None:
    head = conv_head((channels, SIZES[channels], SIZES[channels]), 128, final_channels=64)
    features = torch.zeros(1, channels, SIZES[channels], SIZES[channels])
    assert multiply_adds(head, features) == pytest.approx(expected, rel=5e-3)


@pytest.mark.parametrize(("channels", "expected"), [(16, 14_378), (32, 54_858), (64, 214_154)])
def test_dgl_head_has_the_published_size(channels: int, expected: int) -> None:
    size = SIZES[channels]
    head = dgl_head((channels, size, size), 10)
    assert count(head) == expected
    convolutions, linears = 3 * channels**2 * (size // 4) ** 2, 3 * (4 * channels) ** 2 + 4 * channels * 10
    assert multiply_adds(head, torch.zeros(1, channels, size, size)) == convolutions + linears


def test_imagenet_head_has_the_published_size() -> None:
    head = imagenet_head((512, 28, 28), 1000)
    assert count(head) == 4_643_560
    assert multiply_adds(head, torch.zeros(1, 512, 28, 28)) == pytest.approx(220.4e6, rel=1e-3)
    assert count(imagenet_head((256, 56, 56), 1000)) == 4_643_560 - 256 * 128


def batch_normalise(features: Tensor, axes: tuple[int, ...]) -> Tensor:
    mean, variance = features.mean(axes, keepdim=True), features.var(axes, unbiased=False, keepdim=True)
    return (features - mean) / torch.sqrt(variance + 1e-5)


def naive_convolution(features: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Multiply one window at a time, padded so that stride 1 keeps the size."""
    kernel = weight.shape[-1]
    padding = kernel // 2
    padded = torch.nn.functional.pad(features, (padding,) * 4)
    rows = range(0, padded.shape[2] - kernel + 1, stride)
    columns = range(0, padded.shape[3] - kernel + 1, stride)
    result = torch.zeros(len(features), len(weight), len(rows), len(columns))
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            window = padded[:, :, row : row + kernel, column : column + kernel]
            result[:, :, i, j] = window.flatten(1) @ weight.flatten(1).T
    return result


def weights(head: nn.Module) -> list[Tensor]:
    """Return weights and biases of convolutions and linear layers, in order."""
    found = []
    for layer in head.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            found += [parameter.detach() for parameter in layer.parameters(recurse=False)]
    return found


@pytest.mark.parametrize(("final_channels", "stride"), [(8, 2), (4, 1)])
def test_conv_head_computes_the_published_function(final_channels: int, stride: int) -> None:
    with seeded("head"):
        head = conv_head((4, 6, 6), 3, final_channels)
    features = torch.randn(5, 4, 6, 6, generator=generator("features"))
    kernel, first, first_bias, last, last_bias = weights(head)
    assert kernel.shape == (4 * stride, 4, 3, 3)
    maps = batch_normalise(naive_convolution(features, kernel, stride), (0, 2, 3)).relu()
    hidden = (maps.mean((2, 3)) @ first.T + first_bias).relu()
    torch.testing.assert_close(head(features), hidden @ last.T + last_bias, atol=1e-5, rtol=1e-4)


def test_dgl_head_computes_the_published_function() -> None:
    with seeded("head"):
        head = dgl_head((3, 16, 16), 4)
    features = torch.randn(6, 3, 16, 16, generator=generator("features"))
    values = weights(head)
    maps = features.reshape(6, 3, 4, 4, 4, 4).mean((3, 5))
    for kernel in values[:3]:
        maps = batch_normalise(torch.einsum("oc,bchw->bohw", kernel[:, :, 0, 0], maps), (0, 2, 3)).relu()
    hidden = maps.reshape(6, 3, 2, 2, 2, 2).mean((3, 5)).reshape(6, 12)
    for index in range(3, 9, 2):
        hidden = batch_normalise(hidden @ values[index].T + values[index + 1], (0,)).relu()
    torch.testing.assert_close(head(features), hidden @ values[9].T + values[10], atol=1e-4, rtol=1e-4)


def test_imagenet_head_computes_the_published_function() -> None:
    with seeded("head"):
        head = imagenet_head((5, 4, 4), 3)
    maps = features = torch.randn(6, 5, 4, 4, generator=generator("features"))
    *kernels, last, last_bias = weights(head)
    for kernel, stride in zip(kernels, [1, 2, 2, 1], strict=True):
        maps = batch_normalise(naive_convolution(maps, kernel, stride), (0, 2, 3)).relu()
    torch.testing.assert_close(head(features), maps.mean((2, 3)) @ last.T + last_bias, atol=1e-4, rtol=1e-3)


def naive_pool(features: Tensor, pooled: tuple[int, int]) -> Tensor:
    """Average windows whose sides are powers of 2, in maps padded by half a window where they do not divide them."""
    window, padding = [], []
    for size, parts in zip(features.shape[2:], pooled, strict=True):
        side = 1
        while math.ceil(size / side) > parts:
            side *= 2
        window.append(side)
        padding.append(0 if size % side == 0 else side // 2)
    padded = torch.nn.functional.pad(features, (padding[1], padding[1], padding[0], padding[0]))
    result = torch.zeros(*features.shape[:2], *pooled)
    for i in range(pooled[0]):
        for j in range(pooled[1]):
            rows, columns = slice(i * window[0], (i + 1) * window[0]), slice(j * window[1], (j + 1) * window[1])
            result[:, :, i, j] = padded[:, :, rows, columns].mean((2, 3))
    return result


@pytest.mark.parametrize(
    ("shape", "dim_in", "pooled"),
    [
        ((16, 32, 32), 512, (4, 8)),
        ((32, 16, 16), 512, (4, 4)),
        ((64, 8, 8), 512, (2, 4)),
        ((4, 2, 2), 512, (2, 2)),
        ((8, 7, 7), 8, (1, 1)),
        ((8, 7, 7), 100, (2, 4)),
        ((8, 1, 6), 24, (1, 3)),
        ((128, 32, 32), 2048, (4, 4)),
    ],
)
def test_prediction_head_pools_alternately(shape: tuple[int, int, int], dim_in: int, pooled: tuple[int, int]) -> None:
    head = prediction_head(shape, 3, dim_in)
    features = torch.randn(2, *shape, generator=generator("prediction"))
    flat = naive_pool(features, pooled).flatten(1)
    weight, bias = weights(head)
    assert weight.shape == (3, shape[0] * pooled[0] * pooled[1])
    assert not weight.any()
    torch.testing.assert_close(head(features), bias.expand(2, 3))
    with torch.no_grad():
        next(head.parameters()).normal_(generator=generator("weight"))
    torch.testing.assert_close(head(features), flat @ weight.T + bias, atol=1e-4, rtol=1e-4)


def test_prediction_head_refuses_more_channels_than_inputs() -> None:
    with pytest.raises(RecipeError, match=r"prediction_features=512.*1024 channels.*at least 1024"):
        prediction_head((1024, 8, 8), 10, 512)


def test_head_follows_the_image_size() -> None:
    assert count(head_for((16, 32, 32), (3, 32, 32), 10, 64)) == 10_186
    assert count(head_for((512, 28, 28), (3, 224, 224), 1000, 2048)) == 4_643_560
    assert count(head_for((512, 16, 16), (3, 128, 128), 1000, 2048)) == 4_643_560


def test_flat_features_are_taken_by_the_linear_head_only() -> None:
    assert linear_head((7,), 3)(torch.ones(2, 7)).shape == (2, 3)
    builders: list[Callable[[], nn.Module]] = [
        lambda: dgl_head((7,), 3),
        lambda: conv_head((7,), 3, 64),
        lambda: imagenet_head((7,), 3),
        lambda: prediction_head((7,), 3, 512),
        lambda: linear_head((7, 3), 3),
    ]
    for build in builders:
        with pytest.raises(RecipeError, match=r"takes maps \[C, H, W\].*(7,)"):
            build()


def test_convolutions_start_at_fan_out_and_linear_layers_at_the_default_of_torch() -> None:
    with seeded("initialisation"):
        head = imagenet_head((512, 28, 28), 1000)
    for layer in head.modules():
        if isinstance(layer, nn.Conv2d):
            expected = math.sqrt(2 / (layer.kernel_size[0] ** 2 * layer.out_channels))
            assert layer.weight.std().item() == pytest.approx(expected, rel=0.02)
        if isinstance(layer, nn.BatchNorm2d):
            assert bool((layer.weight == 1).all()) and not layer.bias.any()
        if isinstance(layer, nn.Linear):
            assert layer.weight.abs().max().item() == pytest.approx(1 / math.sqrt(2048), rel=1e-3)


def test_equal_streams_give_equal_heads() -> None:
    states = []
    for _ in range(2):
        with seeded(3, "segment0", "head"):
            states.append(conv_head((16, 8, 8), 10, 64).state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_heads_leave_their_input_unchanged() -> None:
    for build in (dgl_head, imagenet_head, linear_head):
        features = torch.randn(3, 8, 8, 8, generator=generator("kept"))
        before = features.clone()
        build((8, 8, 8), 3)(features)
        assert torch.equal(features, before)
