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

    def begin(self, network: str, cause: str, since: int) -> None:
        """Take note that the others go on without a network; as of `Absence`."""
        self.found.append(Absence(network, cause, since, None))

    def end(self, network: str, until: int) -> None:
        """Take note that it takes part again, after a step of the others."""
        self.found = [
            dataclasses.replace(each, until=until) if each.network == network and each.until is None else each
            for each in self.found
        ]

    def go_on_from(self, step: int) -> None:
        """Take note that all learners begin again with what they knew after a step: later absences never were."""
        self.found = [each for each in self.found if each.since < step]
        for each in self.found:
            self.end(each.network, step)

    def to_json(self) -> list[dict[str, Any]]:
        """Return JSON values, for a checkpoint."""
        return [dataclasses.asdict(each) for each in self.found]

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
