"""Is nothing kept but what must be, and is everything else what it would be without recomputation?"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from engine.errors import RecipeError
from engine.learners.memory import MemoryMeter
from engine.learners.recomputation import Recomputation, grouped
from engine.recipes import Numerics

CPU = torch.device("cpu")
ROWS, CHANNELS, SIDE = 4, 8, 16
MAP = 4 * ROWS * CHANNELS * SIDE * SIDE
# Mean and scale of a batch norm's batch.
STATISTICS = 2 * 4 * CHANNELS


class Block(nn.Module):
    """Two convolutions and a shortcut: autograd keeps the input, and four maps of its size, the output among them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False), nn.BatchNorm2d(CHANNELS)
        self.conv2, self.norm2 = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False), nn.BatchNorm2d(CHANNELS)
        self.relu = nn.ReLU(inplace=True)
        self.calls = 0

    def forward(self, features: Tensor) -> Tensor:
        self.calls += 1
        branch = self.norm2(self.conv2(self.relu(self.norm1(self.conv1(features)))))
        branch += features
        output: Tensor = self.relu(branch)
        return output


def network(count: int, block: Callable[[], nn.Module] = Block) -> list[nn.Module]:
    torch.manual_seed(0)
    return [block() for _ in range(count)]


def images() -> Tensor:
    return torch.randn(ROWS, CHANNELS, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


@contextlib.contextmanager
def without_collector() -> Iterator[None]:
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def run(blocks: list[nn.Module], size: int, keeps_last: bool = False) -> tuple[Tensor, MemoryMeter]:
    own = [tensor for block in blocks for tensor in (*block.parameters(), *block.buffers())]
    memory = MemoryMeter(own, Numerics(recompute=max(size, 1)))
    recomputation = Recomputation(size, CPU, contextlib.nullcontext, memory)
    with memory.counting():
        return recomputation.run(blocks, images(), keeps_last=keeps_last), memory


def gradients(blocks: list[nn.Module], output: Tensor, **settings: Any) -> list[Tensor]:
    output.square().sum().backward(**settings)
    found = [p.grad.clone() for block in blocks for p in block.parameters() if p.grad is not None]
    for block in blocks:
        block.zero_grad()
    return found


def test_a_segment_keeps_the_inputs_of_its_blocks_and_one_block() -> None:
    blocks = network(6)
    with without_collector():
        output, memory = run(blocks, 1)
        live = memory.live
        assert live is not None
        # The inputs of all blocks, and the last one's output.
        assert live.bytes == 7 * MAP
        gradients(blocks, output)
        # Beside the inputs three maps of the last block, whose output its last operation was done with.
        assert live.peak == 9 * MAP + 2 * STATISTICS
        # Nothing waits for the collector of cycles.
        assert live.bytes == 0


@pytest.mark.parametrize(("size", "peak"), [(2, 3 + 7), (3, 2 + 11), (4, 1 + 15), (6, 1 + 23), (100, 1 + 23)])
def test_groups_keep_their_inputs_and_one_group(size: int, peak: int) -> None:
    blocks = network(6)
    output, memory = run(blocks, size)
    gradients(blocks, output)
    assert memory.live is not None
    assert MAP * peak <= memory.live.peak <= MAP * peak + 12 * STATISTICS


def test_the_last_group_of_a_network_is_not_run_again() -> None:
    blocks = [*network(4), nn.Flatten()]
    output, _ = run(blocks, 1, keeps_last=True)
    gradients(blocks, output)
    assert [block.calls for block in blocks if isinstance(block, Block)] == [2, 2, 2, 1]
    assert [len(group) for group in grouped(blocks, 1, keeps_last=True)] == [1, 1, 1, 2]
    assert [len(group) for group in grouped(blocks, 2, keeps_last=True)] == [2, 3]
    assert [len(group) for group in grouped(blocks, 2, keeps_last=False)] == [2, 2, 1]


@pytest.mark.parametrize("size", [1, 2, 5])
def test_gradients_and_statistics_are_those_of_plain_training(size: int) -> None:
    plain, again = network(5), network(5)
    features = images()
    for block in plain:
        features = block(features)
    output, _ = run(again, size)
    assert output.equal(features)
    expected = gradients(plain, features)
    # A graph that is kept can be gone through twice.
    for settings in ({"retain_graph": True}, {}):
        for one, other in zip(expected, gradients(again, output, **settings), strict=True):
            assert one.equal(other)
    for one, other in zip(plain, again, strict=True):
        for name, buffer in one.named_buffers():
            assert buffer.equal(other.get_buffer(name)), name


def test_nothing_is_run_again_where_nothing_learns() -> None:
    blocks = network(2)
    for block in blocks:
        block.requires_grad_(False)
    output, memory = run(blocks, 1)
    assert not output.requires_grad
    assert memory.live is not None and memory.live.bytes == 0
    with torch.no_grad():
        run(network(2), 1)


def test_random_numbers_are_drawn_again() -> None:
    blocks = [nn.Sequential(nn.Dropout(0.5), nn.Conv2d(CHANNELS, CHANNELS, 1)) for _ in range(3)]
    torch.manual_seed(3)
    features = images()
    for block in blocks:
        features = block(features)
    expected = gradients(list(blocks), features)
    torch.manual_seed(3)
    output, _ = run(list(blocks), 1)
    ahead = torch.get_rng_state()
    assert all(one.equal(other) for one, other in zip(expected, gradients(list(blocks), output), strict=True))
    assert torch.get_rng_state().equal(ahead)


def test_a_block_that_changes_its_input_is_named() -> None:
    class Overwriting(nn.Conv2d):
        def forward(self, features: Tensor) -> Tensor:
            return super().forward(features.add_(1))

    with pytest.raises(RecipeError, match=r"numerics\.recompute: .*Overwriting.*in place.*numerics\.recompute=none"):
        run([Overwriting(CHANNELS, CHANNELS, 1)], 1)
