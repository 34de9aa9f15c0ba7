"""Measures what a learner holds in memory, exactly and the same on every machine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

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


class MemoryMeter:
    """Measures a learner's memory by purpose at its first step; the later ones hold the same.

    Args:
        own: parameters and buffers, which autograd keeps but which are no activations.
    """

    def __init__(self, own: Iterable[torch.Tensor]) -> None:
        self._saved: SavedActivations | None = SavedActivations(own)
        self._bytes: dict[str, int] = {}

    def counting(self) -> contextlib.AbstractContextManager[None]:
        """Count what autograd keeps inside the block, until the first measurement."""
        return self._saved.counting() if self._saved is not None else contextlib.nullcontext()

    def measure(
        self, parameters: Mapping[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer, kept: Mapping[str, int]
    ) -> None:
        """Measure between an optimizer's step and the end of its gradients; only the first call does anything.

        Args:
            parameters: all that the optimizer updates.
            optimizer: after its step.
            kept: bytes of what else the learner keeps, by purpose.
        """
        if self._saved is None:
            return
        slots = [value for slots in optimizer.state.values() for value in slots.values()]
        self._bytes = {
            "saved_activations": self._saved.bytes,
            "parameters": tensor_bytes(parameters.values()),
            "gradients": tensor_bytes(p.grad for p in parameters.values() if p.grad is not None),
            "optimizer": tensor_bytes(value for value in slots if isinstance(value, torch.Tensor)),
        }
        self._bytes |= {purpose: count for purpose, count in kept.items() if count}
        self._saved = None

    def report(self, device: torch.device) -> dict[str, int]:
        """Return bytes by purpose; ``total`` is the device's own peak on a GPU and the sum on a CPU."""
        memory = dict(self._bytes)
        if device.type == "cuda":
            memory["total"] = torch.cuda.max_memory_allocated(device)
            memory["reserved"] = torch.cuda.max_memory_reserved(device)
        else:
            memory["total"] = sum(memory.values())
        return memory

    def state(self) -> dict[str, Any]:
        """Return what was measured, as JSON values."""
        return self._bytes

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up what was measured on the run's first batch.

        The first batch after a resumption may be the small last one of an epoch.
        """
        if state:
            self._bytes, self._saved = dict(state), None
