"""Are saved activations counted as one would by hand?"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.learners.memory import SavedActivations, tensor_bytes

FLOAT = 4


def counted(module: nn.Module, inputs: Tensor) -> int:
    saved = SavedActivations(module.parameters())
    with saved.counting():
        module(inputs)
    return saved.bytes


def norm_vectors(channels: int) -> int:
    """Mean and deviation of the batch, and the running ones, which batch norm keeps in training."""
    return 4 * channels * FLOAT


class Block(nn.Module):
    """conv-BN-ReLU-conv-BN, add, ReLU: what CIFAR ResNets are made of."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = functional.relu(self.norm1(self.conv1(inputs)), inplace=True)
        return functional.relu(self.norm2(self.conv2(hidden)) + inputs, inplace=True)


def test_a_stem() -> None:
    stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
    images, maps = 2 * 3 * 8 * 8 * FLOAT, 2 * 4 * 8 * 8 * FLOAT
    # The images for the convolution, its output for batch norm, and the ReLU's output.
    assert counted(stem, torch.rand(2, 3, 8, 8)) == images + 2 * maps + norm_vectors(4)


def test_a_residual_block_keeps_its_input_and_four_maps() -> None:
    maps = 3 * 6 * 10 * 10 * FLOAT
    assert counted(Block(6), torch.rand(3, 6, 10, 10)) == maps + 4 * maps + 2 * norm_vectors(6)


def test_blocks_in_a_row_share_what_lies_between_them() -> None:
    maps = 3 * 6 * 10 * 10 * FLOAT
    chain = nn.Sequential(Block(6), Block(6), Block(6))
    assert counted(chain, torch.rand(3, 6, 10, 10)) == maps + 3 * (4 * maps + 2 * norm_vectors(6))


def test_twice_the_batch_keeps_twice_the_maps() -> None:
    small, large = counted(Block(6), torch.rand(3, 6, 8, 8)), counted(Block(6), torch.rand(6, 6, 8, 8))
    vectors = 2 * norm_vectors(6)
    assert large - vectors == 2 * (small - vectors)


def test_parameters_are_left_out_and_one_storage_counts_once() -> None:
    linear = nn.Linear(1000, 5, bias=False)
    inputs = torch.rand(4, 1000, requires_grad=True)
    saved = SavedActivations(linear.parameters())
    with saved.counting():
        linear(inputs)
        linear(inputs[:2])
        linear(inputs.view(4, 1000))
    assert saved.bytes == 4 * 1000 * FLOAT


def test_a_part_keeps_its_whole_storage_alive() -> None:
    linear = nn.Linear(1000, 5, bias=False)
    assert counted(linear, torch.rand(4, 1000)[:2]) == 4 * 1000 * FLOAT


def test_nothing_is_kept_without_a_graph() -> None:
    block = Block(4)
    saved = SavedActivations(block.parameters())
    with saved.counting(), torch.no_grad():
        block(torch.rand(2, 4, 8, 8))
    assert saved.bytes == 0


def test_only_the_block_is_counted() -> None:
    block = Block(4)
    saved = SavedActivations(block.parameters())
    block(torch.rand(2, 4, 8, 8))
    with saved.counting():
        pass
    block(torch.rand(2, 4, 8, 8))
    assert saved.bytes == 0


def test_counting_does_not_change_gradients() -> None:
    block, inputs = Block(4), torch.rand(2, 4, 8, 8)

    def gradient(count: bool) -> list[Tensor]:
        block.zero_grad()
        if count:
            with SavedActivations(block.parameters()).counting():
                loss = block(inputs).square().sum()
        else:
            loss = block(inputs).square().sum()
        loss.backward()
        return [parameter.grad.clone() for parameter in block.parameters() if parameter.grad is not None]

    for one, other in zip(gradient(True), gradient(False), strict=True):
        assert torch.equal(one, other)


def test_tensor_bytes() -> None:
    tensors = [torch.zeros(3, 5), torch.zeros(7, dtype=torch.int64), torch.zeros(2, dtype=torch.bfloat16)]
    assert tensor_bytes(tensors) == 3 * 5 * 4 + 7 * 8 + 2 * 2
    assert tensor_bytes([]) == 0
