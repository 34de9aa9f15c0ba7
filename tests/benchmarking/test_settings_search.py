"""Does the search for settings end at the fastest, however wrong the estimate is, and say what it tried?"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from typing import Any

import pytest

from engine.benchmarking.baselines.launch import CaseFailed
from engine.benchmarking.settings_search import Ran, Settings, SettingsSearch
from engine.benchmarking.simulation import pipeline_step
from engine.benchmarking.stage_cuts import cuts_around, is_cut, stage_bounds, stage_seconds

SECONDS = [3.0, 1.0, 1.0, 2.0, 1.0, 1.0, 2.0, 1.0, 4.0, 1.0]


def around(settings: Settings) -> list[Settings]:
    return [{**settings, "bounds": bounds} for bounds in cuts_around(settings["bounds"])]


def step(settings: Settings) -> float:
    """A pipeline whose micro-batches cost something each."""
    parts = settings["micro_batches"]
    stages = stage_seconds(SECONDS, settings["bounds"])
    return pipeline_step([each / parts + 0.3 for each in stages], parts)


def search(
    starts: Sequence[Settings], run: Callable[[Settings], float] = step, near: Any = around, **more: Any
) -> tuple[Any, list[tuple[Settings, bool]]]:
    ran: list[tuple[Settings, bool]] = []

    def tried(settings: Settings, check: bool) -> Ran:
        ran.append((settings, check))
        return Ran(run(settings), settings.get("kept"), 0.01 * len(ran))

    return SettingsSearch("1F1B", starts, near, tried, **more).search(), ran


@pytest.mark.parametrize("stages", [2, 3, 4])
@pytest.mark.parametrize("estimate", [SECONDS, [1.0] * 10, [9.0, *[1.0] * 9]])
def test_the_fastest_cut_and_micro_batches_of_all_are_found(stages: int, estimate: list[float]) -> None:
    starts = [{"micro_batches": parts, "bounds": stage_bounds(estimate, stages)} for parts in (2, 4, 8)]
    found, _ = search(starts)
    inner = combinations(range(1, 10), stages - 1)
    cuts = [bounds for each in inner if is_cut(bounds := [0, *each, 10])]
    all_of_them = [step({"micro_batches": parts, "bounds": bounds}) for parts in (2, 4, 8) for bounds in cuts]
    assert step(found.chosen.settings) == min(all_of_them)


def test_starts_are_checked_and_finalists_run_again_in_turns() -> None:
    found, ran = search([{"micro_batches": parts, "bounds": [0, 2, 10]} for parts in (2, 4)])
    assert [check for _, check in ran[:2]] == [True, True] and not any(check for _, check in ran[2:])
    again = [settings for settings, _ in ran[len(found.attempts) :]]
    assert len(again) == 12 and again[:4] == again[4:8] == again[8:]
    assert {len(each.again) for each in found.attempts} == {0, 3}
    # What others used is noted beside every run.
    loads = sorted(share for attempt in found.to_json()["attempts"] for share in attempt["others_cores"])
    assert loads == [0.01 * number for number in range(1, len(ran) + 1)]


def test_one_lucky_measurement_does_not_win() -> None:
    lucky: Iterator[float] = iter([0.1])

    def noisy(settings: Settings) -> float:
        return next(lucky, 9.0) if settings["name"] == "lucky" else 1.0

    found, _ = search([{"name": "lucky"}, {"name": "steady"}], noisy, lambda settings: [])
    assert found.chosen.settings == {"name": "steady"}


def test_what_fails_is_told_and_what_hangs_is_not_tried_again() -> None:
    def run(settings: Settings) -> float:
        if settings["schedule"] == "hangs":
            raise CaseFailed("no answer within 60 seconds", True)
        if settings["schedule"] == "picky" and settings["micro_batches"] == 2:
            raise CaseFailed("at least 4 micro-batches", False)
        return 1.0

    starts = [{"schedule": word, "micro_batches": parts} for word in ("hangs", "picky") for parts in (2, 4)]
    found, ran = search(starts, run, lambda settings: [])
    assert found.chosen.settings == starts[3]
    assert starts[1] not in [settings for settings, _ in ran]
    assert [each.failed for each in found.attempts] == [
        *["no answer within 60 seconds"] * 2,
        "at least 4 micro-batches",
        "",
    ]
    written = json.loads(json.dumps(found.to_json()))
    assert written["chosen"] == starts[3] and len(written["attempts"]) == 4


def test_where_nothing_runs_nothing_is_chosen() -> None:
    def run(settings: Settings) -> float:
        raise CaseFailed("no", False)

    found, _ = search([{"schedule": "a"}], run, lambda settings: [])
    assert found.chosen is None and found.leanest is None


def test_of_what_keeps_equally_little_the_fastest_is_the_leanest() -> None:
    starts = [{"name": "a", "kept": 3}, {"name": "b", "kept": 2}, {"name": "c", "kept": 2}]
    found, _ = search(starts, lambda settings: {"a": 1.0, "b": 3.0, "c": 2.0}[settings["name"]], lambda settings: [])
    assert (found.chosen.settings["name"], found.leanest.settings["name"]) == ("a", "c")


def test_when_the_time_is_over_the_starts_have_run_and_it_is_said() -> None:
    clock = iter(range(1000))
    starts = [{"micro_batches": parts, "bounds": [0, 1, 10]} for parts in (2, 4, 8)]
    found, _ = search(starts, limit=0.0, now=lambda: float(next(clock)))
    assert found.is_cut_short and len(found.attempts) == 3 and found.chosen is not None


def test_neighbours_are_cuts_with_some_bounds_moved_together() -> None:
    assert cuts_around([0, 3, 6]) == [[0, 1, 6], [0, 2, 6], [0, 4, 6]], "the classifier stays with the block before"
    assert cuts_around([0, 2, 3, 6]) == [[0, 1, 3, 6], [0, 2, 4, 6], [0, 1, 2, 6], [0, 3, 4, 6]]
    assert cuts_around([0, 6]) == []
