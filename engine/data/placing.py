"""Copies from main memory to a learner's device, beside what the device still computes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def on_device(host: np.ndarray | Tensor, device: torch.device) -> Tensor:
    """Return on a device what lies in main memory, without waiting for what the device still has to do.

    A GPU gets it through page-locked (pinned) memory, whose pieces torch uses again once they have been read: a copy
    from elsewhere waits for all that was asked of the GPU before.

    Args:
        host: of any dtype and shape; arrays out of an object store are read-only, which torch cannot express, and are
            copied first.
        device: where it goes; what is there already is returned as it is.
    """
    if isinstance(host, np.ndarray):
        host = torch.from_numpy(np.require(host, requirements=["C", "W"]))
    if device.type == "cuda" and host.device.type == "cpu":
        host = host.pin_memory()
    return host.to(device, non_blocking=True)
