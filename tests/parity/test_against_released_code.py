"""Do losses, schedules, boxes and first weights have the values that the authors' released code computes?

The numbers were written down from runs of that code. Losses are float32 here, whatever the logits are.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from engine.data import Batch
from engine.knowledge import mixing
from engine.knowledge.fraction import split_knowledge
from engine.knowledge.store import KnowledgeStore
from engine.learners.self_distillation.history import Retrospection
from engine.objectives import (
    SimilarityMatching,
    branch_mimicry,
    dgl_head,
    kl_divergence,
    knowledge_divergence,
    prediction_head,
    supervised_contrastive_loss,
)
from engine.streams import seeded

LOGITS = [
    torch.tensor(rows, dtype=torch.float64)
    for rows in ([[1, 2, 0], [0, -1, 1]], [[0, 1, 1], [2, 0, 0]], [[3, 0, 0], [1, 1, 1]])
]
DIVERGENCES = {
    (0, 1): 0.5661410197,
    (0, 2): 0.6750028397,
    (1, 0): 0.5960099678,
    (1, 2): 0.9395548263,
    (2, 0): 0.8972793341,
    (2, 1): 1.0222590726,
}


@pytest.mark.parametrize(("student", "teacher"), list(DIVERGENCES))
def test_each_peer_learns_from_each_other(student: int, teacher: int) -> None:
    expected = DIVERGENCES[student, teacher]
    assert kl_divergence(LOGITS[teacher], LOGITS[student]).item() == pytest.approx(expected, abs=1e-6)
    recalled = LOGITS[teacher].softmax(dim=1)
    assert knowledge_divergence(recalled, LOGITS[student]).item() == pytest.approx(expected, abs=1e-6)


def test_the_heads_of_a_network_learn_from_each_other() -> None:
    for student in range(3):
        others = [other for other in range(3) if other != student]
        teachers = torch.stack([LOGITS[other] for other in others])
        total, each = branch_mimicry(LOGITS[student], teachers, torch.ones(2, dtype=torch.bool), 1.0)
        assert each.tolist() == pytest.approx([DIVERGENCES[student, other] for other in others], abs=1e-6)
        assert total.item() == pytest.approx(sum(each.tolist()), abs=1e-6)


@pytest.mark.parametrize(("temperature", "expected"), [(1.0, 0.6750028397), (4.0, 0.8847693329), (20.0, 0.8489316571)])
def test_distillation_at_a_temperature(temperature: float, expected: float) -> None:
    # What float32 rounds is multiplied by T^2 with the rest.
    tolerance = 2e-7 * temperature**2
    found = kl_divergence(LOGITS[2], LOGITS[0], temperature).item()
    assert found == pytest.approx(expected, abs=tolerance)
    assert knowledge_divergence(LOGITS[2].softmax(dim=1), LOGITS[0], temperature).item() == pytest.approx(
        expected, abs=tolerance
    )


def test_supervised_contrast() -> None:
    embeddings = torch.tensor([[1, 0], [0, 1], [1, 1], [1, -1], [2, 1]], dtype=torch.float64)
    loss = supervised_contrastive_loss(embeddings, torch.tensor([0, 0, 1, 1, 2]), temperature=0.07)
    assert loss.item() == pytest.approx(9.3503262966, abs=2e-6)


def test_the_exact_fraction() -> None:
    mixed, first, second = (
        torch.tensor([row], dtype=torch.float64) for row in ([0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.7, 0.2, 0.1])
    )
    found = split_knowledge(mixed, first, second, torch.tensor([0.3], dtype=torch.float64), "exact")
    assert found.first[0].tolist() == pytest.approx([0.25, 0.51, 0.24], abs=1e-9)
    assert found.second[0].tolist() == pytest.approx([0.75, 0.21, 0.04], abs=1e-9)


def recalled_share(interval: int, epoch: int) -> float:
    """Return c / H of an epoch that counts from 1, with H = 1000."""
    store = KnowledgeStore(4, 3, groups=2, averaging_weight=1.0, content="logits")
    self_distillation = Retrospection(store, interval, label_share=0.1, horizon=1000)
    batch = Batch(np.zeros((2, 1, 2, 2), np.uint8), np.zeros(2, np.int64), np.arange(2), "train", epoch - 1, 0)
    terms = self_distillation.passes(batch, torch.zeros(2, 1, 2, 2)).first.terms
    assert terms is not None
    share = terms.get("knowledge", 0.0)
    assert terms["cross_entropy"] == pytest.approx(0.1 + (1 - share) * 0.9)
    return share


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        (5, {1: 0, 4: 0, 5: 0, 6: 5, 9: 5, 10: 10, 11: 10, 14: 10, 15: 15, 16: 15}),
        (1, {1: 0, 2: 2, 3: 3, 200: 200}),
    ],
)
def test_retrospection_shifts_the_label_in_the_last_epoch_of_an_interval(
    interval: int, expected: dict[int, int]
) -> None:
    found = {epoch: 1000 * recalled_share(interval, epoch) for epoch in expected}
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    ("share", "centre", "box"),
    [(0.7, (16, 16), (8, 24, 8, 24)), (0.7, (2, 30), (0, 10, 22, 32)), (0.999, (16, 16), None)],
)
def test_cutmix_cuts_twice_the_floor_of_half(
    share: float, centre: tuple[int, int], box: tuple[int, int, int, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    down, across = ((each + 0.5) / 32 for each in centre)
    drawn = torch.tensor([0.0, 0.9, down, across, 0.0], dtype=torch.float64)
    monkeypatch.setattr(mixing.torch, "rand", lambda *_, **__: drawn)
    monkeypatch.setattr(mixing, "_beta", lambda *_: share)
    found = mixing.draw_mixing((1,), "cutmix", 1.0, 1.0, 1.0, np.arange(4), 32, 32, second_batch=False)
    assert (None if found is None else found.box) == box
    if found is not None and box is not None:
        outside = 1 - (box[1] - box[0]) * (box[3] - box[2]) / 1024
        assert found.share.tolist() == pytest.approx([outside] * 4)


def pooled(features: Tensor, inputs: int) -> Tensor:
    head = prediction_head(tuple(features.shape[1:]), 2, inputs)
    pool: Tensor = head[0](features)
    return pool


def test_predsim_counts_the_zeros_around_what_it_pools() -> None:
    row, edge = [0.5, 1.0, 1.0, 1.0], [0.25, 0.5, 0.5, 0.5]
    assert pooled(torch.ones(1, 1, 7, 7), 16).tolist() == [[[edge, row, row, row]]]
    # Halved in height alone; then by windows of 4 that begin 2 outside, behind which the last row is left out.
    assert pooled(torch.ones(1, 1, 7, 7), 28).tolist() == [[[[0.5] * 7, *[[1.0] * 7] * 3]]]
    ramp = torch.arange(7.0).view(1, 1, 7, 1).expand(1, 1, 7, 7)
    assert pooled(ramp, 4)[0, 0].tolist() == [[0.125, 0.25], [1.75, 3.5]]
    assert pooled(torch.ones(1, 1, 8, 8), 16).tolist() == [[[[1.0] * 4] * 4]]


def test_the_heads_of_local_learning_start_as_torch_starts_them() -> None:
    with seeded("head"):
        convolutions = [each for each in dgl_head((64, 16, 16), 10) if isinstance(each, nn.Conv2d)]
        convolutions.append(SimilarityMatching((64, 16, 16), 10).convolution)
    assert len(convolutions) == 4
    for each in convolutions:
        bound = 1 / math.sqrt(each.weight[0].numel())
        assert bound * 0.99 < each.weight.abs().max().item() <= bound
        assert each.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
