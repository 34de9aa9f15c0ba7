"""Asynchronous successive halving (ASHA), also for trials that are tried again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray.tune.schedulers import ASHAScheduler

from engine.search.trial import Trial


class Halving(ASHAScheduler):
    """ASHA (Li et al. 2020) in which a trial that was lost and is tried again keeps its places.

    Ray Tune takes each try for a trial of its own. What one try was compared by would count twice, and the next one
    would be compared with trials that came after it: the search would choose otherwise than an undisturbed one.

    Args:
        of_tune: trials by Ray Tune's names for them.
        settings: what `ray.tune.schedulers.ASHAScheduler` takes.
    """

    def __init__(self, of_tune: Mapping[str, Trial], **settings: Any) -> None:
        super().__init__(**settings)
        self._of_tune = of_tune
        self._newest: dict[int, str] = {}

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Begin with a trial, with the places of its earlier try if there was one."""
        super().on_trial_add(tune_controller, trial)
        number = self._of_tune[trial.trial_id].number
        earlier = self._newest.get(number)
        self._newest[number] = trial.trial_id
        if earlier is None:
            return
        for bracket in self._brackets:
            for _, recorded in bracket._rungs:
                if earlier in recorded:
                    recorded[trial.trial_id] = recorded.pop(earlier)
