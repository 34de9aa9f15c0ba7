"""Absences: networks of a cohort that were away for some steps, while the others went on without them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from engine.training.result import Absence


class Absences:
    """Keeps the absences of a run, of which its numbers are not those of an undisturbed one.

    Attributes:
        found: in their order.
    """

    def __init__(self) -> None:
        self.found: list[Absence] = []

    def begin(self, network: str, cause: str, known: int) -> int:
        """Take note that the others go on without a network.

        Args:
            network: its name.
            cause: who was lost, and how.
            known: step after which all had their newest states. That of one that was away then is older.

        Returns:
            the step after which it had the state with which it returns.
        """
        earlier = (each for each in self.found if each.network == network and each.since <= known)
        since = min((each.since for each in earlier if each.until is None or known <= each.until), default=known)
        self.found.append(Absence(network, cause, since, None))
        return since

    def end(self, network: str, until: int) -> None:
        """Take note that it takes part again, after a step of the others."""
        self.found = [
            dataclasses.replace(each, until=until) if each.network == network and each.until is None else each
            for each in self.found
        ]

    def go_on_from(self, step: int) -> None:
        """Take note that all learners begin again with what they knew after a step: later absences never were."""
        self.found = [
            dataclasses.replace(each, until=step if each.until is None else min(each.until, step))
            for each in self.found
            if each.since < step
        ]

    def to_json(self, step: int) -> list[dict[str, Any]]:
        """Return JSON values as they were after a step, for a checkpoint."""
        return [
            dataclasses.asdict(each) | {"until": each.until if each.until is None or each.until <= step else None}
            for each in self.found
            if each.since < step
        ]

    def load(self, values: Iterable[Mapping[str, Any]]) -> None:
        """Take up those of a checkpoint."""
        self.found = [Absence(**each) for each in values]

    def describe(self) -> list[str]:
        """Return each in words."""
        return [
            f"{each.network} was away after step {each.since:,} until "
            f"{'the end' if each.until is None else f'step {each.until:,}'}: these numbers are not those of an "
            "undisturbed run"
            for each in self.found
        ]
