"""A learner's schedule: its own part of a program, step after step, on links to its partners.

Knows nothing of Ray: an actor gives it steps, and the ends of links.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from engine.data import Batch
from engine.learners import Member
from engine.program import BATCH, Call, Message, Program
from engine.runtimes.calls import make_call
from engine.runtimes.ray.doing import Doing
from engine.runtimes.ray.links import takers_of


class Giving(Protocol):
    """The end of a link at which messages are given."""

    def give(self, name: str, tensor: Tensor) -> None:
        """Send a message; raises LostStep if the taker is gone, LearnerError if the message is too large."""

    def end_step(self) -> None:
        """Take note that a step ends."""


class Taking(Protocol):
    """The end of a link at which messages are taken."""

    def take(self, name: str) -> Tensor | None:
        """Return a message, once it is there; None while its giver is away. Raises LostStep if that is gone."""

    def end_step(self) -> None:
        """Take note that a step ends."""


class Ends(Protocol):
    """A learner's ends of its links."""

    @property
    def giving(self) -> Mapping[str, Giving]:
        """By the name of the taker."""

    @property
    def taking(self) -> Mapping[str, Taking]:
        """By the name of the giver."""


@dataclass(frozen=True)
class _Part:
    """A learner's own part of a program.

    Attributes:
        calls: its own, in the order of the program.
        givers: who gives each message that it takes.
        gives: the messages that each call gives.
        takers: who takes each message that it gives.
        last: the place among its calls after which it needs a message no more.
    """

    calls: tuple[Call, ...]
    givers: dict[str, str]
    gives: tuple[tuple[Message, ...], ...]
    takers: dict[str, tuple[str, ...]]
    last: dict[str, int]

    @classmethod
    def of(cls, learner: str, program: Program) -> _Part:
        calls = tuple(call for call in program.calls if call.learner == learner)
        takers = takers_of(program)
        return cls(
            calls,
            {name: call.learner for call in program.calls for name in call.gives if name != BATCH},
            tuple(program.given_by(call) for call in calls),
            {name: takers.get(name, ()) for call in calls for name in call.gives},
            {name: place for place, call in enumerate(calls) for name in call.takes},
        )


class LearnerSchedule:
    """A learner, its links, and its part of each program.

    Args:
        learner: whose calls are run.
        programs: of the team.
        links: to the partners.
        doing: told what the learner has begun.
    """

    def __init__(self, learner: Member, programs: Sequence[Program], links: Ends, doing: Doing | None = None) -> None:
        self._learner = learner
        self._doing = doing or Doing()
        self._parts = {program.name: _Part.of(learner.name, program) for program in programs}
        self._links = links

    def step(self, program: str, batch: Batch) -> None:
        """Run the learner's calls of one step; what they give is on its way before the next call begins.

        Args:
            program: its name.
            batch: of the step.

        Raises:
            LostStep: a partner is gone.
            LearnerError: a phase failed.
        """
        part = self._parts[program]
        held: dict[str, Tensor] = {}
        for place in range(len(part.calls)):
            self._call(part, place, batch, held)
        # Before the frames go back: what is still held would look as if the learner kept it.
        held.clear()
        for end in self._links.giving.values():
            end.end_step()
        for taking in self._links.taking.values():
            taking.end_step()

    def _call(self, part: _Part, place: int, batch: Batch, held: dict[str, Tensor]) -> None:
        call = part.calls[place]
        for name in call.takes:
            if name != BATCH and name not in held:
                tensor = self._links.taking[part.givers[name]].take(name)
                if tensor is not None:
                    held[name] = tensor
        messages = {name: held[name] for name in call.takes if name in held}
        own = batch if BATCH in call.takes else None
        with self._doing.while_in(f"{call.phase} of step {batch.step:,} of epoch {batch.epoch + 1:,}"):
            given = make_call(self._learner, call.phase, own, messages, part.gives[place])
        for name, tensor in zip(call.gives, given, strict=True):
            for taker in part.takers[name]:
                if taker == self._learner.name:
                    held[name] = tensor.detach()
                else:
                    self._links.giving[taker].give(name, tensor)
        for name in messages:
            if part.last[name] == place:
                del held[name]
