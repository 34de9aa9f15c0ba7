"""Are two sets of tensors equal, bit for bit, when they live in different processes?"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor


def tensor_digests(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Return a short sha256 over shape, dtype and bytes of each tensor, by name."""
    found = {}
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        digest = hashlib.sha256(f"{plain.dtype} {tuple(plain.shape)}".encode())
        digest.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes())
        found[name] = digest.hexdigest()[:16]
    return found
