"""Which sub-network does a step train, on which images, and what is remembered and recalled of them?"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.backbones import SubNetworkSampler
from engine.data import Batch
from engine.knowledge import KnowledgeStore
from engine.knowledge.mixing import Mixing
from engine.learners import Role
from engine.learners.self_distillation.groups import GroupDistillation
from engine.learners.self_distillation.mixed_images import Mixer
from engine.learners.self_distillation.passes import FIRST, Pass, Passes
from engine.objectives import RECALLED
from engine.streams import generator

ROWS, CLASSES, STEPS = 4, 3, 5
ROLE = Role("network", 3, "segment0")
SAMPLER = SubNetworkSampler((("a1", "a2"), ("b1", "b2", "b3")), "inherited")
PIXELS = torch.rand(ROWS, 1, 2, 2, generator=generator("pixels"))


class GivenMixing:
    """Mixes as it is told, instead of by chance."""

    def __init__(self, mixing: Mixing | None, rows: int = ROWS) -> None:
        self.mixing, self._rows = mixing, rows

    def rows(self, batch: Batch) -> int:
        return self._rows

    def draw(self, batch: Batch, pixels: Tensor) -> Mixing | None:
        return self.mixing


def in_shares(*shares: float) -> Mixing:
    """Mix rows 0 with 1, 1 with 2, 2 with 3 and 3 with 0."""
    return Mixing(torch.tensor([1, 2, 3, 0]), torch.tensor(shares), None)


def batch_at(step: int, *, epoch: int = 0, rows: int = ROWS) -> Batch:
    images = np.zeros((rows, 1, 2, 2), np.uint8)
    return Batch(images, np.arange(rows) % CLASSES, np.arange(rows) + 10, "train", epoch, step)


def store_of(groups: int = 2) -> KnowledgeStore:
    return KnowledgeStore(20, CLASSES, groups, averaging_weight=0.5)


def teaching_of(
    store: KnowledgeStore | None = None, mixer: GivenMixing | None = None, **settings: Any
) -> GroupDistillation:
    given: dict[str, Any] = {"groups": 3, "every_group": False, "steps_per_epoch": STEPS, **settings}
    return GroupDistillation(ROLE, SAMPLER, store=store, mixer=cast("Mixer | None", mixer), **given)


def logits_of(*key: str | int, rows: int = ROWS) -> Tensor:
    return torch.randn(rows, CLASSES, generator=generator("logits", *key))


def in_half(values: Tensor) -> Tensor:
    values = values.half().float()
    return values / values.sum(dim=1, keepdim=True)


def planned(self_distillation: GroupDistillation, step: int) -> Passes:
    epoch, place = divmod(step, STEPS)
    return self_distillation.passes(batch_at(place, epoch=epoch), PIXELS)


def test_a_step_trains_one_group_in_turn_across_the_ends_of_epochs() -> None:
    self_distillation = teaching_of()
    passes = [planned(self_distillation, step) for step in range(12)]
    assert [each.first.group for each in passes] == [0, 1, 2] * 4
    assert all(not each.further and not each.consulted for each in passes)
    loops = [[each.first.dropped for each in passes[start : start + 3]] for start in range(0, 12, 3)]
    for full, medium, small in loops:
        assert not full
        assert full < medium < small
    assert len({tuple(loop) for loop in loops}) > 1


def test_what_a_step_trains_does_not_depend_on_the_steps_before_it() -> None:
    self_distillation = teaching_of()
    before = [planned(self_distillation, step).first.dropped for step in range(9)]
    assert [planned(teaching_of(), step).first.dropped for step in reversed(range(9))] == before[::-1]


def test_every_group_is_trained_where_that_is_asked_for() -> None:
    self_distillation = teaching_of(every_group=True)
    families = []
    for step in range(4):
        passes = planned(self_distillation, step)
        assert [each.group for each in (passes.first, *passes.further)] == [0, 1, 2]
        assert passes.first.name == FIRST
        assert len({each.name for each in (passes.first, *passes.further)}) == 3
        assert all(each.pixels is PIXELS for each in (passes.first, *passes.further))
        families.append(tuple(each.dropped for each in passes.further))
    assert len(set(families)) > 1


@pytest.mark.parametrize(("groups", "remembered"), [(2, [True, True, False]), (3, [True, True, True])])
def test_each_group_remembers_and_recalls_the_larger_one(groups: int, remembered: list[bool]) -> None:
    store = store_of(groups)
    self_distillation = teaching_of(store)
    said = [logits_of(group) for group in range(3)]
    for group in range(3):
        first = planned(self_distillation, group).first
        recalled = self_distillation.recall(first, said[group], {})
        if group:
            torch.testing.assert_close(recalled[RECALLED], in_half(said[group - 1].softmax(dim=1)))
        else:
            assert recalled == {}
    known = [bool(store.recall(group, np.arange(10, 14)).isfinite().all()) for group in range(groups)]
    assert known == remembered[:groups]


def test_of_unmixed_images_their_pairs_are_not_looked_at() -> None:
    store = store_of()
    self_distillation = teaching_of(store, GivenMixing(None, rows=2))
    first = planned(self_distillation, 0).first
    assert first.pixels.equal(PIXELS[:2])
    assert first.labels.tolist() == [0, 1]
    self_distillation.recall(first, logits_of(rows=2), {})
    assert store.recall(0, np.arange(10, 14)).isfinite().all(dim=1).tolist() == [True, True, False, False]


def _knowing(store: KnowledgeStore, group: int, *rows: int) -> Tensor:
    """Let a group know some images of the batch; returns what it knows, NaN elsewhere."""
    values = logits_of("known", group).softmax(dim=1)
    store.remember(group, np.array(rows) + 10, values[list(rows)])
    return store.recall(group, np.arange(10, 14))


def _mixed_pass(self_distillation: GroupDistillation, group: int) -> Pass:
    first = planned(self_distillation, group).first
    assert first.group == group
    assert first.mixed is not None
    return first


def test_mixed_images_recall_the_mixture_of_what_is_known_of_both() -> None:
    store = store_of()
    self_distillation = teaching_of(store, GivenMixing(in_shares(0.25, 0.25, 1.0, 0.25)), fraction="exact")
    known = _knowing(store, 0, 0, 1, 2)
    first = _mixed_pass(self_distillation, 1)
    assert first.mixed is not None
    assert first.labels.tolist() == [0, 1, 2, 0]
    assert first.mixed.second.tolist() == [1, 2, 0, 0]
    recalled = self_distillation.recall(first, logits_of(), {})[RECALLED]
    torch.testing.assert_close(recalled[:2], 0.25 * known[:2] + 0.75 * known[1:3])
    # Row 2 stays as it is: what is not known of its partner does not matter. Of row 3 itself nothing is known.
    assert recalled[2].equal(known[2])
    assert recalled[3].isnan().all()


def test_an_image_that_is_part_of_two_mixtures_gets_their_mean_by_shares() -> None:
    store = store_of()
    self_distillation = teaching_of(store, GivenMixing(in_shares(0.3, 0.3, 0.3, 0.3)), fraction="shared")
    known = _knowing(store, 0, 0, 1, 2, 3)
    said = 0.1 * logits_of()
    self_distillation.recall(_mixed_pass(self_distillation, 0), said, {})
    partner = torch.tensor([1, 2, 3, 0])
    residual = said.softmax(dim=1) - 0.3 * known - 0.7 * known[partner]
    # Row i is the first image of mixture i and the second one of mixture i - 1.
    mean = 0.3 * (known + residual) + 0.7 * (known + residual.roll(1, dims=0))
    expected = (0.5 * mean + 0.5 * known).clamp(min=0)
    expected = in_half(expected / expected.sum(dim=1, keepdim=True))
    torch.testing.assert_close(store.recall(0, np.arange(10, 14)), expected, rtol=0, atol=1e-3)


def test_of_what_is_not_known_nothing_is_learned_from_mixtures() -> None:
    store = store_of()
    self_distillation = teaching_of(store, GivenMixing(in_shares(0.5, 0.5, 0.5, 0.5)), fraction="shared_clipped")
    before = _knowing(store, 0, 0, 2)
    self_distillation.recall(_mixed_pass(self_distillation, 0), logits_of(), {})
    after = store.recall(0, np.arange(10, 14))
    assert np.array_equal(after.numpy(), before.numpy(), equal_nan=True)


def test_fractions_are_measured_in_every_second_mixed_step() -> None:
    store = store_of(3)
    mixer = GivenMixing(in_shares(0.5, 0.5, 0.5, 0.5))
    self_distillation = teaching_of(store, mixer, fraction="exact", measure_every=2)
    for group in range(3):
        _knowing(store, group, 0, 1, 2, 3)
    measured = []
    for step in range(7):
        mixer.mixing = None if step in (1, 2) else in_shares(0.5, 0.5, 0.5, 0.5)
        passes = planned(self_distillation, step)
        for each in passes.consulted:
            assert (each.dropped, each.tracked, each.pixels is PIXELS) == (passes.first.dropped, False, True)
        heard = {each.name: logits_of("unmixed", step) for each in passes.consulted}
        self_distillation.recall(passes.first, logits_of(step), heard)
        measured.append(bool(self_distillation.observed()))
        assert measured[-1] == bool(passes.consulted)
    # Steps 0, 3, 4, 5 and 6 are mixed.
    assert measured == [True, False, False, False, True, False, True]
    resumed = teaching_of(store_of(3), mixer, fraction="exact", measure_every=2)
    resumed.restore(self_distillation.state())
    assert not planned(resumed, 7).consulted
    assert planned(resumed, 8).consulted


def test_without_a_store_nothing_is_recalled() -> None:
    self_distillation = teaching_of()
    first = planned(self_distillation, 1).first
    assert self_distillation.recall(first, logits_of(), {}) == {}
    assert (self_distillation.bytes, self_distillation.knowledge()) == (0, {})
