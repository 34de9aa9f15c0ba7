"""Runs programs on Ray actors that walk their own parts of it for many steps, with messages on direct links.

The driver hands out batches, several steps at a time, and collects answers; it never sees what the learners tell one
another. All actors get the same steps in the same order, with questions between the same two steps.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import ray

from engine.checkpoints import LearnerState
from engine.data import Batch
from engine.errors import EngineError
from engine.methods import Team
from engine.program import Program
from engine.recipes.plan import default_window
from engine.runtimes.ray.actor import Answered
from engine.runtimes.ray.actors import LearnerActors
from engine.runtimes.ray.links import HAS_NAMELESS_MEMORY, WORDS, PlannedLink, Route, Way, routes_of
from engine.runtimes.ray.links.rendezvous import SECRET_BYTES
from engine.runtimes.ray.placement import CHUNK_BYTES
from engine.runtimes.ray.waiting import waiting_for_ray
from engine.runtimes.runtime import Answer, Losses

# What is handed out at once should keep learners busy for about as long: an interruption waits for two of these, and
# from one call of an actor to the next it takes one or two thousandths of a second.
_CHUNK_SECONDS = 0.4
_MOST_STEPS = 64


class _Chunk:
    """Steps, and questions after them, that are handed out together.

    Attributes:
        steps: the name of the program, and the batch.
        questions: asked after the last step.
        size: how many steps were handed out.
    """

    def __init__(self) -> None:
        self.steps: list[tuple[str, Batch]] = []
        self.questions: list[str] = []
        self.size = 0
        self._references: dict[str, Any] | None = None
        self._answers: dict[str, Answered] = {}

    @property
    def is_handed_out(self) -> bool:
        """Whether the actors have it."""
        return self._references is not None

    @property
    def bytes(self) -> int:
        """Bytes of the images."""
        return sum(batch.images.nbytes for _, batch in self.steps)

    def hand_out(self, actors: LearnerActors) -> None:
        """Let all actors walk the steps, and answer."""
        # One object, which all actors of a node read without a copy.
        with waiting_for_ray():
            steps = ray.put(tuple(self.steps))
        self._references = {
            name: actors[name].run_schedule.remote(actors.number(name), steps, self.questions) for name in actors
        }
        self.size, self.steps = len(self.steps), []

    def result(self, actors: LearnerActors) -> dict[str, Answered]:
        """Return what each actor said, once all have finished."""
        assert self._references is not None
        self._answers = self._answers or actors.fetch_all(self._references)
        return self._answers


class _Answer:
    """What learners say to one question."""

    def __init__(self, runtime: StreamRuntime, chunk: _Chunk, place: int) -> None:
        self._runtime, self._chunk, self._place = runtime, chunk, place

    def result(self) -> dict[str, Any]:
        answers = self._runtime.answers_of(self._chunk)
        return {name: answers_of.answers[self._place] for name, answers_of in answers.items()}


class StreamRuntime:
    """A team of actors whose messages travel on links of their own.

    Args:
        actors: the team, which ends with the runtime.
        team: whose programs are run.
        window: steps in flight, as the plan says; None leaves it open, but for twice the learners.
        timeout: seconds in which the actors have to find one another.
        reason: why messages travel in this way.
        way: in which what a learner gives travels on each route.
    """

    def __init__(
        self,
        actors: LearnerActors,
        team: Team,
        window: int | None,
        timeout: float,
        reason: str,
        way: Callable[[Route], Way],
    ) -> None:
        self._actors, self._reason = actors, reason
        self._programs = tuple(team.programs.values())
        self._window = window
        self._fewest = default_window(len(team.names))
        # Two chunks are in flight at least: one that is walked, and one that is there when it ends.
        self._most_steps = _MOST_STEPS if window is None else max(1, window // 2)
        self._steps = 1
        self._open = _Chunk()
        self._in_flight: deque[_Chunk] = deque()
        self._links = self._link(timeout, way)

    def _link(self, timeout: float, way: Callable[[Route], Way]) -> list[PlannedLink]:
        actors, places, routes = self._actors, self._actors.places, routes_of(self._programs)
        here = [HAS_NAMELESS_MEMORY and places[r.giver]["node"] == places[r.taker]["node"] for r in routes]
        called = {route.taker for route, is_here in zip(routes, here, strict=True) if not is_here}
        addresses = actors.fetch_all(
            {n: actors[n].listen.remote(places[n]["address"] if n in called else None) for n in actors}
        )
        links = [
            PlannedLink(route, way(route), is_here, addresses[route.taker])
            for route, is_here in zip(routes, here, strict=True)
        ]
        secret = secrets.token_bytes(SECRET_BYTES)
        actors.fetch_all({n: actors[n].link.remote(self._programs, links, secret, timeout) for n in actors})
        return links

    def submit(self, program: Program, batch: Batch) -> None:
        """Take up one step; hand out all that were taken up once they are enough, or too large to wait for more."""
        if self._open.questions:
            # An answer must not depend on how the steps after the question go.
            self._hand_out()
        self._open.steps.append((program.name, batch))
        if len(self._open.steps) >= self._steps or self._open.bytes >= CHUNK_BYTES:
            self._hand_out()

    def _hand_out(self) -> None:
        if not (self._open.steps or self._open.questions):
            return
        most = self._window or max(self._fewest, 2 * self._steps)
        while self._in_flight and sum(each.size for each in self._in_flight) + len(self._open.steps) > most:
            self._finish_oldest()
        chunk, self._open = self._open, _Chunk()
        chunk.hand_out(self._actors)
        self._in_flight.append(chunk)

    def _finish_oldest(self) -> None:
        chunk = self._in_flight.popleft()
        seconds = max(answers_of.seconds for answers_of in chunk.result(self._actors).values())
        if chunk.size:
            self._steps = max(1, min(self._most_steps, int(_CHUNK_SECONDS * chunk.size / max(seconds, 1e-9))))

    def ask(self, question: str) -> Answer:
        """Ask all learners a question after what was submitted; they answer while later steps are submitted.

        The question goes with the steps before it, when the next step is submitted or somebody wants to know.
        """
        self._open.questions.append(question)
        return _Answer(self, self._open, len(self._open.questions) - 1)

    def answers_of(self, chunk: _Chunk) -> dict[str, Answered]:
        """Return what the learners said of a chunk, once all have finished it."""
        if not chunk.is_handed_out:
            self._hand_out()
        return chunk.result(self._actors)

    def restore(self, states: Mapping[str, LearnerState]) -> None:
        """Give each learner the state of a checkpoint."""
        self._actors.restore(states)

    def keep_for_losses(self, losses: Losses) -> bool:
        """Nothing that has passed a link is kept."""
        return False

    needs_states = False

    def finish(self) -> None:
        """Wait for all that was submitted."""
        self._hand_out()
        while self._in_flight:
            self._finish_oldest()

    def notice(self) -> EngineError | None:
        """As `LearnerActors.notice`."""
        return self._actors.notice()

    def activity(self) -> float | None:
        """As `LearnerActors.activity`."""
        return self._actors.activity()

    def abandon(self) -> None:
        """As `LearnerActors.abandon`."""
        self._actors.abandon()

    def describe(self) -> dict[str, str]:
        """Return where each learner lives and how what it gives travels, in words."""
        return self._actors.describe({name: self._note(name) for name in self._actors})

    def _note(self, learner: str) -> str:
        ways = [f"to {link.route.taker} {WORDS[link.way]}" for link in self._links if link.route.giver == learner]
        return f"messages: direct links{' ' if ways else ''}{', '.join(ways)} ({self._reason})"

    def close(self) -> None:
        """End the actors, and with them their links; see `LearnerActors.close`."""
        self._in_flight.clear()
        self._actors.close()
