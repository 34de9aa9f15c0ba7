"""Is it told at once that a learner died or failed, though what others do is still waited for?"""

from __future__ import annotations

from collections.abc import Callable, Collection
from types import SimpleNamespace
from typing import Any

import pytest
import ray.exceptions

from engine.errors import LearnerError, LearnerLost
from engine.runtimes.ray import fetching
from engine.runtimes.ray.fetching import Fetching
from tests.runtimes.scripted_team import NAMES, _lost


class Answers:
    """Stands for Ray: who has answered, and who has died."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, died: str, waiting: Collection[str]) -> None:
        self.died, self.waiting = died, waiting
        self.asked: list[str] = []
        monkeypatch.setattr(fetching, "get_while_alive", self._get)
        monkeypatch.setattr(fetching, "check_after", lambda _: True)
        monkeypatch.setattr(fetching, "ray", SimpleNamespace(exceptions=ray.exceptions, wait=self._wait))

    def _get(self, references: Any, look: Callable[[], None]) -> Any:
        look()
        if isinstance(references, list) and self.died in references:
            raise ray.exceptions.RayError
        if not isinstance(references, list):
            assert references not in self.waiting, "it would be waited for, for ever"
            self.asked.append(references)
            if references == self.died:
                raise ray.exceptions.RayError
        return references

    def _wait(self, references: list[str], num_returns: int, timeout: float) -> tuple[list[str], list[str]]:
        assert timeout == 0
        ready = [each for each in references if each not in self.waiting]
        return ready, [each for each in references if each in self.waiting]


def test_a_death_is_told_though_the_others_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = Answers(monkeypatch, died="c", waiting={"a"})
    culprits: Any = SimpleNamespace(blame=lambda learner, *_: _lost(learner))
    with pytest.raises(LearnerLost, match="learner c"):
        Fetching(culprits).fetch_all({name: name for name in NAMES}, others_wait=True)
    assert answers.asked == ["b", "c"]


@pytest.mark.parametrize("others_wait", [True, False])
def test_one_that_had_done_all_is_told_by_its_silence(others_wait: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    Answers(monkeypatch, died="nobody", waiting=())
    culprits: Any = SimpleNamespace(lost=lambda: {"b": _lost("b")})
    fetches = Fetching(culprits)
    fetches.stalls = SimpleNamespace(look=lambda: None, are_gone=True)  # type: ignore[assignment]
    if others_wait:
        with pytest.raises(LearnerLost, match="learner b"):
            fetches.fetch_all({"a": "a"}, others_wait=True)
    else:
        assert fetches.fetch_all({"a": "a"}) == {"a": "a"}


def test_what_another_fails_with_is_told_while_one_catches_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that catches up may wait for the one that has failed."""

    def wait(references: list[str], num_returns: int, timeout: float, **_: Any) -> tuple[list[str], list[str]]:
        done = [each for each in references if each != "catches up"]
        return done, [each for each in references if each == "catches up"]

    monkeypatch.setattr(fetching, "ray", SimpleNamespace(exceptions=ray.exceptions, wait=wait))
    monkeypatch.setattr(fetching, "check_after", lambda _: False)

    def get(reference: str, look: Callable[[], None]) -> str:
        if reference == "failed":
            raise ray.exceptions.RayError
        return reference

    monkeypatch.setattr(fetching, "get_while_alive", get)
    culprits: Any = SimpleNamespace(blame=lambda learner, *_: LearnerError(learner, "loss is not finite"))
    with pytest.raises(LearnerError, match="learner c: loss is not finite"):
        Fetching(culprits).settle(["catches up"], others_wait=True, of_others={"done": "b", "failed": "c"})
