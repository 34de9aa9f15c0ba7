"""Measures what a learner holds in memory, exactly and the same on every machine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import torch


class SavedActivations:
    """Counts the bytes that autograd keeps for the backward pass.

    Storages are counted once each, because an in-place ReLU's output, its input and the next convolution's input
    are one storage. The learner's input is counted.

    Args:
        own: tensors that exist anyway and are left out: parameters and buffers.
    """

    def __init__(self, own: Iterable[torch.Tensor]) -> None:
        self._own = {tensor.untyped_storage().data_ptr() for tensor in own}
        self._storages: dict[int, int] = {}

    @contextlib.contextmanager
    def counting(self) -> Iterator[None]:
        """Count what is saved inside the block."""

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in self._own:
                self._storages[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            yield

    @property
    def bytes(self) -> int:
        """Bytes of all storages seen so far."""
        return sum(self._storages.values())


def tensor_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Return the bytes of some tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
