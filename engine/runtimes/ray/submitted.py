"""Calls that have been submitted: steps in flight, and questions whose answers may not be known yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray

from engine.runtimes.ray.history import Asked, Given
from engine.runtimes.ray.waiting import check_alive


@dataclass(frozen=True)
class SubmittedStep:
    """A step in flight.

    Attributes:
        asked: its calls.
        is_training: whether it is one of training.
        done: what the calls give that give no message, by learner: nothing. Everything that is given is taken by one of
            them in the end, so they tell that the step is done without moving features here.
        states: questions for them that were asked after it.
    """

    asked: Sequence[Asked]
    is_training: bool
    done: Mapping[str, Given]
    states: list[SubmittedQuestion] = field(default_factory=list)


class SubmittedQuestion:
    """What learners say to one question.

    Args:
        question: its name.
        given: what each learner answers.
        told: told the answers, once they are known; nobody if None.
        fetch: returns the answers.
    """

    def __init__(
        self,
        question: str,
        given: Mapping[str, Given],
        told: Callable[[Any], None] | None,
        fetch: Callable[[SubmittedQuestion], dict[str, Any]],
    ) -> None:
        self.question, self.given = question, given
        self._told, self._fetch = told, fetch
        self._answers: dict[str, Any] | None = None

    def result(self) -> dict[str, Any]:
        """As `Answer.result`."""
        if self._answers is None:
            self._answers = self._fetch(self)
            if self._told is not None:
                self._told(self._answers)
        return self._answers


def is_there(given: Given) -> bool:
    """Return whether something was given, and not an error in its place.

    Raises:
        RayEnded: the private Ray has ended.
    """
    check_alive()
    try:
        ray.get(given.reference, timeout=0)
    except ray.exceptions.RayError:
        return False
    return True
