"""Copies from main memory to a learner's device, beside what the device still computes."""

from __future__ import annotations

import contextlib

import numpy as np
import torch
from torch import Tensor


def on_device(host: np.ndarray | Tensor, device: torch.device) -> Tensor:
    """Return on a device what lies in main memory, without waiting for what the device still has to do.

    A GPU gets it through page-locked (pinned) memory, whose pieces torch uses again once they have been read: a copy
    from elsewhere waits for all that was asked of the GPU before.

    Args:
        host: of any dtype and shape; arrays in memory that is read-only, as an object store's is, which torch cannot
            express, are copied first.
        device: where it goes; what is there already is returned as it is.
    """
    if isinstance(host, np.ndarray):
        host = torch.from_numpy(_as_torch_takes_it(host))
    if device.type == "cuda" and host.device.type == "cpu":
        host = host.pin_memory()
    return host.to(device, non_blocking=True)


def _as_torch_takes_it(host: np.ndarray) -> np.ndarray:
    """Return an array that is contiguous and not marked read-only; a copy where its memory is not so."""
    view = host.view()
    with contextlib.suppress(ValueError):
        view.flags.writeable = True
    return np.require(view, requirements=["C", "W"])
