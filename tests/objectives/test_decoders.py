"""Are the decoders the published ones, and do they give an image for every cut?"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from engine.errors import RecipeError
from engine.objectives import cifar_decoder, decoder_for, dense_decoder, imagenet_decoder
from engine.streams import generator, seeded


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def multiply_adds(module: nn.Sequential, shape: tuple[int, ...]) -> int:
    """Count as published: every convolution at the size of its output, whichever way it is evaluated."""
    sizes: list[int] = []
    for layer in convolutions(module):
        layer.register_forward_hook(lambda _layer, _inputs, output: sizes.append(output[0, 0].numel()))
    module.to("meta").eval()(torch.zeros(1, *shape, device="meta"))
    return sum(size * layer.weight.numel() for size, layer in zip(sizes, convolutions(module), strict=True))


def naive_resize(features: Tensor, size: tuple[int, int]) -> Tensor:
    """Interpolate one output pixel at a time, the corners of input and output on each other."""
    height, width = features.shape[2:]
    result = torch.zeros(*features.shape[:2], *size)
    for row in range(size[0]):
        y = row * (height - 1) / (size[0] - 1)
        top = min(int(y), max(height - 2, 0))
        bottom = min(top + 1, height - 1)
        for column in range(size[1]):
            x = column * (width - 1) / (size[1] - 1)
            left = min(int(x), max(width - 2, 0))
            right = min(left + 1, width - 1)
            down, across = y - top, x - left
            result[:, :, row, column] = (1 - down) * (
                (1 - across) * features[:, :, top, left] + across * features[:, :, top, right]
            ) + down * ((1 - across) * features[:, :, bottom, left] + across * features[:, :, bottom, right])
    return result


def naive_convolution(features: Tensor, layer: nn.Conv2d) -> Tensor:
    """Add up one kernel position at a time."""
    assert layer.bias is not None
    kernel = layer.kernel_size[0]
    height, width = features.shape[2:]
    padded = torch.nn.functional.pad(features, (kernel // 2,) * 4)
    result = layer.bias[None, :, None, None].expand(len(features), -1, height, width).clone()
    for row in range(kernel):
        for column in range(kernel):
            window = padded[:, :, row : row + height, column : column + width]
            result += torch.einsum("oc,bchw->bohw", layer.weight[:, :, row, column], window)
    return result


def normalise(features: Tensor) -> Tensor:
    mean = features.mean((0, 2, 3), keepdim=True)
    variance = features.var((0, 2, 3), unbiased=False, keepdim=True)
    return (features - mean) / torch.sqrt(variance + 1e-5)


def convolutions(module: nn.Module) -> list[nn.Conv2d]:
    return [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]


@pytest.mark.parametrize(
    ("channels", "size", "parameters", "small", "large"),
    [(16, 32, 2_091, 2.10e6, 18.9e6), (32, 16, 3_819, 3.87e6, 34.8e6), (64, 8, 7_275, 7.41e6, 66.7e6)],
)
def test_cifar_decoder_has_the_published_size(
    channels: int, size: int, parameters: int, small: float, large: float
) -> None:
    shape, stl_shape = (channels, size, size), (channels, 3 * size, 3 * size)
    assert count(cifar_decoder(shape, (3, 32, 32))) == parameters
    assert multiply_adds(cifar_decoder(shape, (3, 32, 32)), shape) == pytest.approx(small, rel=5e-3)
    assert multiply_adds(cifar_decoder(stl_shape, (3, 96, 96)), stl_shape) == pytest.approx(large, rel=5e-3)


def test_width_is_the_number_of_hidden_channels() -> None:
    decoder = cifar_decoder((16, 8, 8), (1, 28, 28), width=64)
    assert [(layer.in_channels, layer.out_channels) for layer in convolutions(decoder)] == [(16, 64), (64, 1)]


def test_imagenet_decoder_has_the_published_size() -> None:
    decoder = imagenet_decoder((512, 28, 28), (3, 224, 224))
    assert count(decoder) == 106_699
    assert multiply_adds(decoder, (512, 28, 28)) == pytest.approx(226.6e6, rel=1e-3)


@pytest.mark.parametrize("shape", [(4, 8, 8), (4, 4, 4), (4, 3, 5), (4, 1, 1)])
def test_cifar_decoder_computes_the_published_function(shape: tuple[int, int, int]) -> None:
    with seeded("decoder"):
        decoder = cifar_decoder(shape, (3, 8, 8), width=5)
    features = torch.randn(3, *shape, generator=generator("features"))
    first, last = convolutions(decoder)
    with torch.no_grad():
        hidden = normalise(naive_convolution(naive_resize(features, (8, 8)), first)).relu()
        torch.testing.assert_close(decoder(features), naive_convolution(hidden, last), atol=1e-4, rtol=1e-4)


def test_imagenet_decoder_computes_the_published_function() -> None:
    with seeded("decoder"):
        decoder = imagenet_decoder((6, 2, 2), (3, 16, 16))
    features = torch.randn(3, 6, 2, 2, generator=generator("features"))
    first, second, third, last = convolutions(decoder)
    with torch.no_grad():
        maps = normalise(naive_convolution(features, first)).relu()
        maps = normalise(naive_convolution(naive_resize(maps, (4, 4)), second)).relu()
        maps = normalise(naive_convolution(naive_resize(maps, (8, 8)), third)).relu()
        expected = naive_convolution(naive_resize(maps, (16, 16)), last)
        torch.testing.assert_close(decoder(features), expected, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("size", "channels"),
    [
        (224, [(64, 12), (12, 3)]),
        (112, [(64, 12), (12, 3)]),
        (56, [(64, 32), (32, 12), (12, 3)]),
        (28, [(64, 128), (128, 32), (32, 12), (12, 3)]),
        (14, [(64, 128), (128, 128), (128, 32), (32, 12), (12, 3)]),
        (7, [(64, 128), (128, 128), (128, 128), (128, 32), (32, 12), (12, 3)]),
    ],
)
def test_imagenet_decoder_follows_the_resolution_of_the_features(size: int, channels: list[tuple[int, int]]) -> None:
    decoder = decoder_for((64, size, size), (3, 224, 224))
    assert [(layer.in_channels, layer.out_channels) for layer in convolutions(decoder)] == channels
    assert decoder.to("meta")(torch.zeros(2, 64, size, size, device="meta")).shape == (2, 3, 224, 224)


@pytest.mark.parametrize("image_shape", [(3, 32, 32), (1, 28, 28), (3, 96, 128), (3, 128, 96), (3, 299, 299)])
@pytest.mark.parametrize("size", [(1, 1), (4, 4), (7, 5), (32, 32)])
def test_output_is_as_large_as_the_image(image_shape: tuple[int, int, int], size: tuple[int, int]) -> None:
    decoder = decoder_for((16, *size), image_shape).to("meta")
    assert decoder(torch.zeros(2, 16, *size, device="meta")).shape == (2, *image_shape)


def test_decoder_follows_the_image_size() -> None:
    assert count(decoder_for((32, 16, 16), (3, 32, 32))) == 3_819
    assert count(decoder_for((32, 16, 16), (3, 127, 256))) == 3_819
    assert convolutions(decoder_for((512, 16, 16), (3, 128, 128)))[0].kernel_size == (1, 1)


@pytest.mark.parametrize(("height", "width"), [(512, 1024), (72, 96)])
def test_label_maps_get_the_decoder_published_for_cityscapes_whatever_the_crop(height: int, width: int) -> None:
    with torch.device("meta"):
        decoder = dense_decoder((1024, height // 8, width // 8), (3, height, width))
    found = [(each.in_channels, each.out_channels, each.kernel_size) for each in convolutions(decoder)]
    assert found == [(1024, 128, (1, 1)), (128, 32, (3, 3)), (32, 12, (3, 3)), (12, 3, (3, 3))]


def test_the_decoder_of_label_maps_starts_as_torch_does() -> None:
    with seeded("initialisation"):
        first = convolutions(dense_decoder((512, 8, 8), (3, 64, 64)))[0]
    assert float(first.weight.detach().abs().max()) <= 1 / math.sqrt(512)
    with seeded("initialisation"):
        assert float(convolutions(imagenet_decoder((512, 8, 8), (3, 64, 64)))[0].weight.detach().abs().max()) > 0.1


def test_flat_features_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"the decoder.*\(64,\)"):
        dense_decoder((64,), (3, 32, 32))
    for image_shape in [(3, 32, 32), (3, 224, 224)]:
        with pytest.raises(RecipeError, match=r"the decoder.*\(64,\)"):
            decoder_for((64,), image_shape)


def test_convolutions_start_at_fan_out() -> None:
    with seeded("initialisation"):
        decoder = imagenet_decoder((512, 28, 28), (3, 224, 224))
    for layer in convolutions(decoder)[:2]:
        expected = math.sqrt(2 / (layer.kernel_size[0] ** 2 * layer.out_channels))
        assert layer.weight.std().item() == pytest.approx(expected, rel=0.02)
