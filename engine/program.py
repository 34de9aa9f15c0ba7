"""The one idea of the engine: a training step is a short, static list of calls.

    Call(learner, phase, takes, gives)

A learner is what one actor owns, a phase is one of its methods, and `takes` and `gives` name messages. The list
is built once from the recipe, checked here, printed, sized, and run by interchangeable executors.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from engine.phases import PHASES

SOURCE = "source"
NEXT = "next"
BATCH = "batch"

_BYTES = {"uint8": 1, "int64": 8, "float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Message:
    """A named group of tensors that one call gives and others take.

    Attributes:
        name: unique in its program.
        parts: shape and dtype name of each tensor in it; the batch axis first, where it has one.
    """

    name: str
    parts: tuple[tuple[tuple[int, ...], str], ...]

    @property
    def bytes(self) -> int:
        """Bytes of the message for a full batch."""
        return sum(math.prod(shape) * _BYTES[dtype] for shape, dtype in self.parts)

    def describe(self) -> str:
        """Return the shapes and dtypes in words, such as ``128x16x32x32 float32``."""
        return ", ".join(f"{'x'.join(map(str, shape))} {dtype}" for shape, dtype in self.parts)


@dataclass(frozen=True)
class Call:
    """One phase of one learner, with the messages that it takes and gives."""

    learner: str
    phase: str
    takes: tuple[str, ...] = ()
    gives: tuple[str, ...] = ()

    def __str__(self) -> str:
        takes = f"({', '.join(self.takes)})" if self.takes else ""
        gives = f" -> {', '.join(self.gives)}" if self.gives else ""
        return f"{self.learner} {self.phase}{takes}{gives}"


class ProgramError(ValueError):
    """A program contradicts itself: a mistake in a method, never in a recipe."""


@dataclass(frozen=True)
class Program:
    """The calls of one step, in an order in which they can be run one after another.

    Attributes:
        calls: the list; the first is the source's, which gives the batch.
        messages: every message that a call gives, by name.
        name: unique in its team; runtimes know the program by it.

    Raises:
        ProgramError: the calls contradict one another, the messages, or `PHASES`.
    """

    calls: tuple[Call, ...]
    messages: Mapping[str, Message]
    name: str

    def __post_init__(self) -> None:
        """Check the phases; and that each message has one giver, is given before it is taken, and has a known size."""
        self._check_phases()
        given: set[str] = set()
        for call in self.calls:
            for name in call.takes:
                if name not in given:
                    raise ProgramError(f"{call} takes {name!r} before any call gives it")
            for name in call.gives:
                if name in given:
                    raise ProgramError(f"{call} gives {name!r}, which an earlier call gave already")
                if name not in self.messages:
                    raise ProgramError(f"{call} gives {name!r}, whose shape is not stated")
                given.add(name)
        unknown = set(self.messages) - given
        if unknown:
            raise ProgramError(f"messages that no call gives: {sorted(unknown)}")

    def _check_phases(self) -> None:
        uses: dict[str, Call] = {}
        for call in self.calls:
            if call.learner == SOURCE:
                if call.phase != NEXT:
                    raise ProgramError(f"{call}: unknown phase {call.phase!r}; the source has {NEXT!r} alone")
                continue
            phase = PHASES.get(call.phase)
            if phase is None:
                raise ProgramError(f"{call}: unknown phase {call.phase!r}; expected one of {', '.join(PHASES)}")
            if phase.takes_batch and BATCH not in call.takes:
                raise ProgramError(f"{call} does not take {BATCH!r}, which the phase {call.phase!r} needs")
            if not phase.takes_batch and BATCH in call.takes:
                raise ProgramError(f"{call} takes {BATCH!r}, which the phase {call.phase!r} does not look at")
            uses.setdefault(phase.use, call)
        if len(uses) > 1:
            first, second = uses.items()
            raise ProgramError(f"{first[1]} is {first[0]}, but {second[1]} is {second[0]}: they need programs apart")

    @property
    def learners(self) -> tuple[str, ...]:
        """Names of the learners that take part, in the order of their first calls."""
        return tuple(dict.fromkeys(call.learner for call in self.calls if call.learner != SOURCE))

    def at_work(self) -> tuple[tuple[str, frozenset[str]], ...]:
        """Return who makes each call, and which other learners are then between their first and their last one.

        One after another, those others hold what they keep for their backward passes.
        """
        names = [call.learner for call in self.calls]
        last = {name: place for place, name in enumerate(names)}
        return tuple(
            (own, frozenset(each for each in names[:place] if each not in (SOURCE, own) and last[each] > place))
            for place, own in enumerate(names)
            if own != SOURCE
        )

    def given_by(self, call: Call) -> tuple[Message, ...]:
        """Return the messages that a call of this program gives."""
        return tuple(self.messages[name] for name in call.gives)

    def last_taker(self, message: str) -> int | None:
        """Return the position of the last call that takes a message, after which it can be freed."""
        return max((place for place, call in enumerate(self.calls) if message in call.takes), default=None)

    def without(self, learners: Collection[str]) -> Program:
        """Return the program of those that are left when some learners are away: what these would give is not there."""
        gone = {name for call in self.calls if call.learner in learners for name in call.gives}
        calls = [
            Call(call.learner, call.phase, tuple(name for name in call.takes if name not in gone), call.gives)
            for call in self.calls
            if call.learner not in learners
        ]
        messages = {name: message for name, message in self.messages.items() if name not in gone}
        return Program(tuple(calls), messages, self.name)

    @property
    def bytes_per_step(self) -> int:
        """Bytes of all messages of one step."""
        return sum(message.bytes for message in self.messages.values())

    def describe(self) -> list[str]:
        """Return the program as aligned lines, one for each call, with the bytes of what it gives."""
        words = [str(call) for call in self.calls]
        width = max((len(text) for call, text in zip(self.calls, words, strict=True) if call.gives), default=0)
        lines = []
        for call, text in zip(self.calls, words, strict=True):
            sizes = "; ".join(
                f"{name}: {self.messages[name].describe()} = {self.messages[name].bytes:,} bytes" for name in call.gives
            )
            lines.append(f"{text:<{width}}  {sizes}".rstrip())
        return lines


def is_evaluation(program: Program) -> bool:
    """Return whether a program scores networks, or measures what they are scored with, and trains nothing."""
    return PHASES[program.calls[-1].phase].use == "evaluation"


def batch_message(
    batch_size: int, image_shape: Sequence[int], label_shape: Sequence[int] = (), label_dtype: str = "int64"
) -> Message:
    """Return the message that the source gives: uint8 images, labels as their task has them, and int64 indices."""
    images, labels = ((batch_size, *image_shape), "uint8"), ((batch_size, *label_shape), label_dtype)
    return Message(BATCH, (images, labels, ((batch_size,), "int64")))
