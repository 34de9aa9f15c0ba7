"""Is what others used noted while blocks are timed and settings are searched, before any round?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from engine.benchmarking import tuned_cases
from engine.benchmarking.baseline_cases import BaselineCases
from engine.benchmarking.batches import read_images
from engine.benchmarking.cases import Machine
from engine.benchmarking.machine_load import Load
from engine.benchmarking.tuned_cases import TunedCases
from engine.recipes import EndToEnd, Recipe


class Answering:
    """Processes that answer at once."""

    ids = (7,)

    def ask(self, request: Mapping[str, Any] | None, timeout: float) -> list[dict[str, Any]]:
        if request is not None and request["do"] == "run":
            return [{"blocks": {"1": [1.0] * 8}}]
        return [{"seconds": 1.0, "wrong": "", "kept": 5}]

    def close(self) -> None:
        pass


class Metering:
    """Others use a quarter of a core beside each process that is asked to work."""

    def __init__(self, measured: tuple[int, ...]) -> None:
        assert measured == Answering.ids

    def result(self) -> Load:
        return Load(0.25, 0.0)


def test_others_are_noted_beside_every_run(tiny_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuned_cases, "LoadMeter", Metering)

    class Starting:
        images = read_images(tiny_recipe(method=EndToEnd()))

        def start(self, *_: object) -> Answering:
            return Answering()

    starter: Any = Starting()
    others = BaselineCases(starter.images, ("checkpoint",), [], Machine(cores=1, gpus=0))
    tuned = TunedCases(starter, others, lambda text: None)
    tuned.time_blocks("cpu")
    assert tuned.blocks_others == 0.25
    assert tuned.tuned(others.groups[0]) is not None
    (search,) = tuned.searches
    assert len(search.attempts) > 1
    assert all(attempt.others == [0.25] * (1 + len(attempt.again)) for attempt in search.attempts)
