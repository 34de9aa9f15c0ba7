"""Tensors in the object store: numpy arrays over the same memory, which Ray neither pickles nor copies.

A CPU tensor pickled by Ray takes about 50 times as long to get. What is received lies in memory that others read, too,
and must never be written to; `engine.runtimes.calls` finds out a phase that does so all the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Packed:
    """A tensor as it travels.

    Attributes:
        array: C-contiguous; bfloat16 travels as int16, because numpy has no such type.
        dtype: name of the tensor's dtype.
        channels_last: whether the axes of the array are [B, H, W, C].
    """

    array: np.ndarray
    dtype: str
    channels_last: bool


def pack(tensor: Tensor) -> Packed:
    """Return a detached tensor in the form in which it travels; copies only from a GPU or a strided tensor."""
    tensor = tensor.detach().cpu()
    channels_last = (
        tensor.dim() == 4 and not tensor.is_contiguous() and tensor.is_contiguous(memory_format=torch.channels_last)
    )
    if channels_last:
        tensor = tensor.permute(0, 2, 3, 1)
    name = str(tensor.dtype).removeprefix("torch.")
    tensor = tensor.contiguous()
    return Packed((tensor.view(torch.int16) if name == "bfloat16" else tensor).numpy(), name, channels_last)


def unpack(packed: Packed) -> Tensor:
    """Return the tensor over the received memory; never write to it."""
    tensor = torch.from_numpy(packed.array)
    if packed.dtype == "bfloat16":
        tensor = tensor.view(torch.bfloat16)
    return tensor.permute(0, 3, 1, 2) if packed.channels_last else tensor
