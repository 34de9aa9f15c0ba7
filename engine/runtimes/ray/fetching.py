"""Fetching what a team of actors answers, while it is looked who hangs and who is gone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ray

from engine.runtimes.ray.culprits import CHECK_SECONDS, Culprits
from engine.runtimes.ray.stalls import Stalls
from engine.runtimes.ray.waiting import SLICE_SECONDS, check_after, check_alive, get_while_alive, waiting_for_ray


class Fetching:
    """Fetches from a team's actors.

    Args:
        culprits: says who is to blame for a failure.

    Attributes:
        stalls: looks for learners that hang; None before there are any.
    """

    def __init__(self, culprits: Culprits) -> None:
        self._culprits = culprits
        self.stalls: Stalls | None = None

    def fetch_all(self, references: Mapping[str, Any], others_wait: bool = False) -> dict[str, Any]:
        """Return what references hold, by learner.

        Args:
            references: by learner.
            others_wait: whether those that live wait for one that is lost, and do not fail.

        Raises:
            LearnerError: names the learner that failed first.
        """
        waiting = list(references.values())
        look = self._look_for_lost if others_wait else self._look
        while True:
            try:
                return dict(zip(references, get_while_alive(waiting, look), strict=True))
            except ray.exceptions.RayError as error:
                ray_is_checked = check_after(error)
            # One by one, to know whose it was: first those that have an answer, because others may wait for a partner
            # that is no more, and for ever if they wait for one in its place.
            ready, _ = ray.wait(waiting, num_returns=len(waiting), timeout=0 if others_wait else CHECK_SECONDS)
            order = sorted(references, key=lambda name: references[name] not in ready)
            for name in order[: len(ready)] if others_wait else order:
                self._fetch(name, references[name], ray_is_checked)

    def _look(self) -> None:
        if self.stalls is not None:
            self.stalls.look()

    def _look_for_lost(self) -> None:
        self._look()
        # One that had done all that it was asked for is told by nothing that is waited for.
        if self.stalls is not None and self.stalls.are_gone:
            for error in self._culprits.lost().values():
                raise error

    def _fetch(self, learner: str, reference: Any, ray_is_checked: bool) -> Any:
        try:
            return get_while_alive(reference, self._look)
        except ray.exceptions.RayError as error:
            raise self._culprits.blame(learner, error, ray_is_checked) from None

    def settle(
        self, references: Sequence[Any], others_wait: bool = False, of_others: Mapping[Any, str] | None = None
    ) -> None:
        """Wait until references hold something, be it an error.

        Args:
            references: in any order.
            others_wait: as of `fetch_all`.
            of_others: further references, and whose they are, in which an error is one at once: those that are waited
                for may wait for whoever has failed.

        Raises:
            LearnerLost: a learner hangs, or one has ended for which others wait.
            LearnerError: one of the others has failed.
        """
        waiting, watched = list(references), dict(of_others or {})
        look = self._look_for_lost if others_wait else self._look
        with waiting_for_ray():
            check_alive()
            while waiting:
                _, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=SLICE_SECONDS, fetch_local=False)
                if not waiting:
                    return
                check_alive()
                look()
                answered, _ = ray.wait(list(watched), num_returns=len(watched), timeout=0) if watched else ([], [])
                for reference in answered:
                    self._fetch(watched.pop(reference), reference, False)
