"""Are decoders and heads, evaluated in another order and with less kept, the networks as they are written?"""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.learners.hooks import statistics_untracked
from engine.objectives import Context, Reconstruction, cifar_decoder, conv_head, imagenet_decoder
from engine.objectives.auxiliary_networks import initialise
from engine.objectives.convolutions import Convolution, MeanOfPositions, UpsampledConvolution
from engine.streams import generator, seeded

DOUBLE = torch.float64


class _Resize(nn.Module):
    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, features: Tensor) -> Tensor:
        return F.interpolate(features, size=self.size, mode="bilinear", align_corners=True)


def _written(network: nn.Sequential) -> nn.Sequential:
    """Return the same layers as torch's own, resizing before a convolution, with names and weights kept."""
    layers: list[nn.Module] = []
    for number, layer in enumerate(network):
        if isinstance(layer, Convolution):
            if isinstance(layer, UpsampledConvolution):
                layers[number - 1] = _Resize(layer.size)
            layers.append(
                nn.Conv2d(
                    layer.in_channels,
                    layer.out_channels,
                    layer.kernel_size,
                    layer.stride,
                    layer.padding,
                    bias=layer.bias is not None,
                )
            )
        elif isinstance(layer, MeanOfPositions):
            layers.append(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
        else:
            layers.append(copy.deepcopy(layer))
    written = nn.Sequential(*layers)
    written.load_state_dict(network.state_dict())
    return written.to(next(network.parameters()).dtype)


def _features(*shape: int, dtype: torch.dtype = DOUBLE) -> Tensor:
    return torch.randn(shape, generator=generator("features"), dtype=dtype)


def _run(network: nn.Module, features: Tensor) -> dict[str, Tensor]:
    """Return output, all gradients and all buffers after one step of training."""
    features = features.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    output = network(features)
    given = torch.randn(output.shape, generator=generator("gradient"), dtype=DOUBLE) / output[0, 0].numel()
    output.backward(given.to(output.dtype))
    found = {name: parameter.grad for name, parameter in network.named_parameters()}
    buffers = {name: value for name, value in network.state_dict().items() if name not in found}
    result = {"output": output.detach(), "features": features.grad, **found, **buffers}
    assert all(value is not None for value in result.values())
    return {name: value for name, value in result.items() if value is not None}


def _decoder(make: Callable[..., nn.Sequential], shape: tuple[int, ...], image: tuple[int, int, int]) -> nn.Sequential:
    with seeded("decoder"):
        return make(shape, image)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("make", "shape", "image"),
    [
        (cifar_decoder, (6, 32, 32), (3, 32, 32)),
        (cifar_decoder, (6, 16, 16), (3, 32, 32)),
        (cifar_decoder, (5, 7, 5), (3, 33, 29)),
        (cifar_decoder, (4, 1, 2), (3, 8, 8)),
        (cifar_decoder, (4, 24, 24), (1, 32, 32)),
        (cifar_decoder, (4, 32, 32), (1, 28, 28)),
        (imagenet_decoder, (4, 7, 9), (3, 61, 75)),
    ],
)
def test_decoder_is_the_written_one_to_rounding(
    make: Callable[..., nn.Sequential],
    shape: tuple[int, int, int],
    image: tuple[int, int, int],
    layout: torch.memory_format,
) -> None:
    decoder = _decoder(make, shape, image).double()
    written = _written(decoder)
    features = _features(3, *shape).contiguous(memory_format=layout)
    found, expected = _run(decoder, features), _run(written, features)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        tolerance = 2e-14 if name in ("output", "features") else 1e-12
        torch.testing.assert_close(found[name], value, atol=tolerance * max(float(value.abs().max()), 1.0), rtol=0)
    assert found["output"].is_contiguous(memory_format=layout)
    assert found["features"].is_contiguous(memory_format=layout)


def test_parts_of_a_batch_give_what_the_whole_batch_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = _decoder(cifar_decoder, (6, 8, 8), (3, 32, 32)).double()
    whole = _run(copy.deepcopy(decoder), _features(5, 6, 8, 8))
    monkeypatch.setattr("engine.objectives.convolutions._ELEMENTS_AT_ONCE", 2 * 12 * 32 * 32)
    in_parts = _run(decoder, _features(5, 6, 8, 8))
    for name, value in whole.items():
        torch.testing.assert_close(in_parts[name], value, atol=1e-12, rtol=0)


@pytest.mark.parametrize("final_channels", [4, 16])
@pytest.mark.parametrize("convolutions", [0, 1, 2])
def test_head_is_the_written_one_to_rounding(convolutions: int, final_channels: int) -> None:
    with seeded("head"):
        head = conv_head((4, 9, 8), 3, final_channels, convolutions).double()
    found, expected = (_run(each, _features(5, 4, 9, 8)) for each in (head, _written(head)))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("shape", "image", "sizes", "convolutions"),
    [
        ((16, 8, 8), (3, 32, 32), {0: (32, 32)}, {1: (16, 12, 3), 4: (12, 3, 3)}),
        ((16, 32, 32), (3, 32, 32), {}, {1: (16, 12, 3), 4: (12, 3, 3)}),
        ((16, 56, 56), (3, 224, 224), {3: (112, 112), 7: (224, 224)}, {0: (16, 32, 1), 4: (32, 12, 3), 8: (12, 3, 3)}),
    ],
)
def test_weights_start_as_and_are_called_as_those_of_the_written_layers(
    shape: tuple[int, int, int],
    image: tuple[int, int, int],
    sizes: dict[int, tuple[int, int]],
    convolutions: dict[int, tuple[int, int, int]],
) -> None:
    make = imagenet_decoder if image[1] == 224 else cifar_decoder
    decoder = _decoder(make, shape, image)
    with seeded("decoder"):
        layers: dict[str, nn.Module] = {}
        for number in range(len(decoder)):
            if number in convolutions:
                inputs, outputs, kernel = convolutions[number]
                layers[str(number)] = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
                norm = nn.BatchNorm2d(outputs)
                if number != max(convolutions):
                    layers[str(number + 1)] = norm
        expected = initialise(nn.ModuleDict(layers)).state_dict()
    state = decoder.state_dict()
    assert list(state) == list(expected)
    assert all(torch.equal(state[name], value) for name, value in expected.items())
    assert {n - 1: layer.size for n, layer in enumerate(decoder) if isinstance(layer, UpsampledConvolution)} == sizes


def _saved_bytes(network: nn.Module, features: Tensor) -> int:
    """Return what is kept beyond features and the network's own tensors; each storage once."""
    own = {each.untyped_storage()._cdata for each in (features, *network.parameters(), *network.buffers())}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network(features).sum().backward()
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize(("channels", "size"), [(16, 32), (32, 16), (64, 8)])
def test_on_meta_tensors_a_decoder_keeps_one_map_and_a_head_one_or_none(channels: int, size: int) -> None:
    features = torch.empty(128, channels, size, size, device="meta", requires_grad=True)
    decoder = cifar_decoder((channels, size, size), (3, 32, 32))
    head = conv_head((channels, size, size), 10, final_channels=64)
    written, written_head = _written(decoder).to("meta"), _written(head).to("meta")
    decoder, head = decoder.to("meta"), head.to("meta")
    one_map, statistics = 4 * 128 * 12 * 32 * 32, 4 * 2 * 12
    assert _saved_bytes(decoder, features) == one_map + statistics
    upsampled = 4 * 128 * channels * 32 * 32 if size < 32 else 0
    assert _saved_bytes(written, features) >= 2 * one_map + upsampled
    # Behind the last width the head's convolution has no stride, and what it gives is kept.
    convolved = 4 * 128 * 64 * 8 * 8 if channels == 64 else 0
    assert convolved <= _saved_bytes(head, features) < convolved + 2**18
    assert _saved_bytes(written_head, features) > 2 * 4 * 128 * 64 * 8 * 8


def test_reconstruction_keeps_one_tensor_of_the_image_besides() -> None:
    term = Reconstruction(nn.Identity())

    class Loss(nn.Module):
        def forward(self, logits: Tensor) -> Tensor:
            pixels = torch.empty(8, 3, 16, 16, device="meta")
            return term(logits, Context(torch.empty(8, device="meta"), pixels)).loss

    assert _saved_bytes(Loss(), torch.empty(8, 3, 16, 16, device="meta", requires_grad=True)) == 4 * 8 * 3 * 16 * 16


def test_bfloat16_autocast_is_as_near_to_full_precision_as_the_written_decoder() -> None:
    decoder = _decoder(cifar_decoder, (8, 8, 8), (3, 32, 32))
    features = _features(16, 8, 8, 8, dtype=torch.float32)
    expected = _run(copy.deepcopy(decoder), features)
    runs = []
    for network in (decoder, _written(decoder)):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            runs.append(_run(network, features))
    for name in ("output", "features", "1.weight", "2.weight", "4.weight"):
        assert runs[0][name].dtype == (torch.bfloat16 if name == "output" else torch.float32)
        ours, written = ((run[name].float() - expected[name]).norm() / expected[name].norm() for run in runs)
        assert ours < min(2 * written, 0.1), name


def test_evaluation_uses_running_statistics_and_training_without_tracking_leaves_them() -> None:
    decoder = _decoder(cifar_decoder, (4, 4, 4), (3, 8, 8)).double()
    features = _features(6, 4, 4, 4)
    _run(decoder, features)
    before = {name: value.clone() for name, value in decoder.state_dict().items()}
    with statistics_untracked(decoder):
        _run(decoder, features)
    assert all(torch.equal(value, before[name]) for name, value in decoder.state_dict().items())
    written = _written(decoder).eval()
    torch.testing.assert_close(decoder.eval()(features), written(features), atol=1e-13, rtol=0)


def test_a_norm_of_another_kind_is_left_to_itself() -> None:
    class Doubling(nn.modules.batchnorm._BatchNorm):
        def forward(self, input: Tensor) -> Tensor:
            return 2 * input

        def _check_input_dim(self, input: Tensor) -> None: ...

    decoder = _decoder(cifar_decoder, (4, 4, 4), (3, 8, 8)).double()
    decoder[2] = Doubling(12)
    features = _features(2, 4, 4, 4)
    expected = decoder[4](2 * decoder[1](features).relu())
    torch.testing.assert_close(decoder(features), expected, atol=1e-13, rtol=0)
