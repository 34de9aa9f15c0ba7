"""Is the cut that is chosen by running it the best one, and chosen as learners run?"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from engine import Plan
from engine.data import Facts
from engine.errors import LearnerError, PlanError, RecipeError
from engine.learners.propagation import Propagation
from engine.methods import method_of
from engine.planning.known_images import known_facts
from engine.recipes import DML, Backbone, Greedy, Numerics, Peer, Recipe, segmented, with_cuts
from engine.timing import Subject, TimedBlocks, TimedSegments, chosen_recipe, subject_of

Sleeping = Callable[..., Recipe]
# The best cut into 2 has 20 % less than the next, that into 3 a third less.
MILLISECONDS = (40, 20, 40, 20, 40)


def facts_of(recipe: Recipe) -> Facts:
    return known_facts(recipe)[0]


def slowest(names: Sequence[str], milliseconds: Sequence[int]) -> int:
    stops = [int(name.removeprefix("block")) + 1 for name in names]
    return max(sum(milliseconds[start:stop]) for start, stop in itertools.pairwise((0, *stops, len(milliseconds))))


@pytest.mark.parametrize("num_segments", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_the_chosen_cut_is_the_best_of_all(num_segments: int, make_sleeping: Sleeping) -> None:
    recipe = make_sleeping(num_segments, MILLISECONDS)
    told: list[str] = []
    chosen = segmented(chosen_recipe(recipe, facts_of(recipe), Plan(), told.append))
    assert chosen is not None and isinstance(chosen.cuts, tuple)
    names = [f"block{index}" for index in range(len(MILLISECONDS) - 1)]
    every = itertools.combinations(names, num_segments - 1)
    assert slowest(chosen.cuts, MILLISECONDS) == min(slowest(each, MILLISECONDS) for each in every)
    first, last = told
    assert first.startswith("method.cuts=measured: timing the blocks of")
    assert last.startswith(f"method.cuts=measured: chose {','.join(chosen.cuts)} (segments take ")
    assert "ms for 6 images on this machine, cpu, 1 thread; bound on speed " in last


def test_segments_are_timed_as_learners_run_them(make_sleeping: Sleeping, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = make_sleeping(2, (0, 0, 0), numerics=Numerics(threads=2, precision="bfloat16", channels_last=True))
    subject = subject_of(recipe, facts_of(recipe))
    seen: list[tuple[Any, ...]] = []
    monkeypatch.setattr(
        "engine.timing.segments.Learner.call",
        lambda learner, phase, batch, messages: seen.append(
            (
                learner.name,
                phase,
                torch.get_num_threads(),
                None if batch is None else batch.images.shape,
                [(message.dtype, message.shape) for message in messages.values()],
                sorted(learner.objective.terms),
            )
        ),
    )
    TimedSegments(subject, 2, 6)([(0, 0, 1), (1, 1, 3)], 3)
    images, features = (6, 1, 8, 8), [(torch.bfloat16, (6, 2, 8, 8))]
    assert seen[:4] == [
        ("segment0", "forward", 2, images, [], ["cross_entropy"]),
        ("segment0", "update", 2, None, [], ["cross_entropy"]),
        ("segment1", "forward", 2, images, features, ["cross_entropy"]),
        ("segment1", "update", 2, None, [], ["cross_entropy"]),
    ]
    assert torch.get_num_threads() == 1


def test_random_numbers_and_weights_to_come_are_left_alone(tiny_recipe: Callable[..., Recipe]) -> None:
    recipe = tiny_recipe(method=Greedy(num_segments=2, cuts="measured"))
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    chosen_recipe(recipe, facts_of(recipe), Plan(), lambda line: None)
    assert torch.rand(3).equal(expected)


def test_timing_changes_no_weight_by_more_than_nothing(tiny_recipe: Callable[..., Recipe]) -> None:
    recipe = tiny_recipe(method=Greedy(num_segments=2, cuts="measured"))
    subject = subject_of(recipe, facts_of(recipe))
    before = {name: value.clone() for name, value in subject.network.named_parameters()}
    TimedBlocks(subject, [2], 12, budget=0.1)
    TimedSegments(subject, 2, 12)([(0, 0, 2), (1, 2, subject.units)], 3)
    for name, value in subject.network.named_parameters():
        torch.testing.assert_close(value, before[name])


def test_replicas_share_the_batch_and_whole_networks_are_not_cut(
    tiny_recipe: Callable[..., Recipe], choices: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []
    monkeypatch.setattr("engine.timing.choice.TimedBlocks", lambda subject, counts, batch: rows.append(batch))
    recipe = tiny_recipe(method=Greedy(num_segments=2, cuts="measured"))
    chosen_recipe(recipe, facts_of(recipe), Plan(replicas=5), lambda line: None)
    assert rows == [3]
    whole = tiny_recipe(method=Greedy(num_segments=1, cuts="measured"))
    assert chosen_recipe(whole, facts_of(whole), Plan(), lambda line: None) == with_cuts(whole, ())
    named = with_cuts(recipe, ("layer1_0",))
    assert chosen_recipe(named, facts_of(named), Plan(), lambda line: None) is named
    assert choices == [2]


def test_a_grid_of_equal_peers_has_one_cut(tiny_recipe: Callable[..., Recipe], choices: list[int]) -> None:
    inside = Greedy(num_segments=2, cuts="measured")
    recipe = tiny_recipe(method=DML(peers=(Peer(), Peer()), peer_method=inside))
    told: list[str] = []
    chosen = chosen_recipe(recipe, facts_of(recipe), Plan(), told.append)
    assert chosen == with_cuts(recipe, ("stem",))
    assert told[-1] == (
        "method.peer_method.cuts=measured: chose stem (segments take 306 and 379 ms for 6 images on this machine, cpu, "
        "1 thread; bound on speed 1.55x)"
    )
    assert len(method_of(chosen).team(chosen, facts_of(chosen)).learners) == 4


def test_what_cannot_be_measured_is_refused_by_name(
    tiny_recipe: Callable[..., Recipe], choices: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(recipe: Recipe) -> None:
        chosen_recipe(recipe, facts_of(recipe), Plan(), lambda line: None)

    peers = (Peer(), Peer(backbone=Backbone(name="resnet8", widths=(4, 4, 4))))
    grid = tiny_recipe(method=DML(peers=peers, peer_method=Greedy(num_segments=2, cuts="measured")))
    with pytest.raises(RecipeError, match=r"^method.peer_method.cuts=measured: the peers have different networks"):
        refused(grid)
    with pytest.raises(RecipeError, match=r"resnet14, resnet8.*set method.peer_method.cuts=balanced_time"):
        refused(grid)
    with pytest.raises(RecipeError, match=r"method.num_segments=99, but resnet14 has 7 blocks"):
        refused(tiny_recipe(method=Greedy(num_segments=99, cuts="measured")))
    with pytest.raises(PlanError, match=r"^the blocks are timed in this process: numerics.precision=float16 needs"):
        numerics = Numerics(device="cpu", precision="float16")
        refused(tiny_recipe(method=Greedy(num_segments=2, cuts="measured"), numerics=numerics))
    monkeypatch.setattr("engine.timing.subject.method_of", lambda recipe: object())
    with pytest.raises(RecipeError, match=r"method.kind=greedy: its METHOD makes learners itself.*name the blocks in"):
        refused(tiny_recipe(method=Greedy(num_segments=2, cuts="measured")))
    assert choices == []


def test_a_block_that_fails_is_named(make_sleeping: Sleeping, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = make_sleeping(2, (0, 0, 0))

    def fail(subject: Subject, work: Any) -> float:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Subject, "seconds", fail)
    with pytest.raises(LearnerError, match=r"timing: block block0: out of memory \(.*set numerics.recompute=blocks"):
        chosen_recipe(recipe, facts_of(recipe), Plan(), lambda line: None)


def test_a_segment_for_which_there_is_no_memory_takes_for_ever(
    make_sleeping: Sleeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_sleeping(2, (0, 0, 0))
    subject = subject_of(recipe, facts_of(recipe))
    run = Propagation.run

    def limited(propagation: Propagation, batch: Any, inputs: Any, *more: Any) -> Any:
        if inputs.shape[1] == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(propagation, batch, inputs, *more)

    monkeypatch.setattr(Propagation, "run", limited)
    times = TimedSegments(subject, 2, 6)([(0, 0, 1), (1, 1, 3)], 3)
    assert times[0, 0, 1] == math.inf
    assert 0 < times[1, 1, 3] < math.inf


def test_no_learner_is_made_before_the_cut_is_chosen(tiny_recipe: Callable[..., Recipe]) -> None:
    recipe = tiny_recipe(method=Greedy(num_segments=2, cuts="measured"))
    with pytest.raises(RecipeError, match=r"cuts=measured: is chosen by times when a training starts"):
        method_of(recipe).team(recipe, facts_of(recipe))
