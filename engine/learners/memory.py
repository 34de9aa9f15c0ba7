"""Measures what a learner holds in memory, exactly and the same on every machine."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch

from engine.learners.live_activations import Kept, LiveActivations, place_of
from engine.recipes import Numerics


class SavedActivations:
    """Counts the bytes that autograd keeps for the backward pass, in a learner or on the meta device.

    Storages are counted once each, because an in-place ReLU's output, its input and the next convolution's input
    are one storage. The learner's input is counted.

    Args:
        own: tensors that exist anyway and are left out: parameters and buffers.
    """

    def __init__(self, own: Iterable[torch.Tensor]) -> None:
        self._own = {place_of(tensor) for tensor in own}
        self._storages: dict[int, int] = {}
        self._gone = 0

    @contextlib.contextmanager
    def counting(self) -> Iterator[None]:
        """Count what is saved inside the block."""

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            place = place_of(tensor)
            if place not in self._own:
                storage = tensor.untyped_storage()
                if tensor.is_meta and place not in self._storages:
                    # Without an address, another storage may get the place of one that is gone.
                    weakref.finalize(storage, self._let_go, place)
                self._storages[place] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            yield

    @property
    def bytes(self) -> int:
        """Bytes of all storages seen so far."""
        return self._gone + sum(self._storages.values())

    def __contains__(self, tensor: torch.Tensor) -> bool:
        """Return whether a tensor that still exists was kept."""
        return place_of(tensor) in self._storages

    def _let_go(self, place: int) -> None:
        self._gone += self._storages.pop(place)


def tensor_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Return the bytes of some tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


class MemoryMeter:
    """Measures a learner's memory by purpose in its first steps; the later ones hold no more.

    Args:
        own: parameters and buffers, which autograd keeps but which are no activations.
        numerics: where blocks are run again, what is kept at most at one time counts: the backward pass keeps, too.
        steps: how many are measured; more than one where steps differ, as with blocks left out at random. The one that
            holds most counts.
    """

    def __init__(self, own: Iterable[torch.Tensor], numerics: Numerics, steps: int = 1) -> None:
        self._own = list(own)
        self._left, self._recomputed = steps, numerics.recomputed_blocks
        self._saved = self._counter()
        self._bytes: dict[str, int] = {}

    def _counter(self) -> SavedActivations | LiveActivations:
        own = self._own if self._left else []
        return LiveActivations(own) if self._recomputed else SavedActivations(own)

    @property
    def live(self) -> LiveActivations | None:
        """What is kept now, in the step that is being measured; None where nothing is run again."""
        return self._saved if isinstance(self._saved, LiveActivations) else None

    def counting(self) -> contextlib.AbstractContextManager[None]:
        """Count what autograd keeps inside the block, until the last measurement."""
        return self._saved.counting() if self._left else contextlib.nullcontext()

    def follow(self, tensor: torch.Tensor) -> Kept | None:
        """Count a tensor that is kept for the backward pass by other means, until what is returned is dropped."""
        return self.live.follow(tensor) if self._left and self.live is not None else None

    def measure(
        self, parameters: Mapping[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer, kept: Mapping[str, int]
    ) -> None:
        """Measure between an optimizer's step and the end of its gradients; only the first calls do anything.

        Args:
            parameters: all that the optimizer updates.
            optimizer: after its step.
            kept: bytes of what else the learner keeps, by purpose.
        """
        if not self._left:
            return
        slots = [value for slots in optimizer.state.values() for value in slots.values()]
        found = {
            "saved_activations": self._saved.bytes if self.live is None else self.live.peak,
            "parameters": tensor_bytes(parameters.values()),
            "gradients": tensor_bytes(p.grad for p in parameters.values() if p.grad is not None),
            "optimizer": tensor_bytes(value for value in slots if isinstance(value, torch.Tensor)),
            **{purpose: count for purpose, count in kept.items() if count},
        }
        if sum(found.values()) > sum(self._bytes.values()):
            self._bytes = found
        self._left -= 1
        self._saved = self._counter()

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
        """Return what was measured, and how many steps are still to be, as JSON values."""
        found: dict[str, Any] = {"bytes": dict(self._bytes), "left": self._left}
        return found | ({"recomputed": self._recomputed} if self._recomputed else {})

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up what was measured before an interruption, unless the run goes on with other blocks run again."""
        if state.get("recomputed", 0) == self._recomputed:
            self._bytes, self._left = dict(state["bytes"]), state["left"]
