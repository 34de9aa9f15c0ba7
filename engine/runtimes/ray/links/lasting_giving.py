"""The giver's end of a link that lasts longer than the taker: it gives the next taker again what that one lacks.

Whoever gives keeps what it gave since the newest states, by the step and the name of each message, and gives it again;
what a taker has had already is not sent a second time.

Nobody waits for ever on a partner that lives, for the reason given in `engine.runtimes.ray.links.ends`: what is given
again is sent by a thread of its own, so that a learner that itself waits for the lost one, or for somebody who does,
keeps nobody from catching up.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from engine.errors import EngineError
from engine.reading import first_line
from engine.runtimes.ray.failures import LostStep
from engine.runtimes.ray.links.ends import GivingEnd

# Looks of the driver in which it says that a partner is lost whose link has ended: it looks every few seconds while it
# waits for the learners, and not while it writes a long checkpoint. A link that ends between two that live is not
# mended, and whoever waits for it would wait for ever.
UNSAID_LOOKS = 24
_SLICE_SECONDS = 1.0

Looks = Callable[[], int]


def is_said_in_time(changed: threading.Condition, is_said: Callable[[], bool], looks: Looks) -> bool:
    """Wait until the driver has said what becomes of a partner whose link has ended; return whether it has.

    Args:
        changed: notified when something is said; held.
        is_said: whether it is said.
        looks: how often the driver has looked at this learner so far.
    """
    first = looks()
    while not changed.wait_for(is_said, _SLICE_SECONDS):
        if looks() - first >= UNSAID_LOOKS:
            return False
    return True


@dataclass(frozen=True)
class Position:
    """Where a taker is: it has had all messages of earlier steps, and some of this one.

    Attributes:
        step: number of the step, counted over all programs since the team was started.
        had: names of the messages of this step that it has had.
    """

    step: int
    had: frozenset[str] = frozenset()

    def wants(self, step: int, name: str) -> bool:
        """Return whether a message is still to come."""
        return step > self.step or (step == self.step and name not in self.had)


@dataclass(frozen=True)
class _Message:
    step: int
    name: str
    tensor: Tensor
    version: int


class _Changed(LostStep):
    """A message is no longer what was given: no failure, since its taker has had it, but nobody can have it again."""


class _Channel:
    """One end of a link as long as the partner lives; one thread at a time puts messages into it."""

    def __init__(self, end: GivingEnd, wanted: Position) -> None:
        self.end, self._wanted = end, wanted
        self._step = -1

    def put(self, message: _Message) -> None:
        if not self._wanted.wants(message.step, message.name):
            return
        if message.tensor._version != message.version:
            raise _Changed(f"message {message.name!r} was changed in place after it was given, and is lost")
        if message.step != self._step:
            self.end.end_step()
            self._step = message.step
        self.end.give(message.name, message.tensor)


class LastingGiving:
    """The giver's end of a link; as `GivingEnd`, through as many of them as there are takers one after another.

    Args:
        giver: name of the learner that gives.
        taker: name of the learner that takes.
        end: the first.
        wanted: where the taker is.
        step: with which this learner begins.
        looks: as of `is_said_in_time`.
    """

    def __init__(self, giver: str, taker: str, end: GivingEnd, wanted: Position, step: int, looks: Looks) -> None:
        self._giver, self._taker, self._looks = giver, taker, looks
        self._step = step
        self._changed = threading.Condition()
        self._channel: _Channel | None = _Channel(end, wanted)
        self._kept: list[_Message] = []
        self._keeps = self._gives_again = self._is_closed = False
        self.is_away = False
        """Whether the taker is away: what is given meanwhile, nobody has."""
        self._trouble: EngineError | None = None

    def keep_since(self, step: int | None) -> None:
        """Keep what is given from a step on, and let go of what was given before; None keeps nothing."""
        with self._changed:
            self._keeps = step is not None
            if self._is_direct:
                self._kept = [message for message in self._kept if step is not None and message.step >= step]

    @property
    def _is_direct(self) -> bool:
        """Whether what is given goes to the taker at once: it lacks nothing that is kept."""
        return self._channel is not None and not self._gives_again

    @property
    def kept_bytes(self) -> int:
        """Bytes of the messages that are kept."""
        with self._changed:
            return sum(message.tensor.nbytes for message in self._kept)

    def give(self, name: str, tensor: Tensor) -> None:
        """Send a message, or have it sent to the next taker; waits as `GivingEnd.give`, and until there is one.

        To a taker that is away nothing is sent.

        Raises:
            LostStep: the taker is gone, and nothing is kept for another.
            LearnerError: as `GivingEnd.give`.
        """
        message = _Message(self._step, name, tensor.detach(), tensor._version)
        with self._changed:
            if self.is_away:
                return
            channel = self._channel if self._is_direct else None
            if self._keeps or channel is None:
                self._kept.append(message)
        if channel is not None:
            try:
                channel.put(message)
            except LostStep:
                if not self._keeps:
                    raise
            else:
                return
            with self._changed:
                if not self._is_said(lambda: self._is_closed or self._channel is not channel):
                    raise self._lost("ended, though that one seems to live")
        with self._changed:
            # It is given again with all that came before it.
            self._changed.wait_for(
                lambda: self._is_closed or self._is_direct or self._trouble is not None or self.is_away
            )
            if self.is_away:
                return
            if self._trouble is not None:
                raise self._trouble
            if self._is_closed:
                raise self._lost("is closed")

    def _is_said(self, what: Callable[[], bool]) -> bool:
        return is_said_in_time(self._changed, what, self._looks)

    def _lost(self, how: str) -> LostStep:
        return LostStep(f"learner {self._giver}: the link to {self._taker} {how}")

    def end_step(self) -> None:
        """Count the step; the frame is left to the taker when the next one begins."""
        self._step += 1

    def part(self, *, goes_away: bool = False) -> None:
        """Drop the end of a taker that is lost; asked from another thread.

        Args:
            goes_away: whether nobody waits for it; when it returns, that is another link.
        """
        with self._changed:
            channel, self._channel = self._channel, None
            if goes_away:
                self.is_away = True
                self._kept.clear()
            self._changed.notify_all()
        if channel is not None:
            channel.end.hang_up()

    def link_again(self, end: GivingEnd, wanted: Position) -> None:
        """Give the next taker what is kept for it, and then go on; asked from another thread."""
        channel = _Channel(end, wanted)
        with self._changed:
            self._channel, self._gives_again, self._trouble = channel, True, None
            self._changed.notify_all()
        name = f"again to {self._taker}"
        threading.Thread(target=self._give_again, args=[channel], name=name, daemon=True).start()

    def _give_again(self, channel: _Channel) -> None:
        place = 0
        while (message := self._next(channel, place)) is not None:
            try:
                channel.put(message)
            except Exception as error:
                with self._changed:
                    # Lost once more: whoever waits for this taker waits for the next.
                    is_lost = isinstance(error, LostStep) and not isinstance(error, _Changed)
                    if is_lost and self._is_said(lambda: self._channel is not channel):
                        return
                    self._trouble = (
                        error if isinstance(error, EngineError) else self._lost(f"failed: {first_line(error)}")
                    )
                    self._changed.notify_all()
                # The giver may give nothing more, so that the taker is the one who has to hear of it.
                channel.end.hang_up()
                return
            place += 1

    def _next(self, channel: _Channel, place: int) -> _Message | None:
        """Return what is kept at a place; None at the end. Nothing is let go before that."""
        with self._changed:
            if self._channel is not channel:
                return None
            if place < len(self._kept):
                return self._kept[place]
            self._gives_again = False
            self._changed.notify_all()
            return None

    def close(self) -> None:
        """Send what was given, and end the link."""
        with self._changed:
            channel, self._is_closed = self._channel, True
            self._changed.notify_all()
        if channel is not None:
            channel.end.close()
