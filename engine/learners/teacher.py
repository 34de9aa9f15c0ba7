"""A frozen network that only predicts: what a student learns from, on a device of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from engine.checkpoints import LearnerState
from engine.data import Augmenter, Batch, Facts
from engine.errors import RunError
from engine.learners.member import PhaseFunction, UntrainedMember
from engine.learners.memory import tensor_bytes
from engine.learners.numerics import DTYPES
from engine.recipes import Recipe


class Teacher(UntrainedMember):
    """A learner that has learned already.

    Args:
        name: unique in its team.
        network: with its final weights.
        digest: of these weights, so that a run never goes on with another teacher.
        recipe: of the student's training.
        facts: what is known of the data.
        device: where to compute.
    """

    def __init__(
        self, name: str, network: nn.Sequential, digest: str, recipe: Recipe, facts: Facts, device: torch.device
    ) -> None:
        super().__init__(name, device)
        self._format = torch.channels_last if recipe.numerics.channels_last else torch.contiguous_format
        self._dtype = DTYPES[recipe.numerics.precision]
        module: Any = network.eval().requires_grad_(False)
        self._network: nn.Module = module.to(device, memory_format=self._format)
        self._digest = digest
        self._augmenter = Augmenter(recipe.data.augmentation, facts, recipe.seed, device)

    @property
    def phases(self) -> Mapping[str, PhaseFunction]:
        """What it can do, by name."""
        return {"predict": self.predict}

    def predict(self, batch: Batch, messages: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Give class logits [B, classes] of the augmented training images, with running statistics."""
        images = self._augmenter.normalise(self._augmenter.training_pixels(batch))
        autocast = torch.autocast(self.device.type, self._dtype, enabled=self._dtype != torch.float32)
        with torch.no_grad(), autocast:
            logits = self._network(images.contiguous(memory_format=self._format))
        return (logits.to(self._dtype),)

    def ask_memory(self) -> dict[str, int]:
        """Return bytes by purpose; as `Learner.ask_memory`."""
        size = tensor_bytes(self._network.parameters())
        total = torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else size
        return {"parameters": size, "total": total}

    def ask_state(self) -> LearnerState:
        """Return no weights, only their digest: they are where the recipe says."""
        return LearnerState({}, {"weights_sha256": self._digest})

    def restore(self, state: LearnerState) -> None:
        """Check that this is the teacher of the run.

        Raises:
            RunError: the teacher's weights are others now.
        """
        if state.extra["weights_sha256"] != self._digest:
            raise RunError(
                "method.teacher holds other weights now than when this run began; give back the old ones, or start "
                "anew with --resume never"
            )
