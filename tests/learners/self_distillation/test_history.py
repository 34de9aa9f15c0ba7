"""Does a network hear what it said of each image in earlier epochs, and with the published factors?"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.data import Batch
from engine.knowledge.store import KnowledgeStore
from engine.learners.self_distillation.history import LastVisit, Retrospection
from engine.learners.self_distillation.passes import SelfDistillation
from engine.objectives import RECALLED
from engine.streams import generator

IMAGES, CLASSES = 9, 4
PIXELS = torch.zeros(3, 1, 2, 2)


def last_visit(last_share: float = 0.8, epochs: int = 10) -> LastVisit:
    return LastVisit(KnowledgeStore(IMAGES, CLASSES, 1, 1.0), last_share, epochs)


def retrospection(interval: int = 2, label_share: float = 0.1, horizon: int = 8) -> Retrospection:
    store = KnowledgeStore(IMAGES, CLASSES, 2, 1.0, content="logits")
    return Retrospection(store, interval, label_share, horizon)


def batch_of(indices: list[int], epoch: int, step: int, labels: list[int] | None = None) -> Batch:
    known = np.array(labels if labels is not None else [index % CLASSES for index in indices])
    return Batch(np.zeros((len(indices), 1, 2, 2), np.uint8), known, np.array(indices), "train", epoch, step)


def logits_at(epoch: int, step: int) -> Tensor:
    return 3 * torch.randn(3, CLASSES, generator=generator("past", epoch, step))


def recalled(self_distillation: SelfDistillation, batch: Batch) -> Tensor | None:
    """Run one step, and return what was recalled in it."""
    each = self_distillation.passes(batch, PIXELS).first
    return self_distillation.recall(each, logits_at(batch.epoch, batch.step), {}).get(RECALLED)


def assert_said(found: Tensor | None, logits: Tensor) -> None:
    """Compare with float16's precision."""
    assert found is not None
    torch.testing.assert_close(found, logits.softmax(dim=1), rtol=0, atol=2e-3)


@pytest.mark.parametrize(("epoch", "share"), [(1, 0.16), (4, 0.4), (9, 0.8)])
def test_the_share_of_the_past_grows_with_the_epochs(epoch: int, share: float) -> None:
    terms = last_visit().passes(batch_of([0, 1, 2], epoch, 0), PIXELS).first.terms
    assert terms is not None
    # The weight of the knowledge term is 0.8 already.
    assert terms == {"cross_entropy": pytest.approx(1 - share), "knowledge": pytest.approx(share / 0.8)}


def test_the_first_epoch_learns_from_the_labels() -> None:
    for self_distillation in (last_visit(), retrospection()):
        assert self_distillation.passes(batch_of([0, 1, 2], 0, 0), PIXELS).first.terms == {"cross_entropy": 1.0}
        assert recalled(self_distillation, batch_of([0, 1, 2], 0, 0)) is None


def test_what_was_said_one_visit_ago_is_recalled() -> None:
    self_distillation = last_visit()
    for epoch in range(3):
        for step in range(3):
            found = recalled(self_distillation, batch_of([3 * step, 3 * step + 1, 3 * step + 2], epoch, step))
            if epoch:
                assert_said(found, logits_at(epoch - 1, step))


def test_an_image_of_which_nothing_was_said_learns_its_label() -> None:
    found = recalled(last_visit(), batch_of([0, 1, 2], 1, 0, [3, -1, 0]))
    assert found is not None
    assert found[0].tolist() == [0, 0, 0, 1]
    assert bool(found[1].isnan().all())
    assert found[2].tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize(
    ("epoch", "past"),
    # c / H = 2 floor(e / 2) / 8, at most 1, where e counts from 1.
    [(2, 2 / 8), (3, 4 / 8), (4, 4 / 8), (5, 6 / 8), (8, 1.0), (30, 1.0)],
)
def test_retrospection_keeps_a_share_of_the_label(epoch: int, past: float) -> None:
    terms = retrospection().passes(batch_of([0, 1, 2], epoch, 0), PIXELS).first.terms
    assert terms is not None
    # The weight of the knowledge term is 1 - g already.
    assert terms == {"cross_entropy": pytest.approx(0.1 + (1 - past) * 0.9), "knowledge": pytest.approx(past)}


def test_retrospection_looks_back_to_the_end_of_the_last_interval() -> None:
    self_distillation = retrospection(interval=2)
    for epoch in range(7):
        for step in range(3):
            found = recalled(self_distillation, batch_of([3 * step, 3 * step + 1, 3 * step + 2], epoch, step))
            if epoch < 2:
                assert found is None
            else:
                assert_said(found, logits_at(epoch // 2 * 2 - 1, step))


def test_retrospection_adds_nothing_where_nothing_was_said() -> None:
    found = recalled(retrospection(interval=1), batch_of([0, 1, 2], 1, 0))
    assert found is not None
    assert bool(found.isnan().all())


@pytest.mark.parametrize("make", [last_visit, retrospection])
@pytest.mark.parametrize("stop", [1, 4, 7, 10])
def test_another_one_goes_on_from_the_knowledge(make: Callable[[], SelfDistillation], stop: int) -> None:
    one, other = make(), make()
    steps = [batch_of([3 * step, 3 * step + 1, 3 * step + 2], epoch, step) for epoch in range(5) for step in range(3)]
    for batch in steps[:stop]:
        recalled(one, batch)
    other.restore(one.state())
    other.restore_knowledge(one.knowledge())
    for batch in steps[stop:]:
        found, expected = recalled(other, batch), recalled(one, batch)
        assert (found is None) == (expected is None)
        assert found is None or (expected is not None and found.equal(expected))


def test_the_store_counts_as_memory() -> None:
    assert last_visit().bytes >= IMAGES * CLASSES * 2
    assert retrospection().bytes >= 2 * IMAGES * CLASSES * 2
