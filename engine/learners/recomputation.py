"""Recomputation of blocks: what a backward pass needs is computed anew, instead of being kept from the forward pass.

Only inputs and outputs of groups of blocks are kept (Chen et al. 2016, arXiv 1604.06174). When the backward pass
reaches a group, its blocks run forward once more, from the same random numbers and in the same precision, until
autograd has what it had saved the first time. The graph is that of the first pass, so hooks and losses on features
inside a group see what they would see without all this, and no number differs.
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
        run.keep_output(output)
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
    return [[block for unit in units[start : start + size] for block in unit] for start in range(0, len(units), size)]


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
        """Return what autograd holds instead of a tensor."""
        if self._is_there_anyway(tensor):
            return tensor
        saved = _Saved(self, tensor)
        self._saved.append(weakref.ref(saved))
        return saved

    def keep_output(self, output: Tensor) -> None:
        """Keep what the group gives where autograd asks for it: the next group does so anyway, as its input.

        Most blocks end with a ReLU that needs its own result alone, so that it does not have to be run again.
        """
        for reference in self._saved:
            saved = reference()
            if saved is not None and saved.place is not None and saved.place.holds(output):
                saved.take(output.detach(), self._memory)

    def fill(self) -> None:
        """Run the blocks again as far as need be, and give what they save to those that wait for it."""
        waiting = {number: saved for number, reference in enumerate(self._saved) if (saved := reference()) is not None}
        last = max(number for number, saved in waiting.items() if saved.tensor is None)
        found: dict[int, Tensor] = {}
        count = 0

        def collect(tensor: Tensor) -> None:
            nonlocal count
            if not self._is_there_anyway(tensor):
                if count in waiting and waiting[count].tensor is None:
                    found[count] = tensor.detach()
                count += 1
                if count > last:
                    raise _Enough

        features = self._input.detach().requires_grad_(self._needs_gradient)
        with contextlib.suppress(_Enough), torch.autograd.graph.saved_tensors_hooks(collect, _never):
            self._again(self._blocks, features)
        assert count > last, f"{count} tensors the second time, more than {last} the first"
        for number, tensor in found.items():
            waiting[number].take(tensor, self._memory)
        waiting.clear()
        found.clear()


class _Saved:
    """Stands in for a saved tensor until the backward pass asks for it; autograd drops it when it frees the graph."""

    def __init__(self, group: _Group, tensor: Tensor) -> None:
        self._group = group
        self.place: _Place | None = _Place(tensor)
        self.tensor: Tensor | None = None
        self._followed: object = None

    def take(self, tensor: Tensor, memory: MemoryMeter) -> None:
        """Hold the tensor itself."""
        self.tensor, self._followed, self.place = tensor, memory.follow(tensor), None

    def unpack(self) -> Tensor:
        """Return the tensor."""
        if self.tensor is None:
            self._group.fill()
        assert self.tensor is not None
        return self.tensor


class _Place:
    """Where the values of a tensor lie, without holding them."""

    def __init__(self, tensor: Tensor) -> None:
        # Alive as long as anybody holds the values; another storage may get the address of one that is gone.
        self._storage = weakref.ref(tensor.untyped_storage())
        self._layout = _layout(tensor)

    def holds(self, tensor: Tensor) -> bool:
        """Return whether these are the values of a tensor."""
        storage = self._storage()
        return storage is not None and storage._cdata == _storage(tensor) and self._layout == _layout(tensor)


class _Enough(Exception):
    """All that is asked for has been computed anew."""


def _layout(tensor: Tensor) -> tuple[object, ...]:
    return tensor.dtype, tensor.shape, tensor.stride(), tensor.storage_offset()


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
