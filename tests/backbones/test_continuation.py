"""Is each kind of layer made again as wide as it should be, and is what cannot be made again refused?"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from engine.backbones.branch_weights import draw_weights
from engine.backbones.cifar_resnet import PaddedIdentity, PooledIdentity
from engine.backbones.continuation import continued
from engine.backbones.densenet import transition
from engine.errors import RecipeError


class Residual(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, features: Tensor) -> Tensor:
        return features + self.inner(features)


class Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, features: Tensor) -> Tensor:
        return features * self.scale


def encoder(hidden: int) -> nn.Module:
    return nn.TransformerEncoderLayer(8, 2, dim_feedforward=hidden, batch_first=True, norm_first=True)


# A block, the shape that it reads in the branch, the factor, the same block as it is made by hand, and its output.
CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int, Callable[[], nn.Module], tuple[int, ...]]] = {
    "convolution": (
        lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1),
        (5, 9, 9),
        2,
        lambda: nn.Conv2d(5, 12, 3, stride=2, padding=1),
        (12, 5, 5),
    ),
    "depthwise convolution": (
        lambda: nn.Conv2d(4, 8, 3, groups=4, bias=False),
        (6, 5, 5),
        3,
        lambda: nn.Conv2d(6, 12, 3, groups=6, bias=False),
        (12, 3, 3),
    ),
    "convolution of one channel": (lambda: nn.Conv2d(1, 4, 1), (1, 3, 3), 2, lambda: nn.Conv2d(1, 8, 1), (8, 3, 3)),
    "grouped convolution": (
        lambda: nn.Conv2d(8, 16, 1, groups=4),
        (16, 3, 3),
        2,
        lambda: nn.Conv2d(16, 32, 1, groups=8),
        (32, 3, 3),
    ),
    "layers one after the other": (
        lambda: nn.Sequential(nn.Conv2d(4, 6, 1), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(6, 2, 1)),
        (3, 3, 3),
        2,
        lambda: nn.Sequential(nn.Conv2d(3, 12, 1), nn.BatchNorm2d(12), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(12, 4, 1)),
        (4, 3, 3),
    ),
    "statistics without weights": (
        lambda: nn.BatchNorm2d(4, affine=False),
        (6, 3, 3),
        2,
        lambda: nn.BatchNorm2d(6, affine=False),
        (6, 3, 3),
    ),
    "weights without statistics": (
        lambda: nn.BatchNorm2d(4, track_running_stats=False),
        (6, 3, 3),
        2,
        lambda: nn.BatchNorm2d(6, track_running_stats=False),
        (6, 3, 3),
    ),
    "group norm": (lambda: nn.GroupNorm(2, 4), (8, 3, 3), 1, lambda: nn.GroupNorm(2, 8), (8, 3, 3)),
    "perceptron": (
        lambda: nn.Sequential(nn.Linear(4, 6, bias=False), nn.BatchNorm1d(6), nn.LayerNorm(6), nn.GELU()),
        (5,),
        2,
        lambda: nn.Sequential(nn.Linear(5, 12, bias=False), nn.BatchNorm1d(12), nn.LayerNorm(12), nn.GELU()),
        (12,),
    ),
    "layer norm of an image": (
        lambda: nn.LayerNorm((4, 3, 3), bias=False),
        (6, 3, 3),
        2,
        lambda: nn.LayerNorm((6, 3, 3), bias=False),
        (6, 3, 3),
    ),
    "transition with compression": (lambda: transition(8, 2), (7, 4, 4), 1, lambda: transition(7, 2), (3, 2, 2)),
    "transition without compression": (lambda: transition(8, 1), (7, 4, 4), 1, lambda: transition(7, 1), (7, 2, 2)),
    "zero-padded shortcut": (
        lambda: PaddedIdentity(4, 8, 2),
        (6, 5, 5),
        2,
        lambda: PaddedIdentity(6, 16, 2),
        (16, 3, 3),
    ),
    "pooled shortcut": (lambda: PooledIdentity(4, 8, 2), (6, 5, 5), 2, lambda: PooledIdentity(6, 16, 2), (16, 3, 3)),
    "transformer layer": (
        lambda: encoder(12),
        (7, 8),
        2,
        lambda: encoder(24),
        (7, 8),
    ),
    "residual block of the same width": (
        lambda: Residual(nn.Conv2d(4, 4, 3, padding=1)),
        (4, 5, 5),
        1,
        lambda: Residual(nn.Conv2d(4, 4, 3, padding=1)),
        (4, 5, 5),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_block_made_again_is_the_block_made_by_hand(case: str) -> None:
    make, shape, factor, by_hand, out_shape = CASES[case]
    block, expected = make(), by_hand()
    before = {key: tensor.clone() for key, tensor in block.state_dict().items()}
    copied, out = continued("block", block, torch.empty(2, *shape, device="meta"), factor)
    assert out.is_meta and tuple(out.shape) == (2, *out_shape)
    assert all(tensor.is_meta for tensor in copied.state_dict().values())
    assert repr(copied) == repr(expected)
    copied.to_empty(device="cpu")
    draw_weights(copied, "own.py:network")
    assert {key: tensor.shape for key, tensor in copied.state_dict().items()} == {
        key: tensor.shape for key, tensor in expected.state_dict().items()
    }
    expected.load_state_dict(copied.state_dict())
    features = torch.rand(2, *shape)
    assert torch.equal(copied.eval()(features), expected.eval()(features))
    assert all(torch.equal(tensor, before[key]) for key, tensor in block.state_dict().items())
    assert not any(module._forward_pre_hooks for module in (*copied.modules(), *block.modules()))


def test_layers_that_are_used_twice_are_sized_once() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.widen, self.keep = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)

        def forward(self, features: Tensor) -> Tensor:
            return self.keep(self.keep(self.widen(features)))

    copied, out = continued("block", Twice(), torch.empty(2, 5, 3, 3, device="meta"), 2)
    assert tuple(out.shape) == (2, 8, 3, 3)
    assert [tuple(parameter.shape) for parameter in copied.parameters()] == [(8, 5, 1, 1), (8,), (8, 8, 1, 1), (8,)]


def test_frozen_weights_stay_frozen() -> None:
    block = nn.Sequential(nn.Conv2d(3, 4, 1).requires_grad_(False), nn.Conv2d(4, 4, 1))
    copied, _ = continued("block", block, torch.empty(2, 3, 3, 3, device="meta"), 2)
    assert [parameter.requires_grad for parameter in copied.parameters()] == [False, False, True, True]


def test_statistics_start_at_mean_zero_and_variance_one() -> None:
    copied, _ = continued("block", nn.BatchNorm2d(4), torch.empty(2, 6, 3, 3, device="meta"), 1)
    copied.to_empty(device="cpu")
    for tensor in copied.state_dict().values():
        tensor.fill_(7)
    draw_weights(copied, "resnet8")
    state = {key: tensor.tolist() for key, tensor in copied.state_dict().items()}
    assert state == {
        "weight": [1.0] * 6,
        "bias": [0.0] * 6,
        "running_mean": [0.0] * 6,
        "running_var": [1.0] * 6,
        "num_batches_tracked": 0,
    }


@pytest.mark.parametrize(
    ("block", "shape", "parts"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 1), Scale()), (3, 3, 4), ("Scale with 'scale'", "Conv2d, Linear")),
        (Residual(nn.Conv2d(4, 4, 1)), (4, 3, 3), ("2 times as wide", "(4, 3, 3)")),
        (nn.Sequential(nn.LayerNorm(4), nn.MultiheadAttention(4, 2)), (3, 4), ("MultiheadAttention", "in_proj_weight")),
        (encoder(12), (7, 6), ("2 times as wide", "(7, 6)")),
        (nn.Conv2d(8, 8, 1, groups=4), (7, 3, 3), ("(7, 3, 3)",)),
        (nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)), (4,), ("ParametrizedLinear with",)),
    ],
)
def test_what_cannot_be_made_again_is_refused_with_a_remedy(
    block: nn.Module, shape: tuple[int, ...], parts: tuple[str, ...]
) -> None:
    with pytest.raises(RecipeError) as raised:
        continued("block", block, torch.empty(2, *shape, device="meta"), 2)
    for part in ("method.shape=rich", "block 'block'", "Set method.shape=linear", *parts):
        assert part in str(raised.value)


def test_a_pooled_identity_is_the_mean_of_what_is_there_and_zeros() -> None:
    features = torch.rand(2, 3, 5, 4, dtype=torch.float64)
    out = PooledIdentity(3, 5, 2)(features)
    assert tuple(out.shape) == (2, 5, 3, 2)
    for row in range(3):
        for column in range(2):
            window = features[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            torch.testing.assert_close(out[:, :3, row, column], window.mean(dim=(2, 3)))
    assert (out[:, 3:] == 0).all()
    assert torch.equal(PooledIdentity(3, 3, 1)(features), features)
