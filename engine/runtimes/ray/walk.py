"""How does one learner walk its own part of a program, step after step, on links to its partners?

Knows nothing of Ray: an actor gives it steps, and the ends of links.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from engine.data import Batch
from engine.errors import LearnerError
from engine.learners import Bystander, Learner
from engine.program import BATCH, Call, Program
from engine.runtimes.ray.links import Links, takers_of
from engine.runtimes.ray.messages import call_untouched


@dataclass(frozen=True)
class _Part:
    """A learner's own part of a program.

    Attributes:
        calls: its own, in the order of the program.
        givers: who gives each message that it takes.
        takers: who takes each message that it gives.
        last: the place among its calls after which it needs a message no more.
    """

    calls: tuple[Call, ...]
    givers: dict[str, str]
    takers: dict[str, tuple[str, ...]]
    last: dict[str, int]

    @classmethod
    def of(cls, learner: str, program: Program) -> _Part:
        calls = tuple(call for call in program.calls if call.learner == learner)
        takers = takers_of(program)
        return cls(
            calls,
            {name: call.learner for call in program.calls for name in call.gives if name != BATCH},
            {name: takers.get(name, ()) for call in calls for name in call.gives},
            {name: place for place, call in enumerate(calls) for name in call.takes},
        )


class Walk:
    """A learner, its links, and its part of each program.

    Args:
        learner: whose calls are run.
        programs: of the team, in an order that all know.
        links: to the partners.
    """

    def __init__(self, learner: Learner | Bystander, programs: Sequence[Program], links: Links) -> None:
        self._learner = learner
        self._parts = [_Part.of(learner.name, program) for program in programs]
        self._links = links

    def step(self, program: int, batch: Batch) -> None:
        """Run the learner's calls of one step; what they give is on its way before the next call begins.

        Args:
            program: its place in the list.
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
                held[name] = self._links.taking[part.givers[name]].take(name)
        messages = {name: held[name] for name in call.takes if name != BATCH}
        given = call_untouched(self._learner, call.phase, batch if BATCH in call.takes else None, messages)
        if len(given) < len(call.gives):
            raise LearnerError(
                self._learner.name, f"{call.phase} gave {len(given)} messages, expected {', '.join(call.gives)}"
            )
        for name, tensor in zip(call.gives, given, strict=False):
            for taker in part.takers[name]:
                if taker == self._learner.name:
                    held[name] = tensor.detach()
                else:
                    self._links.giving[taker].give(name, tensor)
        for name in messages:
            if part.last[name] == place:
                del held[name]
