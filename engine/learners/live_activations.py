"""A counter of the bytes that autograd keeps at most at one time, while graphs are freed and others made."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn


class LiveActivations:
    """Follows what autograd keeps for backward passes, from when it is saved until it is freed.

    As `engine.learners.memory.SavedActivations`, each storage counts once, parameters and buffers not at all; but what
    has been freed, as by a schedule of micro-batches, does not count any more.

    Args:
        own: the tensors that exist anyway and are left out; a function that gives them is asked anew for each tensor,
            because sharded parameters move.

    Attributes:
        peak: most bytes at one time.
    """

    def __init__(self, own: Iterable[Tensor] | Callable[[], Iterable[Tensor]]) -> None:
        self._places: Callable[[], set[int]]
        if callable(own):
            self._places = lambda: {place_of(each) for each in own()}
        else:
            standing = {place_of(each) for each in own}
            self._places = lambda: standing
        self._holders: dict[int, int] = {}
        self._bytes: dict[int, int] = {}
        self.peak = 0

    @property
    def bytes(self) -> int:
        """Bytes that are kept now."""
        return sum(self._bytes.values())

    @contextlib.contextmanager
    def counting(self) -> Iterator[None]:
        """Follow what is saved inside the block."""

        def pack(tensor: Tensor) -> Tensor | Kept:
            return self.follow(tensor) or tensor

        def unpack(kept: Tensor | Kept) -> Tensor:
            return kept.tensor if isinstance(kept, Kept) else kept

        with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
            yield

    def follow(self, tensor: Tensor) -> Kept | None:
        """Return what holds a tensor, which counts until that is dropped; None for one that does not count."""
        place = place_of(tensor)
        if isinstance(tensor, nn.Parameter) or place in self._places():
            return None
        self._holders[place] = self._holders.get(place, 0) + 1
        self._bytes[place] = tensor.untyped_storage().nbytes()
        self.peak = max(self.peak, self.bytes)
        return Kept(tensor, self._let_go)

    def _let_go(self, place: int) -> None:
        self._holders[place] -= 1
        if not self._holders[place]:
            del self._holders[place], self._bytes[place]


class Kept:
    """A tensor that is followed; autograd drops a saved one when it frees the graph."""

    def __init__(self, tensor: Tensor, let_go: Callable[[int], None]) -> None:
        self.tensor = tensor
        self._let_go, self._place = let_go, place_of(tensor)

    def __del__(self) -> None:
        self._let_go(self._place)


def place_of(tensor: Tensor) -> int:
    """Return what tells a storage from others; tensors of the meta device have no addresses."""
    storage = tensor.untyped_storage()
    return storage._cdata if tensor.is_meta else storage.data_ptr()
