"""Members of a team: what runtimes and the training loop can tell and ask them, whether they train or not."""

from __future__ import annotations

import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from engine.checkpoints import LearnerState
from engine.data import Batch
from engine.errors import LESS_MEMORY, EngineError, LearnerDiverged, LearnerError
from engine.learners.finite import NotFinite
from engine.learners.meters import Timeline
from engine.phases import QUESTIONS

PhaseFunction = Callable[[Any, Mapping[str, Tensor]], tuple[Tensor, ...]]
"""Runs a phase on the batch, or None where `PHASES` says that it takes none, and on messages by name."""


class Member(ABC):
    """Takes part in the programs of a team.

    Args:
        name: unique in its team.
        device: where to compute.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        self.name = name
        self.device = device

    @property
    @abstractmethod
    def phases(self) -> Mapping[str, PhaseFunction]:
        """What it can do, by names in `engine.phases.PHASES`."""

    @property
    def questions(self) -> Mapping[str, Callable[[], Any]]:
        """What it answers, by names in `engine.phases.QUESTIONS`: all of them."""
        return {
            "metrics": self.ask_metrics,
            "score": self.ask_score,
            "memory": self.ask_memory,
            "timeline": self.ask_timeline,
            "diverged": self.ask_diverged,
            "state": self.ask_state,
            "features": self.ask_features,
        }

    def call(self, phase: str, batch: Batch | None, messages: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Run one phase, and make every error name this member.

        Args:
            phase: name of a phase, such as ``forward``.
            batch: the batch, where the call takes it.
            messages: the other messages that the call takes, by name and in its order.

        Returns:
            all that the phase offers, which may be more than a call of it gives.

        Raises:
            LearnerError: whatever went wrong, with the original traceback in ``details``.
        """
        run = self.phases.get(phase)
        if run is None:
            raise LearnerError(self.name, f"cannot {phase!r}, which a program says; it can {', '.join(self.phases)}")
        try:
            return run(batch, self.received(messages))
        except EngineError:
            raise
        except NotFinite as error:
            raise LearnerDiverged(self.name, str(error)) from None
        except Exception as error:
            at = f" of {place_of(batch)}" if batch is not None else ""
            raise LearnerError(self.name, f"{phase}{at}: {explain(error)}", traceback.format_exc()) from error

    def received(self, messages: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return messages as its phases take them."""
        return messages

    def ask(self, question: str) -> Any:
        """Return the answer to a question.

        Raises:
            LearnerError: there is no such question, or a loss was not finite, of which it is known only now.
        """
        answer = self.questions.get(question)
        if answer is None:
            raise LearnerError(self.name, f"unknown question {question!r}; expected one of {', '.join(QUESTIONS)}")
        try:
            return answer()
        except NotFinite as error:
            raise LearnerDiverged(self.name, str(error)) from None

    @abstractmethod
    def ask_metrics(self) -> dict[str, float]:
        """Return what was seen since the last report, by name of the metric."""

    @abstractmethod
    def ask_score(self) -> dict[str, dict[str, float]]:
        """Return the scores of the evaluation batches since the last question, by network."""

    @abstractmethod
    def ask_memory(self) -> dict[str, int]:
        """Return bytes by purpose; ``total`` is the device's own peak on a GPU and the sum on a CPU."""

    @abstractmethod
    def ask_timeline(self) -> dict[str, Any]:
        """Return when the last calls ran, and where; as `Timeline.report`."""

    @abstractmethod
    def ask_diverged(self) -> str | None:
        """Return why it has left its cohort; None while it takes part."""

    @abstractmethod
    def ask_state(self) -> LearnerState:
        """Return a copy of what a checkpoint needs of it."""

    def ask_features(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Return features [N, D] and labels [N] of the evaluation batches since the last score, by network."""
        return {}

    @abstractmethod
    def restore(self, state: LearnerState) -> None:
        """Take up what `ask_state` returned; raises RunError if it is not its own."""


def place_of(batch: Batch) -> str:
    """Return in words which step a batch belongs to."""
    return f"epoch {batch.epoch + 1}, step {batch.step + 1}"


def explain(error: BaseException) -> str:
    """Return one line on an error, with a remedy where the kind of error tells one."""
    text = f"{type(error).__name__}: {error}".splitlines()[0]
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return f"out of memory ({text}); {LESS_MEMORY}"
    if "InvalidCxxCompiler" in text or "No working C++ compiler" in str(error):
        return "torch.compile found no C++ compiler; install one, or set numerics.compile=false"
    return text


class UntrainedMember(Member):
    """A member of a team that takes part in its programs but does not learn; it answers what a `Learner` answers."""

    def ask_metrics(self) -> dict[str, float]:
        """Return nothing: it does not learn."""
        return {}

    def ask_score(self) -> dict[str, dict[str, float]]:
        """Return nothing: it is not what is trained."""
        return {}

    def ask_timeline(self) -> dict[str, Any]:
        """Return no calls; otherwise as `Learner.ask_timeline`."""
        return Timeline().report()

    def ask_diverged(self) -> None:
        """Return nothing: it never leaves."""
        return None
