"""What do the tests of lost learners share: a team of which each is lost when a test says so."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from engine.checkpoints import LearnerState
from engine.errors import LearnerError, LearnerLost
from engine.runtimes.ray.comeback import ComeBack
from engine.runtimes.ray.history import Asked, Given, History

NAMES = ("a", "b", "c")


def _lost(name: str) -> LearnerLost:
    return LearnerLost(name, "its process 7 died")


class Team:
    """Stands for the actors, for what becomes of the others, and for who decides; writes down what is asked of it."""

    wait = True

    def __init__(self, deaths: Sequence[set[str]], fails: str = "") -> None:
        self.deaths, self.fails = list(deaths), fails
        self.done: list[str] = []
        self.may, self.goes_on, self.is_built, self.are_evaluating = True, False, False, False
        self.is_hurried = False
        self.settling: list[Callable[[], None]] = []
        self.finishing: list[Callable[[], None]] = []
        self.asked: list[tuple[str, int]] = []
        self.come_back = ComeBack(self, self, lambda asked: asked.number > 1)  # type: ignore[arg-type]
        self.come_back.keep(self, 1000)

    def lost(self) -> dict[str, LearnerLost]:
        return {name: _lost(name) for name in (self.deaths.pop(0) if self.deaths else set())}

    def may_come_back(self, lost: Sequence[LearnerLost], steps: int) -> bool:
        self.done.append(f"may {' '.join(sorted(error.learner for error in lost))} {steps}")
        return self.may

    def gone_with(self, lost: Collection[str]) -> frozenset[str]:
        return frozenset(lost) if self.goes_on else frozenset()

    def may_go_on_without(self, lost: Sequence[LearnerLost]) -> bool:
        self.done.append(f"may go on without {' '.join(sorted(error.learner for error in lost))}")
        return self.may

    def have_left(self, lost: Sequence[LearnerLost], away: Collection[str], known: int) -> None:
        self.done.append(f"{' '.join(sorted(away))} left, known after {known}")

    def leave(self, names: Collection[str]) -> None:
        if self.fails:
            raise LearnerError(self.fails, "failed, too")
        self.done.append(f"leave {' '.join(sorted(names))}")

    def start_building(self, names: Collection[str]) -> Any:
        return SimpleNamespace(is_over=lambda _: self.is_built, handles={})

    def finish(self) -> None:
        if self.finishing:
            self.finishing.pop(0)()

    def take_up(self, building: Any) -> None:
        self.done.append("take up")

    def set_out(self, states: Mapping[str, LearnerState]) -> None:
        self.done.append(f"set out {' '.join(sorted(states))}")

    def go_without(self, away: Collection[str], history: History) -> Mapping[str, int]:
        self.done.append(f"go without {' '.join(sorted(away))}")
        return {"a": 2}

    def have_returned(self, returned: Collection[str], trained: int) -> None:
        self.done.append(f"{' '.join(returned)} returned after {trained}")

    def are_back(self) -> None:
        self.done.append("are back")

    def part_from(self, lost: Collection[str]) -> None:
        self.done.append(f"part from {' '.join(sorted(lost))}")

    def replace(self, names: Collection[str], states: Mapping[str, LearnerState], begin: Mapping[str, int]) -> None:
        if self.fails:
            raise LearnerError(self.fails, "could not be built")
        self.done.append(
            f"build {' '.join(sorted(names))}, begin {' '.join(str(begin[name]) for name in sorted(names))}"
        )

    def are_built(self, history: History) -> None:
        self.done.append("are built")

    def go_on(self, lost: Collection[str], history: History) -> Mapping[str, int]:
        self.done.append(f"go on with {' '.join(sorted(lost))}")
        return {}

    steps_in_flight = 1

    def settle(self, references: Sequence[Any], others_wait: bool, of_others: Mapping[Any, str]) -> None:
        assert others_wait
        # A failure of those that have not done all is one at once.
        self.watched = sorted(of_others.items())
        self.done.append(f"settle {' '.join(references)}")
        if self.settling:
            self.settling.pop(0)()

    def ask(self, steps: int) -> None:
        """Ask everybody for so many steps."""
        history = self.come_back.history
        assert history is not None
        for number in range(steps):
            history.add([self._asked(name, number) for name in NAMES], 10, 1, 1)

    def _asked(self, name: str, number: int) -> Asked:
        def send() -> Sequence[str]:
            self.asked.append((name, number))
            return [f"{name}{number}"]

        return Asked(name, number, send, (Given(f"{name}{number}"),))
