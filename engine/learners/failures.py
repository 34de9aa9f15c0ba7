"""What does a learner say when its numbers or its code fail?"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from engine.data import Batch


class NotFinite(ArithmeticError):
    """A loss term is NaN or infinite; the message says which one, and in which batch."""


def finite_losses(losses: Mapping[str, Tensor], total: Tensor, batch: Batch) -> dict[str, float]:
    """Return the losses as numbers, ``total`` among them.

    Raises:
        NotFinite: one of them is not finite.
    """
    # One transfer for all terms: on a GPU each would wait for the device.
    names = [*losses, "total"]
    values = torch.stack([*(loss.detach().float() for loss in losses.values()), total.detach().float()])
    found = dict(zip(names, values.tolist(), strict=True))
    for name, value in found.items():
        if not math.isfinite(value):
            indices = ", ".join(map(str, batch.indices[:5].tolist()))
            raise NotFinite(
                f"loss term {name!r} is {value} in epoch {batch.epoch + 1}, step {batch.step + 1} "
                f"(batch of {len(batch.labels)} images, indices {indices}, ...); the weights were not "
                "changed. Lower optimizer.learning_rate or the weight of this term"
            )
    return found


def explain(error: BaseException) -> str:
    """Return one line on an error, with a remedy where the kind of error tells one."""
    text = f"{type(error).__name__}: {error}".splitlines()[0]
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return f"out of memory ({text}); raise method.num_segments or lower data.batch_size"
    if "InvalidCxxCompiler" in text or "No working C++ compiler" in str(error):
        return "torch.compile found no C++ compiler; install one, or set numerics.compile=false"
    return text
