"""Recomputation of blocks: what a backward pass needs is computed anew, instead of being kept from the forward pass.

Only the input of a group of blocks is kept (Chen et al. 2016, arXiv 1604.06174). When the backward pass reaches the
group, its blocks run forward once more, from the same random numbers and in the same precision, and give autograd what
it had saved the first time. The graph is that of the first pass, so hooks and losses on features inside a group see
what they would see without all this, and no number differs.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from engine.errors import RecipeError
from engine.learners.hooks import statistics_untracked
from engine.learners.memory import MemoryMeter
from engine.streams import continued, positions

Surroundings = Callable[[], contextlib.AbstractContextManager[object]]


class Recomputation:
    """Runs blocks one after the other, and keeps the inputs of groups of them.

    Args:
        blocks: of a group, from the first block on; the last group may have fewer.
        device: whose random numbers are drawn again.
        autocast: a block in which the networks compute in the recipe's precision.
        memory: is told what is kept.
    """

    def __init__(self, blocks: int, device: torch.device, autocast: Surroundings, memory: MemoryMeter) -> None:
        self._size, self._device, self._autocast, self._memory = blocks, device, autocast, memory

    def run(
        self,
        blocks: Sequence[nn.Module],
        features: Tensor,
        surroundings: Surroundings = contextlib.nullcontext,
        keeps_last: bool = False,
    ) -> Tensor:
        """Return what blocks give, one after the other.

        Args:
            blocks: each takes the output of the one before.
            features: what the first takes, [B, ...]; never written to.
            surroundings: what must hold around a block whenever it is run; the caller has entered it for now.
            keeps_last: whether the last group is not run again, as its backward pass comes at once.

        Raises:
            RecipeError: a block changes its input in place, so that it could not be run from it again.
        """
        groups = grouped(blocks, self._size, keeps_last)
        if not torch.is_grad_enabled():
            return _through(blocks, features)
        for number, group in enumerate(groups, start=1):
            if keeps_last and number == len(groups):
                return _through(group, features)
            features = self._group(group, features, surroundings)
        return features

    def _group(self, group: Sequence[nn.Module], features: Tensor, surroundings: Surroundings) -> Tensor:
        run = _Group(group, features, self._again(surroundings), self._memory)
        version = features._version
        with torch.autograd.graph.saved_tensors_hooks(run.pack, _unpacked):
            output = _through(group, features)
        if features._version != version:
            raise RecipeError(
                f"numerics.recompute: a block of type {type(group[0]).__name__} changes its input in place, so it "
                "cannot be run from it again; make the first operation of each block out of place, or set "
                "numerics.recompute=none"
            )
        return output

    def _again(self, surroundings: Surroundings) -> Callable[[Sequence[nn.Module], Tensor], None]:
        """Return a function that runs blocks again, from where the random numbers are now."""
        since, device, autocast = positions(self._device), self._device, self._autocast

        def run(blocks: Sequence[nn.Module], features: Tensor) -> None:
            with (
                torch.enable_grad(),
                autocast(),
                statistics_untracked(*blocks),
                continued(since, device),
                surroundings(),
            ):
                _through(blocks, features)

        return run


def grouped(blocks: Sequence[nn.Module], size: int, keeps_last: bool) -> list[Sequence[nn.Module]]:
    """Return consecutive groups of so many blocks.

    Args:
        blocks: to be divided.
        size: blocks of each group; the last may have fewer.
        keeps_last: whether the last group is kept; the classifier then counts as a part of the block before it.
    """
    units = [blocks[index : index + 1] for index in range(len(blocks))]
    if keeps_last and len(units) > 1:
        units[-2:] = [blocks[-2:]]
    return [
        [block for unit in units[start : start + size] for block in unit] for start in range(0, len(units), size)
    ]


class _Group:
    """What is kept of a group: its input, and once it has been run again all that is still asked for.

    Autograd holds a `_Saved` in the place of each tensor, and each of these holds the group.
    """

    def __init__(
        self,
        blocks: Sequence[nn.Module],
        features: Tensor,
        again: Callable[[Sequence[nn.Module], Tensor], None],
        memory: MemoryMeter,
    ) -> None:
        self._blocks, self._again, self._memory = blocks, again, memory
        # Without its graph: what follows is that of a run of its own.
        self._input, self._needs_gradient = features.detach(), features.requires_grad
        self._followed = memory.follow(self._input)
        self._saved: list[weakref.ref[_Saved]] = []
        self._buffers = {_storage(buffer) for block in blocks for buffer in block.buffers()}

    def _is_there_anyway(self, tensor: Tensor) -> bool:
        # A batch norm has its running statistics saved, but not in the second pass, which does not update them.
        return isinstance(tensor, nn.Parameter) or _storage(tensor) in self._buffers

    def pack(self, tensor: Tensor) -> _Saved | Tensor:
        if self._is_there_anyway(tensor):
            return tensor
        saved = _Saved(self)
        self._saved.append(weakref.ref(saved))
        return saved

    def fill(self) -> None:
        """Run the blocks again, and give what they save to those that wait for it."""
        found: list[Tensor] = []

        def collect(tensor: Tensor) -> Tensor:
            if not self._is_there_anyway(tensor):
                found.append(tensor.detach())
            return tensor

        features = self._input.detach().requires_grad_(self._needs_gradient)
        with torch.autograd.graph.saved_tensors_hooks(collect, _never):
            self._again(self._blocks, features)
        assert len(found) == len(self._saved), f"{len(found)} tensors the second time, {len(self._saved)} the first"
        for reference in self._saved:
            # Let go of, one by one, what nobody waits for any more.
            tensor, saved = found.pop(0), reference()
            if saved is not None:
                saved.tensor, saved.followed = tensor, self._memory.follow(tensor)


class _Saved:
    """Stands in for a saved tensor until the backward pass asks for it; autograd drops it when it frees the graph."""

    def __init__(self, group: _Group) -> None:
        self._group = group
        self.tensor: Tensor | None = None
        self.followed: object = None

    def unpack(self) -> Tensor:
        if self.tensor is None:
            self._group.fill()
        assert self.tensor is not None
        return self.tensor


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _unpacked(saved: _Saved | Tensor) -> Tensor:
    return saved.unpack() if isinstance(saved, _Saved) else saved


def _never(tensor: Any) -> Tensor:
    raise AssertionError("nothing goes backward through a second pass")


def _through(blocks: Sequence[nn.Module], features: Tensor) -> Tensor:
    for block in blocks:
        features = block(features)
    return features
