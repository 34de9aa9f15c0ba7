"""Routes: which messages travel straight between which learners, and how much memory that takes.

Pure arithmetic on programs: both ends of a link, and the dry run, come to the same answer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from engine.program import BATCH, Program

# Every message begins at a multiple of this, which suits vector instructions and every dtype.
ALIGNMENT = 64
# Frames of a link. One is read while the other is written; more would only let learners drift apart.
FRAMES = 2


@dataclass(frozen=True)
class Route:
    """All that one learner gives another, over all programs.

    Attributes:
        giver: name of the learner that gives.
        taker: name of the learner that takes.
        names: of the messages; a message is known by its place here.
        frame_bytes: most bytes of one step.
    """

    giver: str
    taker: str
    names: tuple[str, ...]
    frame_bytes: int

    @property
    def bytes(self) -> int:
        """Memory of the whole ring."""
        return self.frame_bytes * FRAMES


def aligned(size: int) -> int:
    """Return the bytes that a message of so many bytes takes up in a frame; never none."""
    return max(1, math.ceil(size / ALIGNMENT)) * ALIGNMENT


def takers_of(program: Program) -> dict[str, tuple[str, ...]]:
    """Return the learners that take each message, the giver itself among them where it does; without the batch."""
    return {
        name: tuple(dict.fromkeys(call.learner for call in program.calls if name in call.takes))
        for name in program.messages
        if name != BATCH
    }


def routes_of(programs: Iterable[Program]) -> tuple[Route, ...]:
    """Return one route for each pair of learners of which one gives the other something in some program.

    A step's messages of a pair share a frame, so a frame is as large as the largest program needs: evaluation batches
    may be larger than training ones.
    """
    names: dict[tuple[str, str], dict[str, None]] = {}
    sizes: dict[tuple[str, str], int] = {}
    for program in programs:
        for pair, found in messages_by_pair(program).items():
            names.setdefault(pair, {}).update(dict.fromkeys(found))
            size = sum(aligned(program.messages[name].bytes) for name in found)
            sizes[pair] = max(sizes.get(pair, 0), size)
    return tuple(Route(*pair, tuple(found), sizes[pair]) for pair, found in names.items())


def messages_by_pair(program: Program) -> Mapping[tuple[str, str], tuple[str, ...]]:
    """Return what each (giver, taker) of two different learners exchanges in a step, in the order of giving."""
    takers, pairs = takers_of(program), dict[tuple[str, str], tuple[str, ...]]()
    for call in program.calls:
        for name in call.gives:
            for taker in takers.get(name, ()):
                if taker != call.learner:
                    pair = (call.learner, taker)
                    pairs[pair] = (*pairs.get(pair, ()), name)
    return pairs
