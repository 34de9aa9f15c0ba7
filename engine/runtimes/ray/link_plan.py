"""Linking a team: which direct links it has, how they come about, and come about again after a loss."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Sequence

from engine.program import Program
from engine.runtimes.ray.actor_team import LearnerActors
from engine.runtimes.ray.links import HAS_NAMELESS_MEMORY, WORDS, PlannedLink, Position, Route, Way, routes_of
from engine.runtimes.ray.links.rendezvous import SECRET_BYTES

# What passes through the memory of hosts can be kept there, and given again.
_LAST: tuple[Way, ...] = ("memory", "tcp")


class LinkPlan:
    """The links of a team of actors.

    Args:
        actors: the team.
        programs: that it runs.
        timeout: seconds in which the actors have to find one another.
        way: in which what a learner gives travels on each route.
    """

    def __init__(
        self, actors: LearnerActors, programs: Sequence[Program], timeout: float, way: Callable[[Route], Way]
    ) -> None:
        self._actors, self._programs, self._timeout, self._way = actors, tuple(programs), timeout, way
        self._links: dict[tuple[str, str], PlannedLink] = {}
        # By giver and taker: where a taker was when it was parted from the giver.
        self._positions: dict[tuple[str, str], Position] = {}

    def make(self) -> None:
        """Link all actors, once they are built.

        Raises:
            LearnerError: one did not come, or failed.
        """
        self._make(set(self._actors), routes_of(self._programs), set(self._actors), 0)

    def why_not_lasting(self) -> str | None:
        """Return why a link could not come about again if one of its ends is lost; None where all can."""
        for link in self._links.values():
            if link.way not in _LAST:
                return f"what {link.route.giver} gives {link.route.taker} travels {WORDS[link.way]}"
            if self._actors.places[link.route.giver]["gpu"]:
                return f"what {link.route.giver} gives would have to be kept in the memory of its GPU"
        return None

    def part_from(self, lost: Collection[str], others: Collection[str]) -> None:
        """Let the others drop their links to learners that are lost, and wait for those who come in their place.

        Args:
            lost: names of the learners.
            others: who live.

        Raises:
            LearnerError: one of the others has ended meanwhile.
        """
        actors, lost = self._actors, sorted(lost)
        told = actors.fetch_all({name: actors[name].part_from.remote(lost) for name in others})
        self._positions |= {(giver, taker): found[giver] for taker, found in told.items() for giver in found}

    def do_without(self, away: Collection[str]) -> None:
        """Let the team drop its links to learners that are no part of it any more, and go on without them.

        Raises:
            LearnerError: one of those that are left has ended meanwhile.
        """
        actors, away = self._actors, sorted(away)
        actors.fetch_all({name: actors[name].do_without.remote(away) for name in actors})

    def make_again(self, lost: Collection[str], step: int) -> None:
        """Link learners that were built anew to the others, and to one another.

        Args:
            lost: names of the learners.
            step: with which they begin.

        Raises:
            LearnerError: one did not come, or failed.
        """
        routes = [link.route for pair, link in self._links.items() if set(pair) & set(lost)]
        partners = {name for route in routes for name in (route.giver, route.taker)}
        self._make(partners | set(lost), routes, lost, step)
        self._positions.clear()

    def _make(self, names: Collection[str], routes: Sequence[Route], new: Collection[str], step: int) -> None:
        actors, places = self._actors, self._actors.places
        here = [HAS_NAMELESS_MEMORY and places[r.giver]["node"] == places[r.taker]["node"] for r in routes]
        called = {route.taker for route, is_here in zip(routes, here, strict=True) if not is_here}
        hosts = {name: places[name]["address"] if name in called else None for name in names}
        addresses = actors.fetch_all({name: actors[name].listen.remote(host) for name, host in hosts.items()})
        links = [
            PlannedLink(route, self._way(route), is_here, addresses[route.taker])
            for route, is_here in zip(routes, here, strict=True)
        ]
        secret = secrets.token_bytes(SECRET_BYTES)
        answers = {}
        for name in names:
            wanted = {
                taker: position
                for (giver, taker), position in self._positions.items()
                if giver == name and taker in names and taker not in new
            }
            programs = self._programs if name in new else None
            answers[name] = actors[name].link.remote(programs, links, secret, self._timeout, step, wanted)
        actors.fetch_all(answers)
        self._links |= {(link.route.giver, link.route.taker): link for link in links}

    def describe(self, learner: str) -> str:
        """Return how what a learner gives travels, in words; empty where it gives nothing."""
        links = [link for link in self._links.values() if link.route.giver == learner]
        return ", ".join(f"to {link.route.taker} {WORDS[link.way]}" for link in links)
