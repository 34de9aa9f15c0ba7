"""Runs programs on Ray actors that walk their own parts of it for many steps, with messages on direct links.

The driver hands out batches, several steps at a time, and collects answers; it never sees what the learners tell one
another. All actors get the same steps in the same order, with questions between the same two steps.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping
from typing import Any

from engine.checkpoints import LearnerState
from engine.data import Batch
from engine.errors import EngineError, LearnerLost
from engine.methods import Team
from engine.program import Program, is_evaluation
from engine.recipes.plan import default_window
from engine.runtimes.keeping import MOST_BYTES_ON_LINKS, bytes_kept_on_links, steps_before_full
from engine.runtimes.ray.actor_team import LearnerActors
from engine.runtimes.ray.chunks import STATE, Chunk
from engine.runtimes.ray.comeback import ComeBack
from engine.runtimes.ray.history import Asked, History
from engine.runtimes.ray.link_plan import LinkPlan
from engine.runtimes.ray.linked_learner import Answered
from engine.runtimes.ray.links import Route, Way
from engine.runtimes.ray.placement import CHUNK_BYTES
from engine.runtimes.runtime import Answer, Losses

# What is handed out at once should keep learners busy for about as long: an interruption waits for two of these, and
# from one call of an actor to the next it takes one or two thousandths of a second.
_CHUNK_SECONDS = 0.4
_MOST_STEPS = 64


class _Answer:
    """What learners say to one question."""

    def __init__(self, runtime: StreamRuntime, chunk: Chunk, place: int) -> None:
        self._runtime, self._chunk, self._place = runtime, chunk, place

    def result(self) -> dict[str, Any]:
        self._runtime.finish_chunk(self._chunk)
        return self._chunk.answers(self._place)


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
        self._window, self._fewest = window, default_window(len(team.names))
        self._step_bytes = max(program.bytes_per_step for program in team.training)
        # Two chunks are in flight at least: one that is walked, and one that is there when it ends.
        self._most_steps = _MOST_STEPS if window is None else max(1, window // 2)
        self._steps = 1
        self._open = Chunk()
        self._in_flight: deque[Chunk] = deque()
        self._come_back = ComeBack(actors, self, self._is_in_flight)
        self._links = LinkPlan(actors, tuple(team.programs.values()), timeout, way)
        self._links.make()

    def submit(self, program: Program, batch: Batch) -> None:
        """Take up one step; hand out all that were taken up once they are enough, or too large to wait for more."""
        returned = self._come_back.let_return(wait=is_evaluation(program))
        if returned:
            self._link_again(returned)
        if self._open.questions:
            # An answer must not depend on how the steps after the question go.
            self._hand_out()
        self._open.steps.append((program, batch))
        if len(self._open.steps) >= self._steps or self._open.bytes >= CHUNK_BYTES:
            self._hand_out()

    def _hand_out(self) -> None:
        if not (self._open.steps or self._open.questions):
            return
        most = self._window or max(self._fewest, 2 * self._steps)
        while self._in_flight and sum(each.size for each in self._in_flight) + len(self._open.steps) > most:
            self._finish_oldest()
        chunk, self._open = self._open, Chunk()
        chunk.hand_out(self._actors, self._come_back.history)
        self._in_flight.append(chunk)

    def _finish_oldest(self) -> None:
        # In flight until it is known to be done: a learner that is lost meanwhile may not have done it.
        chunk = self._in_flight[0]
        seconds = max(answers_of.seconds for answers_of in self._fetch(chunk).values())
        self._in_flight.popleft()
        if chunk.size:
            self._steps = max(1, min(self._most_steps, int(_CHUNK_SECONDS * chunk.size / max(seconds, 1e-9))))

    def ask(self, question: str) -> Answer:
        """Ask all learners a question after what was submitted; they answer while later steps are submitted.

        The question goes with the steps before it, when the next step is submitted or somebody wants to know.
        """
        if STATE in self._open.questions and self._come_back.history is not None:
            # Who takes up that state is asked again for what came after it, and nothing else.
            self._hand_out()
        self._open.questions.append(question)
        return _Answer(self, self._open, len(self._open.questions) - 1)

    def finish_chunk(self, chunk: Chunk) -> None:
        """Wait until all learners have finished a chunk."""
        if not chunk.is_handed_out:
            self._hand_out()
        self._fetch(chunk)

    def _fetch(self, chunk: Chunk) -> dict[str, Answered]:
        while True:
            try:
                others_wait = self._come_back.history is not None
                return chunk.result(self._actors, others_wait, self._come_back.away_learners)
            except LearnerLost as error:
                self._come_back.bring_back(error)

    wait = True

    def part_from(self, lost: Collection[str]) -> None:
        """Let the others drop their links to lost learners, and wait in the midst of what they do."""
        self._links.part_from(lost, set(self._actors) - set(lost))

    def are_built(self, history: History) -> None:
        """Nothing: the others wait for no end of anything."""

    def go_on(self, lost: Collection[str], history: History) -> Mapping[str, int]:
        """Link those that were built to the others, which do what they were asked for; nothing is asked again."""
        begins = history.begins
        assert begins is not None
        self._links.make_again(lost, begins)
        return {}

    @property
    def steps_in_flight(self) -> int:
        """As `Others.steps_in_flight`."""
        return sum(chunk.trained for chunk in self._in_flight)

    @property
    def are_evaluating(self) -> bool:
        """As `Others.are_evaluating`."""
        return self._open.evaluates or any(chunk.evaluates for chunk in self._in_flight)

    def go_without(self, away: Collection[str], history: History) -> Mapping[str, int]:
        """Let the others drop their links to those that are away; nothing is asked again."""
        for chunk in self._in_flight:
            chunk.leave_out(away)
        self._links.do_without(away)
        return {}

    def _link_again(self, returned: Collection[str]) -> None:
        """Link those that were away to the others, between two steps."""
        history = self._come_back.history
        assert history is not None
        self._links.make_again(returned, history.position)

    def _is_in_flight(self, asked: Asked) -> bool:
        return any(asked.name == each.name for chunk in self._in_flight for each in chunk.asked)

    def restore(self, states: Mapping[str, LearnerState]) -> None:
        """Give each learner the state of a checkpoint."""
        self._actors.restore(states)
        self._come_back.begin_with(states)

    def keep_for_losses(self, losses: Losses) -> str | None:
        """Let givers keep what they gave since the newest states from now on; as `Runtime.keep_for_losses`."""
        if len(list(self._actors)) < 2:
            return "there is no other that would wait for it"
        why_not = self._links.why_not_lasting()
        if why_not is not None:
            return why_not
        kept = bytes_kept_on_links(self._step_bytes, self._window or self._fewest)
        if not kept:
            return f"what a few steps give is more than the {MOST_BYTES_ON_LINKS // 2**20:,} MiB that are kept at most"
        self._most_steps = min(self._most_steps, max(1, steps_before_full(kept, self._step_bytes) // 2))
        self._come_back.keep(losses, kept)
        return None

    @property
    def needs_states(self) -> bool:
        """As `Runtime.needs_states`."""
        return self._come_back.needs_states

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
        ways = self._links.describe(learner)
        return f"messages: direct links{' ' if ways else ''}{ways} ({self._reason})"

    def close(self) -> None:
        """End the actors, and with them their links; see `LearnerActors.close`."""
        self._in_flight.clear()
        self._come_back.history = None
        self._come_back.away_learners.close()
        self._actors.close()
