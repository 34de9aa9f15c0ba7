"""Links that last longer than one of their ends: a learner that is lost and built anew is linked to the others again.

While a partner is gone, the others wait with what they know. What comes a second time from the next one is what was not
taken yet, see `engine.runtimes.ray.links.lasting_giving`.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping

from torch import Tensor

from engine.runtimes.ray.failures import LostStep
from engine.runtimes.ray.links.ends import TakingEnd
from engine.runtimes.ray.links.lasting_giving import LastingGiving, Looks, Position, is_said_in_time
from engine.runtimes.ray.links.rendezvous import Links


class LastingTaking:
    """The taker's end of a link; as `TakingEnd`, through as many of them as there are givers one after another.

    Args:
        taker: name of the learner that takes.
        giver: name of the learner that gives.
        end: the first.
        step: with which this learner begins.
        looks: as of `is_said_in_time`.
    """

    def __init__(self, taker: str, giver: str, end: TakingEnd, step: int, looks: Looks) -> None:
        self._taker, self._giver, self._looks = taker, giver, looks
        self._changed = threading.Condition()
        self._end: TakingEnd | None = end
        self._step = step
        self._had = set[str]()
        self._waits = self._is_closed = False
        self.is_away = False
        """Whether the giver is away: there is nothing to be taken, and nobody waits for it."""

    def keep_since(self, step: int | None) -> None:
        """Wait for another giver from now on, should this one be lost; None does not."""
        self._waits = step is not None

    def take(self, name: str) -> Tensor | None:
        """Return a message; waits until it is there, whoever gives it. None while the giver is away.

        Raises:
            LostStep: the giver is gone, and no other is to come.
        """
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._is_closed or self.is_away or self._end is not None)
                end = self._end
            if self.is_away:
                return None
            if self._is_closed or end is None:
                raise LostStep(f"learner {self._taker}: the link to {self._giver} is closed")
            try:
                tensor = end.take(name)
            except LostStep:
                if not (self._waits and self._is_parted_from(end)):
                    raise
                continue
            with self._changed:
                # Else the position is told already, and it comes again.
                if self._end is end:
                    self._had.add(name)
                    return tensor

    def _is_parted_from(self, end: TakingEnd) -> bool:
        with self._changed:
            return is_said_in_time(self._changed, lambda: self._is_closed or self._end is not end, self._looks)

    def end_step(self) -> None:
        """As `TakingEnd.end_step`, and count the step."""
        with self._changed:
            self._step, end = self._step + 1, self._end
            self._had.clear()
        if end is not None:
            end.end_step()

    def part(self, *, goes_away: bool = False) -> Position:
        """Drop the end of a giver that is lost; returns where this learner is. Asked from another thread.

        Args:
            goes_away: whether nobody waits for it; when it returns, that is another link.
        """
        with self._changed:
            end, self._end = self._end, None
            self.is_away = goes_away
            position = Position(self._step, frozenset(self._had))
            self._changed.notify_all()
        if end is not None:
            end.close()
        return position

    def link_again(self, end: TakingEnd) -> None:
        """Take from another giver; asked from another thread."""
        with self._changed:
            self._end = end
            self._changed.notify_all()

    def close(self) -> None:
        """End the link."""
        with self._changed:
            end, self._is_closed = self._end, True
            self._changed.notify_all()
        if end is not None:
            end.close()


class LastingLinks:
    """A learner's ends of its links, each of which outlives a partner that is lost.

    Args:
        learner: its name.
        looks: how often the driver has looked at it so far.

    Attributes:
        giving: by the name of the taker.
        taking: by the name of the giver.
    """

    def __init__(self, learner: str, looks: Looks) -> None:
        self._learner, self._looks = learner, looks
        self.giving: dict[str, LastingGiving] = {}
        self.taking: dict[str, LastingTaking] = {}

    def add(self, links: Links, wanted: Mapping[str, Position], step: int) -> None:
        """Take up ends of links, to partners that are new or come in the place of others.

        Args:
            links: the ends.
            wanted: where each taker is; at the same step as this learner where nothing is said.
            step: with which this learner begins, of links to new partners.
        """
        for taker, giving in links.giving.items():
            position = wanted.get(taker, Position(step))
            if taker in self.giving and not self.giving[taker].is_away:
                self.giving[taker].link_again(giving, position)
            else:
                self.giving[taker] = LastingGiving(self._learner, taker, giving, position, step, self._looks)
        for giver, taking in links.taking.items():
            if giver in self.taking and not self.taking[giver].is_away:
                self.taking[giver].link_again(taking)
            else:
                self.taking[giver] = LastingTaking(self._learner, giver, taking, step, self._looks)

    def keep_since(self, step: int | None) -> None:
        """Be ready for others in place of partners, who begin at a step or later; None lets a loss be an error."""
        for giving in self.giving.values():
            giving.keep_since(step)
        for taking in self.taking.values():
            taking.keep_since(step)

    def part_from(self, lost: Collection[str]) -> dict[str, Position]:
        """Drop the ends of partners that are lost; returns where this learner is in what each of them gave it."""
        for name in lost:
            if name in self.giving:
                self.giving[name].part()
        return {name: self.taking[name].part() for name in lost if name in self.taking}

    def do_without(self, away: Collection[str]) -> None:
        """Drop the ends of partners, and neither wait for them nor keep anything until they are linked again."""
        for name in away:
            if name in self.giving:
                self.giving[name].part(goes_away=True)
            if name in self.taking:
                self.taking[name].part(goes_away=True)

    def close(self) -> None:
        """End all of them: every partner that waits for this learner wakes up."""
        for giving in self.giving.values():
            giving.close()
        for taking in self.taking.values():
            taking.close()
