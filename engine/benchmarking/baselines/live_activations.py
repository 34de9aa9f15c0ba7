"""A counter of the bytes that autograd keeps at most at one time, while graphs are freed and others made."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn


class LiveActivations:
    """Follows what autograd keeps for backward passes, from when it is saved until it is freed.

    As `engine.learners.memory.SavedActivations`, each storage counts once, parameters and buffers not at all; but what
    a schedule of micro-batches has freed does not count any more.

    Args:
        own: gives the tensors that exist anyway and are left out; asked anew for each tensor, because sharded
            parameters move.

    Attributes:
        peak: most bytes at one time.
    """

    def __init__(self, own: Callable[[], Iterable[Tensor]]) -> None:
        self._own = own
        self._holders: dict[int, int] = {}
        self._bytes: dict[int, int] = {}
        self.peak = 0

    @contextlib.contextmanager
    def counting(self) -> Iterator[None]:
        """Follow what is saved inside the block."""

        def unpack(kept: Tensor | _Kept) -> Tensor:
            return kept.tensor if isinstance(kept, _Kept) else kept

        with torch.autograd.graph.saved_tensors_hooks(self._pack, unpack):
            yield

    def _pack(self, tensor: Tensor) -> Tensor | _Kept:
        place = tensor.untyped_storage().data_ptr()
        if isinstance(tensor, nn.Parameter) or place in {each.untyped_storage().data_ptr() for each in self._own()}:
            return tensor
        self._holders[place] = self._holders.get(place, 0) + 1
        self._bytes[place] = tensor.untyped_storage().nbytes()
        self.peak = max(self.peak, sum(self._bytes.values()))
        return _Kept(tensor, self._let_go)

    def _let_go(self, place: int) -> None:
        self._holders[place] -= 1
        if not self._holders[place]:
            del self._holders[place], self._bytes[place]


class _Kept:
    """A saved tensor; autograd drops it when it frees the graph."""

    def __init__(self, tensor: Tensor, let_go: Callable[[int], None]) -> None:
        self.tensor = tensor
        self._let_go, self._place = let_go, tensor.untyped_storage().data_ptr()

    def __del__(self) -> None:
        self._let_go(self._place)
