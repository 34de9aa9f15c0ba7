"""Does TPE learn from earlier trials, and go on as if it had never stopped?"""

from __future__ import annotations

import builtins
import dataclasses
import json
import math
import random
import statistics
from collections.abc import Sequence
from typing import Any

import pytest
from ray import tune

from engine.errors import InputError, PlanError, RecipeError
from engine.search import Sweep, Trial
from engine.search.searcher import TrialQueue, importances, suggested
from engine.search.settings import drawn

SPACE = {
    "method.reconstruction_weight": tune.loguniform(1e-3, 1e3),
    "method.classification_weight": tune.uniform(0.0, 1.0),
    "method.num_segments": tune.choice([1, 2, 4, 7]),
}


def _sweep(**changes: Any) -> Sweep:
    fields = {"name": "s", "recipe": "infopro_digits", "space": SPACE, "searcher": "tpe", "num_samples": 30}
    return Sweep(**{**fields, **changes})


def _toy(settings: Any) -> float:
    """An accuracy that is best at 10 ** 1 and K = 4, and for which the second weight decides nothing."""
    away = (math.log10(settings["method.reconstruction_weight"]) - 1) ** 2
    return math.exp(-away) - 0.3 * abs(settings["method.num_segments"] - 4)


def _searched(sweep: Sweep, count: int, known: Sequence[Trial] = ()) -> list[Trial]:
    """Let TPE choose one after another, each with the scores of all before it."""
    trials = list(known)
    while len(trials) < count:
        number = len(trials)
        settings = suggested(sweep, trials, number)
        trials.append(Trial(number, settings, "finished", 1, {sweep.judged_by: _toy(settings)}))
    return trials


def test_the_same_trials_give_the_same_suggestion() -> None:
    sweep = _sweep()
    trials = _searched(sweep, 14)
    random.seed(1)
    first = suggested(sweep, trials, 14)
    random.seed(2)
    assert suggested(sweep, trials, 14) == first
    assert list(first) == list(SPACE)
    assert 1e-3 <= first["method.reconstruction_weight"] <= 1e3
    assert first["method.num_segments"] in (1, 2, 4, 7)
    assert suggested(_sweep(seed=1), trials, 14) != first
    assert suggested(sweep, trials, 15) != first


def test_a_search_that_goes_on_suggests_what_it_would_have_suggested() -> None:
    sweep = _sweep()
    straight = _searched(sweep, 16)
    kept = [Trial(**json.loads(json.dumps(dataclasses.asdict(trial)))) for trial in straight[:12]]
    assert _searched(sweep, 16, kept) == straight


def test_it_finds_more_than_chance_does() -> None:
    """Over five seeds, so that the luck of one says nothing; all of it is drawn from fixed seeds."""
    learned, lucky = [], []
    for seed in range(5):
        learned += [_toy(trial.settings) for trial in _searched(_sweep(seed=seed), 30)[10:]]
        by_chance = _sweep(seed=seed, searcher="random")
        lucky += [_toy(drawn(by_chance, number)) for number in range(10, 30)]
    assert statistics.fmean(learned) > statistics.fmean(lucky) + 0.2


def test_small_is_good_where_the_metric_is_a_loss() -> None:
    sweep = _sweep(metric="validation/loss")
    trials = [
        Trial(number, {**(settings or {}), "method.num_segments": k}, "finished", 1, {"validation/loss": float(k)})
        for number in range(24)
        for settings, k in [(drawn(_sweep(searcher="random"), number), (1, 2, 4, 7)[number % 4])]
    ]
    found = [suggested(sweep, trials, 24 + turn)["method.num_segments"] for turn in range(20)]
    assert found.count(1) > 10


def test_running_pruned_and_failed_trials_are_no_obstacle() -> None:
    sweep = _sweep()
    trials = _searched(sweep, 12)
    for number, (status, metrics) in enumerate(
        [
            ("running", {}),
            ("running", {sweep.judged_by: 0.3}),
            ("pruned", {sweep.judged_by: 0.1}),
            ("pruned", {}),
            ("failed", {}),
            ("lost", {sweep.judged_by: 0.2}),
            ("waiting", {}),
            ("finished", {}),
            ("finished", {sweep.judged_by: math.nan}),
            ("pruned", {sweep.judged_by: math.nan}),
        ],
        start=12,
    ):
        trials.append(Trial(number, trials[0].settings, status, 1, metrics))  # type: ignore[arg-type]
        assert list(suggested(sweep, trials, number + 1)) == list(SPACE)


def test_listed_values_that_are_lists_survive_json() -> None:
    """Settings come back from trials.jsonl as JSON writes them, so a tuple as a list."""
    sweep = _sweep(space={"backbone.widths": tune.choice([[4, 4, 4], [8, 8, 8]])})
    trials = [Trial(0, json.loads(json.dumps(suggested(sweep, [], 0))), "finished", 1, {sweep.judged_by: 0.5})]
    assert suggested(sweep, trials, 1)["backbone.widths"] in ([4, 4, 4], [8, 8, 8])


def test_importance_is_that_of_the_field_that_decides() -> None:
    sweep = _sweep()
    for name in ("method.reconstruction_weight", "method.classification_weight"):
        trials = [
            Trial(number, settings, "finished", 1, {sweep.judged_by: -settings[name]})
            for number in range(100)
            for settings in [drawn(_sweep(searcher="random"), number)]
            if settings is not None
        ]
        found = importances(sweep, trials)
        assert set(found) == set(SPACE)
        assert sum(found.values()) == pytest.approx(1.0)
        assert max(found, key=lambda each: found[each]) == name


@pytest.mark.parametrize(
    "trials",
    [
        [],
        [Trial(n, {}, "finished", 1, {"validation/accuracy": n / 9}) for n in range(3)],
        [Trial(n, {}, "finished", 1, {"validation/accuracy": 0.5}) for n in range(9)],
        [Trial(n, {}, "pruned", 1, {"validation/accuracy": n / 9}) for n in range(9)],
        [Trial(n, {}, "finished", 1, {}) for n in range(9)],
    ],
)
def test_importance_that_cannot_be_told_is_none(trials: list[Trial]) -> None:
    assert importances(_sweep(), trials) == {}


def test_a_score_that_is_not_a_number_does_not_end_the_report() -> None:
    sweep = _sweep()
    trials = _searched(sweep, 8)
    trials.append(Trial(8, trials[0].settings, "finished", 1, {sweep.judged_by: math.nan}))
    assert set(importances(sweep, trials)) <= set(SPACE)


def test_without_optuna_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *arguments: Any, **named: Any) -> Any:
        if name.split(".")[0] == "optuna":
            raise ImportError(name)
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(PlanError, match=r"pip install 'local-learning\[search\]'"):
        suggested(_sweep(), [], 0)
    # Nobody else needs it.
    assert drawn(_sweep(searcher="random"), 0) is not None
    assert importances(_sweep(searcher="random"), []) == {}


def _given(sweep: Sweep, known: dict[int, Trial], total: int, calls: int) -> list[int]:
    """Numbers of the trials that a queue gives away."""
    numbers: list[int] = []

    def begun(trial: Trial) -> None:
        trial.status = "running" if trial.status == "lost" else trial.status
        numbers.append(trial.number)

    def refused(trial: Trial, error: InputError) -> None:
        raise error

    queue = TrialQueue(sweep, known, total, lambda trial: {"number": trial.number}, begun, refused)
    for call in range(calls):
        found = queue.suggest(f"t{call}")
        if found == TrialQueue.FINISHED:
            break
        assert found == {"number": numbers[-1]} and queue.of_tune[f"t{call}"].number == numbers[-1]
        queue.on_trial_complete(f"t{call}")
    return numbers


@pytest.mark.parametrize("searcher", ["random", "tpe"])
def test_unfinished_trials_come_before_new_ones(searcher: Any) -> None:
    sweep = _sweep(searcher=searcher)
    settings = drawn(_sweep(searcher="random"), 0)
    assert settings is not None
    known = {
        number: Trial(number, settings, status, 1)  # type: ignore[arg-type]
        for number, status in ((2, "finished"), (0, "pruned"), (1, "running"), (3, "failed"))
    }
    known[4] = Trial(4, settings, "lost", 1, error="its process ended")
    numbers = _given(sweep, known, 7, 20)
    assert [number for number in numbers if number in (1, 4, 5, 6)] == [1, 4, 5, 6]
    assert 3 not in numbers, "what has failed is not tried again"
    # A smaller number than there are trials takes none away.
    assert not {5, 6} & set(_given(sweep, known, 2, 20))
    # More trials than before are the same ones and further ones.
    assert _given(sweep, known, 8, 20)[: len(numbers)] == numbers


@pytest.mark.parametrize("searcher", ["random", "tpe"])
def test_a_trial_that_is_tried_again_comes_first_and_nothing_ends_before_it(searcher: Any) -> None:
    sweep, told = _sweep(searcher=searcher), []

    def begun(trial: Trial) -> None:
        trial.status = "running"
        told.append((trial.number, dict(trial.settings)))

    queue = TrialQueue(sweep, {}, 3, lambda trial: {"number": trial.number}, begun, lambda trial, error: None)
    for call in range(2):
        queue.suggest(f"t{call}")
    trial = queue.of_tune["t0"]
    queue.on_trial_complete("t0", error=True)
    trial.status = "lost"
    queue.try_again(trial)
    assert queue.suggest("t2") == {"number": 0} and queue.suggest("t3") == {"number": 2}
    assert told[2] == told[0]
    # What runs may be lost, too, so the queue must not be closed.
    assert queue.suggest("t4") is None
    for name in ("t1", "t2", "t3"):
        queue.on_trial_complete(name)
    assert queue.suggest("t5") == TrialQueue.FINISHED and queue.is_empty


@pytest.mark.parametrize("kind", [RecipeError, PlanError])
def test_a_trial_that_cannot_be_fails_alone(kind: type[Exception]) -> None:
    told: list[tuple[int, str]] = []

    def configuration(trial: Trial) -> dict[str, Any]:
        if trial.number == 0:
            raise kind("they do not go together")
        return {"number": trial.number}

    queue = TrialQueue(
        _sweep(searcher="random"),
        {},
        2,
        configuration,
        lambda trial: None,
        lambda trial, error: told.append((trial.number, str(error))),
    )
    assert queue.suggest("t0") == {"number": 1}
    assert told == [(0, "they do not go together")]


def test_tpe_learns_nothing_while_a_trial_is_lost() -> None:
    """In the next start it goes on, and what comes after it is what would have come."""
    sweep = _sweep()
    first = suggested(sweep, [], 0)
    queue = TrialQueue(sweep, {}, 3, lambda trial: {"number": trial.number}, lambda trial: None, lambda *_: None)
    assert queue.suggest("t0") == {"number": 0}
    queue.of_tune["t0"].status = "lost"
    queue.on_trial_complete("t0", error=True)
    assert queue.suggest("t1") == TrialQueue.FINISHED
    assert queue.of_tune["t0"].settings == first and len(queue.of_tune) == 1


def test_numbers_that_are_missing_are_drawn_again() -> None:
    settings = drawn(_sweep(searcher="random"), 0)
    assert settings is not None
    known = {number: Trial(number, settings, "finished", 1) for number in (0, 2)}
    assert _given(_sweep(searcher="random"), known, 4, 20) == [1, 3]
