"""Does ASHA decide the same when a trial was lost and is tried again?"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from engine.search import Trial
from engine.search.halving import Halving
from engine.search.trainable import EPOCH

# Each epoch of each trial in turn, as one place for trials gives them; the better come first.
SCORES = {0: [0.9, 0.95], 1: [0.5, 0.6], 2: [0.7, 0.8], 3: [0.6, 0.7], 4: [0.8, 0.9]}


def _decisions(lost: dict[int, int]) -> list[tuple[int, int, str]]:
    """What ASHA says to each evaluation; trials of `lost` lose their process after so many of them, once."""
    of_tune: dict[str, Trial] = {}
    asha = Halving(of_tune, time_attr=EPOCH, metric="accuracy", mode="max", max_t=3, grace_period=1, reduction_factor=2)
    controller: Any = None
    found = []
    for number, scores in SCORES.items():
        tries = [scores[: lost[number]], scores] if number in lost else [scores]
        said: dict[int, str] = {}
        for place, reports in enumerate(tries):
            tune_trial = SimpleNamespace(trial_id=f"{number}-{place}")
            of_tune[tune_trial.trial_id] = Trial(number, {})
            asha.on_trial_add(controller, tune_trial)
            for epoch, score in enumerate(reports, 1):
                said[epoch] = asha.on_trial_result(controller, tune_trial, {EPOCH: epoch, "accuracy": score})
                if said[epoch] == "STOP":
                    break
        found += [(number, epoch, word) for epoch, word in said.items()]
    return found


def test_a_trial_that_is_tried_again_keeps_its_places() -> None:
    undisturbed = _decisions({})
    assert {word for _, _, word in undisturbed} == {"CONTINUE", "STOP"}
    assert _decisions({0: 1, 2: 1, 4: 1}) == undisturbed
