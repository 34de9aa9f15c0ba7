"""Loss checks: a loss that is not finite stops the training before the weights change.

On a GPU, to look at a loss is to wait for all that was asked of the device. There the check is deferred: the device
itself leaves out the optimizer's steps from the first loss on that is not finite, and whoever asks the learner for
anything learns of it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from engine.data import Batch

# So many steps without a question are looked at all the same; until then their losses stay on the device.
_MOST_STEPS = 1024


class NotFinite(ArithmeticError):
    """A loss term is NaN or infinite; the message says which one, and in which batch."""


class LossCheck(ABC):
    """Sees that all losses of a learner are finite."""

    @abstractmethod
    def see(self, losses: Mapping[str, Tensor], batch: Batch) -> None:
        """Take up the losses of one backward pass, before it.

        Args:
            losses: means by term, ``total`` last, each of one value and without graph.
            batch: for the message.

        Raises:
            NotFinite: one of them is not, or one was not that was seen before.
        """

    @abstractmethod
    def settle(self) -> None:
        """Wait until it is known whether all losses so far were finite; raises NotFinite if one was not."""

    @abstractmethod
    def mask(self, optimizer: torch.optim.Optimizer) -> None:
        """Let the optimizer's next step change nothing if one of the losses so far was not finite."""

    @abstractmethod
    def spoiled(self, loss: Tensor) -> Tensor:
        """Return a loss whose gradients are NaN if one of the losses so far was not finite, and the same otherwise.

        For an optimizer that is asked to step by a `GradScaler`, which masks the step itself.
        """


class ImmediateCheck(LossCheck):
    """Looks at every loss at once."""

    def see(self, losses: Mapping[str, Tensor], batch: Batch) -> None:
        """As `LossCheck.see`."""
        _refuse(list(losses), torch.stack([*losses.values()]).tolist(), _in_words(batch))

    def settle(self) -> None:
        """Nothing is left to be known."""

    def mask(self, optimizer: torch.optim.Optimizer) -> None:
        """No step is taken after a loss that is not finite."""

    def spoiled(self, loss: Tensor) -> Tensor:
        """No loss is asked about after one that is not finite."""
        return loss


class DeferredCheck(LossCheck):
    """Looks at losses when it is asked to settle; the optimizer must know ``found_inf``, as torch's fused ones do.

    Args:
        device: of the losses.
    """

    def __init__(self, device: torch.device) -> None:
        # 1 from the first loss on that is not finite: what torch's fused optimizers take for "leave this step out".
        self._failed = torch.zeros((), device=device)
        self._seen: list[tuple[list[str], Tensor, str]] = []

    def see(self, losses: Mapping[str, Tensor], batch: Batch) -> None:
        """As `LossCheck.see`; a loss that is not finite is told of later."""
        values = torch.stack([*losses.values()])
        self._failed.copy_(torch.maximum(self._failed, (~values.isfinite()).any().to(self._failed.dtype)))
        self._seen.append((list(losses), values, _in_words(batch)))
        if len(self._seen) >= _MOST_STEPS:
            self.settle()

    def settle(self) -> None:
        """As `LossCheck.settle`."""
        if not self._seen:
            return
        if self._failed.item():
            for names, values, where in self._seen:
                _refuse(names, values.tolist(), where)
        self._seen.clear()

    def mask(self, optimizer: torch.optim.Optimizer) -> None:
        """As `LossCheck.mask`."""
        fused: Any = optimizer
        fused.found_inf = self._failed

    def spoiled(self, loss: Tensor) -> Tensor:
        """As `LossCheck.spoiled`."""
        return loss * torch.where(self._failed > 0, math.nan, 1.0)


def loss_check(device: torch.device, optimizer: torch.optim.Optimizer, *, at_once: bool) -> LossCheck:
    """Return the check that a learner needs.

    Args:
        device: where it computes; on a CPU there is nothing to wait for.
        optimizer: one that is not fused, as RMSProp, cannot leave out a step on the device.
        at_once: whether something other than the optimizer's step depends on what is found.
    """
    if device.type != "cuda" or at_once or not optimizer.defaults.get("fused"):
        return ImmediateCheck()
    return DeferredCheck(device)


def _in_words(batch: Batch) -> str:
    indices = ", ".join(map(str, batch.indices[:5].tolist()))
    return (
        f"epoch {batch.epoch + 1}, step {batch.step + 1} (batch of {len(batch.indices)} images, indices {indices}, ...)"
    )


def _refuse(names: list[str], values: list[float], where: str) -> None:
    for name, value in zip(names, values, strict=True):
        if not math.isfinite(value):
            raise NotFinite(
                f"loss term {name!r} is {value} in {where}; the weights were not changed. Lower "
                "optimizer.learning_rate or the weight of this term"
            )
