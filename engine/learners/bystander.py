"""What has a member of a team in common with a learner if nothing in it is trained?"""

from __future__ import annotations

import traceback
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from engine.data import Batch
from engine.errors import EngineError, LearnerError
from engine.learners.failures import explain
from engine.learners.meters import Timeline
from engine.learners.state import LearnerState


class Bystander(ABC):
    """A member of a team that takes part in its programs but does not learn; it answers what a `Learner` answers.

    Args:
        name: unique in its team.
        device: where to compute.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        self.name = name
        self.device = device

    def call(self, phase: str, batch: Batch | None, messages: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Run one phase; as `Learner.call`."""
        try:
            given: tuple[Tensor, ...] = getattr(self, phase)(batch, messages)
        except EngineError:
            raise
        except Exception as error:
            raise LearnerError(self.name, f"{phase}: {explain(error)}", traceback.format_exc()) from error
        return given

    def ask_metrics(self) -> dict[str, float]:
        """Return nothing: it does not learn."""
        return {}

    def ask_score(self) -> dict[str, dict[str, float]]:
        """Return nothing: it is not what is trained."""
        return {}

    def ask_timeline(self) -> dict[str, Any]:
        """Return no calls; otherwise as `Learner.ask_timeline`."""
        return Timeline().report()

    def ask_departure(self) -> None:
        """Return nothing: it never leaves."""
        return None

    @abstractmethod
    def ask_memory(self) -> dict[str, int]:
        """Return bytes by purpose; as `Learner.ask_memory`."""

    @abstractmethod
    def ask_state(self) -> LearnerState:
        """Return what a checkpoint needs of it."""

    @abstractmethod
    def restore(self, state: LearnerState) -> None:
        """Take up what `ask_state` returned; raises RunError if it is not its own."""
