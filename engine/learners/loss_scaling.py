"""Loss scaling for float16, which counts the steps that are left out because their gradients overflowed."""

from __future__ import annotations

import torch
from torch import Tensor

from engine.learners.finite import NotFinite

# The scale halves at each overflow: so many from 65,536 on, and gradients of any use would have been found.
_MOST_IN_A_ROW = 50


class LossScaler(torch.amp.GradScaler):
    """Torch's `GradScaler`, whose skipped steps are counted on the device, so that nothing waits for it.

    Args:
        device: its type, such as ``cuda``.
        enabled: whether losses are scaled at all.
    """

    def __init__(self, device: str, enabled: bool) -> None:
        super().__init__(device, enabled=enabled)
        self._skipped: Tensor | None = None
        self._in_a_row: Tensor | None = None

    def update(self, new_scale: float | Tensor | None = None) -> None:
        """Note whether the step before was left out, and choose the next scale."""
        scale = self._scale if self.is_enabled() else None
        if scale is None:
            super().update(new_scale)
            return
        before = scale.clone()
        super().update(new_scale)
        # Torch's own flag is gone by now, and to ask for the scale by its public name is to wait for the device.
        skipped = (scale < before).float()
        self._in_a_row = skipped if self._in_a_row is None else skipped * (self._in_a_row + skipped)
        self._skipped = skipped

    def observed(self) -> dict[str, Tensor]:
        """Return ``skipped_share``, 1 for a step that was left out and 0 otherwise; nothing without scaling."""
        return {} if self._skipped is None else {"skipped_share": self._skipped}

    def settle(self) -> dict[str, float]:
        """Wait for the device, and return ``loss_scale``; nothing without scaling.

        Raises:
            NotFinite: all of the last steps were left out.
        """
        if self._in_a_row is None:
            return {}
        scale = self.get_scale()
        if self._in_a_row.item() >= _MOST_IN_A_ROW:
            raise NotFinite(
                f"gradients in float16 were not finite in the last {int(self._in_a_row.item())} steps, which were left "
                f"out, although the loss scale fell to {scale:g}: set numerics.precision=bfloat16 or float32, or lower "
                "optimizer.learning_rate"
            )
        return {"loss_scale": scale}
