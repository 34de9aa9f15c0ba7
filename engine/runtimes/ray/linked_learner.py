"""A learner on direct links: it meets its partners, walks its part of many steps, and meets again who was lost."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray

from engine.data import Batch
from engine.learners import Member
from engine.program import Program
from engine.runtimes.ray.doing import Doing
from engine.runtimes.ray.links import Address, LastingLinks, PlannedLink, Position, Rendezvous, copies_for
from engine.runtimes.ray.process_groups import LOOPBACK, talk_through
from engine.runtimes.ray.schedule import LearnerSchedule


@dataclass(frozen=True)
class Answered:
    """What an actor says of some steps.

    Attributes:
        seconds: that it took, waiting for partners included.
        answers: to the questions after them.
    """

    seconds: float
    answers: list[Any]


class Linked:
    """The links of a learner, and its schedule on them.

    Args:
        name: of the learner.
        doing: told what it has begun.
    """

    def __init__(self, name: str, doing: Doing) -> None:
        self._name, self._doing = name, doing
        self._links = LastingLinks(name, lambda: doing.looks)
        self._rendezvous: Rendezvous | None = None
        self._schedule: LearnerSchedule | None = None

    def listen(self, host: str | None) -> Address:
        """Return where partners can meet this learner: on its node, and on ``host`` if some are on other nodes."""
        self._rendezvous = Rendezvous(self._name, host)
        return self._rendezvous.address

    def link(
        self,
        learner: Member,
        links: Sequence[PlannedLink],
        secret: bytes,
        timeout: float,
        step: int,
        wanted: Mapping[str, Position],
    ) -> None:
        """Make links to partners, after all of them listen; for those who are linked already, in place of lost ones.

        Args:
            learner: who walks.
            links: as of `Rendezvous.meet`.
            secret: as of `Rendezvous.meet`.
            timeout: as of `Rendezvous.meet`.
            step: as of `LastingLinks.add`.
            wanted: as of `LastingLinks.add`.

        Raises:
            LostStep, LearnerError: as `Rendezvous.meet`.
        """
        talk_through(LOOPBACK if all(link.here for link in links) else ray.util.get_node_ip_address())
        assert self._rendezvous is not None
        met = self._rendezvous.meet(links, secret, copies_for(learner.device), timeout)
        self._links.add(met, wanted, step)

    def begin(self, learner: Member, programs: Sequence[Program]) -> None:
        """Take up the programs of the team, once all links are made."""
        self._schedule = LearnerSchedule(learner, programs, self._links, self._doing)

    def walk(self, steps: Sequence[tuple[str, Batch]], keep_since: int | None) -> None:
        """Run the learner's part of some steps.

        Args:
            steps: name of the program, and batch.
            keep_since: as of `LastingLinks.keep_since`.
        """
        assert self._schedule is not None
        self._links.keep_since(keep_since)
        for program, batch in steps:
            self._schedule.step(program, batch)

    def part_from(self, lost: Collection[str]) -> dict[str, Position]:
        """As `LastingLinks.part_from`."""
        return self._links.part_from(lost)

    def do_without(self, away: Collection[str]) -> None:
        """As `LastingLinks.do_without`."""
        self._links.do_without(away)

    def close(self) -> None:
        """Let the partners know, by ending the links to them."""
        self._links.close()
