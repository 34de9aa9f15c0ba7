"""Does a network see the last batch again, and hear what it said of it?"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.data import Batch
from engine.learners.self_distillation.last_batch import PREVIOUS, LastBatch
from engine.streams import generator

CLASSES = 3


def batch_of(labels: list[int], step: int) -> tuple[Batch, Tensor, Tensor]:
    """Return a batch with its images twice, the pixels of both views, and what is said of the first."""
    stream = generator("last_batch", step)
    twice = np.array(labels * 2)
    pixels = torch.rand(len(twice), 1, 4, 4, generator=stream)
    batch = Batch(np.zeros((len(twice), 1, 4, 4), np.uint8), twice, np.arange(len(twice)), "train", 0, step)
    return batch, pixels, torch.randn(len(labels), CLASSES, generator=stream)


def test_the_first_step_learns_from_its_first_view_alone() -> None:
    batch, pixels, _ = batch_of([0, 1, 2, 0], 0)
    passes = LastBatch().passes(batch, pixels)
    assert passes.first.pixels.equal(pixels[:4])
    assert passes.first.labels.tolist() == [0, 1, 2, 0]
    assert passes.first.terms == {"cross_entropy": 1.0}
    assert not passes.further


def test_the_next_step_sees_the_second_view_and_what_was_said_of_the_first() -> None:
    self_distillation = LastBatch()
    batch, pixels, said = batch_of([0, 1, 2, 0], 0)
    self_distillation.passes(batch, pixels)
    self_distillation.finish(said)
    following, other_pixels, _ = batch_of([1, 2], 1)
    passes = self_distillation.passes(following, other_pixels)
    assert passes.first.pixels.equal(other_pixels[:2])
    assert passes.first.terms == {"cross_entropy": pytest.approx(2 / 6)}
    (again,) = passes.further
    assert again.pixels.equal(pixels[4:])
    assert again.labels.tolist() == [0, 1, 2, 0]
    assert again.terms == {"cross_entropy": pytest.approx(4 / 6), "mimicry": 1.0}
    assert again.messages[PREVIOUS].equal(said)


@pytest.mark.parametrize(
    ("before", "now", "shares"),
    [
        ([0, -1, -1, 1], [2, -1], (1 / 3, 2 / 3)),
        ([-1, -1], [0, 1], (1.0, 1.0)),
        ([0, 1], [-1, -1], (1.0, 1.0)),
        ([-1, -1], [-1, -1], (1.0, 1.0)),
    ],
)
def test_the_mean_is_over_the_labelled_images_of_both(
    before: list[int], now: list[int], shares: tuple[float, float]
) -> None:
    self_distillation = LastBatch()
    batch, pixels, said = batch_of(before, 0)
    self_distillation.passes(batch, pixels)
    self_distillation.finish(said)
    following, other_pixels, _ = batch_of(now, 1)
    passes = self_distillation.passes(following, other_pixels)
    assert passes.first.terms is not None
    assert passes.further[0].terms is not None
    found = passes.first.terms["cross_entropy"], passes.further[0].terms["cross_entropy"]
    assert found == pytest.approx(shares)


def test_another_one_goes_on_from_the_state() -> None:
    one, other = LastBatch(), LastBatch()
    assert one.state() == {}
    batch, pixels, said = batch_of([0, 1, 2, 0], 0)
    one.passes(batch, pixels)
    one.finish(said)
    state = one.state()
    # A copy: what the learner does later must not show in a checkpoint.
    said.zero_()
    other.restore(state)
    again = other.passes(*batch_of([1, 2], 1)[:2]).further[0]
    assert again.pixels.equal(pixels[4:])
    assert again.messages[PREVIOUS].abs().sum() > 0
    other_state = other.state()
    assert other_state.keys() == state.keys()
    assert all(value.equal(other_state[name]) for name, value in state.items())


def test_it_holds_a_batch_of_pixels_and_little_else() -> None:
    self_distillation = LastBatch()
    assert self_distillation.bytes == 0
    batch, pixels, said = batch_of([0, 1, 2, 0], 0)
    self_distillation.passes(batch, pixels)
    view = 4 * 16 * 4 + 4 * 8
    assert self_distillation.bytes == view
    self_distillation.finish(said)
    assert self_distillation.bytes == 2 * view + 4 * CLASSES * 4
