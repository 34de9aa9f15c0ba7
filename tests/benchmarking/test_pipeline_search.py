"""Is the best pipeline found by running it, whatever the blocks seem to take, and are its gradients right?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.benchmarking import settings_search
from engine.benchmarking.baseline_cases import BaselineCases
from engine.benchmarking.batches import read_images
from engine.benchmarking.cases import Machine
from engine.benchmarking.schedules import SCHEDULES
from engine.benchmarking.simulation import pipeline_step
from engine.benchmarking.stage_cuts import is_cut, stage_bounds, stage_seconds
from engine.benchmarking.starting import Starter
from engine.benchmarking.tuned_cases import TunedCases
from engine.recipes import Backbone, EndToEnd, Plan, Recipe
from tests.benchmarking.sleeping_network import SHARES, seconds_of

NETWORKS = Path(__file__).with_name("sleeping_network.py")
BATCH = 16

Open = Callable[..., tuple[TunedCases, BaselineCases]]


@pytest.fixture
def opened(tiny_recipe: Callable[..., Recipe]) -> Iterator[Open]:
    """Give a search of the baselines of a recipe, with two workers."""
    starters: list[Starter] = []

    def open_(against: tuple[str, ...], **changes: object) -> tuple[TunedCases, BaselineCases]:
        data = {"batch_size": BATCH, "train_limit": 2 * BATCH}
        images = read_images(tiny_recipe(method=EndToEnd(), data=data, **changes))
        others = BaselineCases(images, against, [2], Machine(cores=2, gpus=0))
        starters.append(Starter(images, Plan()))
        return TunedCases(starters[-1], others, lambda text: None), others

    yield open_
    for each in starters:
        each.__exit__()


def step_asleep(micro_batches: int, cut: int) -> float:
    images = BATCH // micro_batches
    seconds = [2 * seconds_of(share, images) for share in SHARES]
    return pipeline_step(stage_seconds(seconds, [0, cut, len(SHARES)]), micro_batches)


@pytest.mark.slow
def test_of_all_cuts_and_micro_batches_the_best_is_chosen(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks sleep, so how fast each choice is, is known beforehand, on a busy machine too."""
    monkeypatch.setattr(settings_search, "_FINAL_ROUNDS", 1)
    backbone = Backbone(name=f"{NETWORKS}:network", widths=None)
    tuned, others = opened(("1f1b",), backbone=backbone)
    tuned.time_blocks("cpu")
    choices = [(parts, cut) for parts in (2, 4, 8) for cut in range(1, 5) if is_cut([0, cut, 6])]
    best = min(choices, key=lambda choice: step_asleep(*choice))
    # Its first call was cold, which must not show in its time.
    assert stage_bounds(tuned.blocks[best[0]], 2) == [0, best[1], 6]
    # An estimate that is wrong all the same: the first block seems to take as long as all others.
    tuned.blocks = {parts: [10.0, *[1.0] * 5] for parts in tuned.blocks}
    group = tuned.tuned(others.groups[0])
    assert group is not None
    (case,) = group.cases
    assert (case.settings["micro_batches"], case.settings["bounds"][1]) == best
    assert case.chosen == f"{best[0]} micro-batches, stage 1 begins at block{best[1]}"
    (search,) = tuned.searches
    assert {each.settings["micro_batches"] for each in search.attempts} == {2, 4, 8}
    assert len({each.settings["bounds"][1] for each in search.attempts}) > 2


@pytest.mark.slow
def test_every_schedule_gives_the_gradients_of_plain_accumulation(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings_search, "_MOST_NEIGHBOURS", 1)
    monkeypatch.setattr(settings_search, "_FINAL_ROUNDS", 1)
    tuned, others = opened(("gpipe", "1f1b", "interleaved", "zero_bubble"))
    tuned.time_blocks("cpu")
    group = tuned.tuned(others.groups[0])
    assert group is not None and [case.family for case in group.cases] == [
        "gpipe",
        "1f1b",
        "interleaved",
        "zero_bubble",
    ]
    ran = {each.settings["schedule"] for search in tuned.searches for each in search.usable}
    assert ran == set(SCHEDULES), tuned.left_out
    # DualPipeV asks for as many micro-batches as stages.
    assert set(tuned.left_out) == {"DualPipeV, 2 workers, 2 micro-batches"}


@pytest.mark.slow
def test_a_schedule_with_other_gradients_is_left_out_and_named(opened: Open) -> None:
    backbone = Backbone(name=f"{NETWORKS}:drifting", widths=None)
    tuned, others = opened(("gpipe",), backbone=backbone)
    assert tuned.tuned(others.groups[0]) is None
    reason = tuned.left_out["GPipe, 2 workers, 2 micro-batches"]
    assert "differs from that of plain accumulation" in reason and ".scale" in reason
