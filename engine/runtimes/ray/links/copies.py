"""Copies of tensors into and out of the memory of a link, from and to a learner's device."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

# From so many bytes on, a copy takes longer than handing it to another thread.
_COPIED_BESIDE_FROM = 256 * 1024

Finished = Callable[[], None]
"""Waits until a copy is finished."""


class Copies(Protocol):
    """Copies between a learner's device and the memory of its links.

    Attributes:
        device: of the learner.
        lends: whether what is taken is the link's memory itself, which must be left alone while somebody holds it.
    """

    device: torch.device
    lends: bool

    def prepare(self, memory: Tensor) -> None:
        """Make a link's memory, uint8 [bytes], ready for copies from and to the device."""

    def put(self, tensor: Tensor, place: Tensor) -> Finished | None:
        """Copy a tensor to its place in a link's memory; None if that is done already.

        What is returned waits for the copy, or makes it, in another thread, while the learner goes on; so nobody may
        write to a tensor that was given.
        """

    def get(self, place: Tensor) -> tuple[Tensor, Finished | None]:
        """Return on the learner's device what lies in a link's memory, and what waits until it has been read."""


class HostCopies:
    """For learners on a CPU: one copy when a message is given, none when it is taken."""

    device = torch.device("cpu")
    lends = True

    def prepare(self, memory: Tensor) -> None:
        """Do nothing: memory is memory."""

    def put(self, tensor: Tensor, place: Tensor) -> Finished | None:
        """Copy at once, or leave a large tensor to whoever finishes the copy.

        Raises:
            RuntimeError: from the copy that was left, if the tensor has been written to meanwhile.
        """
        # By numpy in one thread: torch would start a team of threads of its own in every thread that it is called from.
        source, into = _bytes_of(tensor.contiguous()), _bytes_of(place)
        if tensor.nbytes < _COPIED_BESIDE_FROM:
            np.copyto(into, source)
            return None
        version = tensor._version

        def finish() -> None:
            np.copyto(into, source)
            if tensor._version != version:
                raise RuntimeError("was changed in place after it was given")

        return finish

    def get(self, place: Tensor) -> tuple[Tensor, None]:
        """Return the memory itself."""
        return place, None


def _bytes_of(tensor: Tensor) -> np.ndarray:
    return tensor.view(-1).view(torch.uint8).numpy()


class StreamCopies:
    """For learners on a GPU: copies on a stream of their own, beside what the learner computes.

    The memory of links is the GPU's own, or the host's, which is registered with the driver (pinned). Where the driver
    refuses to pin, copies are still right, but the driver makes them in steps of its own and they no longer run beside
    the computation.

    Args:
        device: of the learner.
    """

    lends = False

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device)

    def prepare(self, memory: Tensor) -> None:
        """Pin the host's memory for the life of the process."""
        if memory.device.type == "cpu":
            driver: Any = torch.cuda.cudart()
            # Zero: visible to this device alone, and without write-combining, because the other end may be a CPU.
            if int(driver.cudaHostRegister(memory.data_ptr(), memory.nbytes, 0)):
                # CUDA remembers the refusal, and the next kernel would be blamed for it.
                with contextlib.suppress(RuntimeError):
                    torch.zeros(1, device=self.device)

    def put(self, tensor: Tensor, place: Tensor) -> Finished:
        """Copy once the learner's stream has computed the tensor, while the host goes on."""
        self._stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._stream):
            place.copy_(tensor, non_blocking=True)
        # Its memory must not be used for something else before it has been read.
        tensor.record_stream(self._stream)
        return self._stream.record_event().synchronize

    def get(self, place: Tensor) -> tuple[Tensor, Finished]:
        """Copy to the device beside what still runs there; what the learner starts from now on waits for it."""
        with torch.cuda.stream(self._stream):
            # A copy also where the place is on the device: its frame is used again.
            tensor = place.to(self.device, non_blocking=True, copy=True)
        current = torch.cuda.current_stream(self.device)
        current.wait_stream(self._stream)
        tensor.record_stream(current)
        return tensor, self._stream.record_event().synchronize


def copies_for(device: torch.device) -> Copies:
    """Return how a learner on this device copies."""
    return StreamCopies(device) if device.type == "cuda" else HostCopies()
