"""Are companions on hidden features those of deeply supervised nets?"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.objectives import (
    Branches,
    BranchHead,
    Classification,
    Context,
    DeepSupervisionSchedule,
    Objective,
    SquaredHinge,
    squared_hinge_loss,
)
from engine.streams import generator, seeded

BATCH, CLASSES = 10, 4
LABELS = torch.arange(BATCH) % CLASSES


def drawn(*shape: int, key: str) -> Tensor:
    return torch.randn(*shape, generator=generator("companions", key))


def companions_of(**settings: Any) -> Branches:
    with seeded("companions"):
        head = BranchHead("after_block", "block", nn.Linear(6, CLASSES))
    return Branches([head], origin=(7, "segment0"), **settings)


def test_squared_hinge_is_the_published_example() -> None:
    # By hand: (1 - 0.5)^2 + (1 - 2)_+^2 ... with t = (1, -1, -1) and (-1, -1, 1).
    logits = torch.tensor([[0.5, -2.0, 0.0], [-0.5, 1.0, 3.0]])
    first = (1 - 0.5) ** 2 + 0.0 + (1 + 0.0) ** 2
    second = (1 - 0.5) ** 2 + (1 + 1.0) ** 2 + 0.0
    assert squared_hinge_loss(logits, torch.tensor([0, 2])).item() == pytest.approx((first + second) / 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_squared_hinge_and_its_gradient_are_those_of_a_loop(dtype: torch.dtype) -> None:
    labels = LABELS.clone()
    labels[::4] = -1
    logits = (2 * drawn(BATCH, CLASSES, key="logits")).to(dtype).requires_grad_()
    count = int((labels >= 0).sum())
    expected, gradient = 0.0, torch.zeros(BATCH, CLASSES, dtype=torch.float64)
    for image, label in enumerate(labels.tolist()):
        for place, score in enumerate(logits[image].tolist() if label >= 0 else []):
            sign = 1.0 if place == label else -1.0
            margin = max(0.0, 1.0 - sign * score)
            expected += margin**2 / count
            gradient[image, place] = -2 * sign * margin / count
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        loss = squared_hinge_loss(logits, labels)
    loss.backward()
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(expected, rel=1e-5)
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, gradient.to(dtype))


def test_squared_hinge_without_labels_is_0_with_gradient_0() -> None:
    logits = drawn(BATCH, CLASSES, key="logits").requires_grad_()
    loss = squared_hinge_loss(logits, torch.full((BATCH,), -1))
    loss.backward()
    assert loss.item() == 0.0 and logits.grad is not None
    assert torch.equal(logits.grad, torch.zeros(BATCH, CLASSES))


def test_squared_hinge_takes_the_place_of_cross_entropy() -> None:
    scores = drawn(BATCH, CLASSES, key="scores").requires_grad_()
    objective = Objective({"squared_hinge": SquaredHinge()}, {"squared_hinge": 0.5})
    value = objective(scores, Context(LABELS))
    assert torch.equal(value.total, 0.5 * squared_hinge_loss(scores, LABELS))
    assert value.logits is not None and torch.equal(value.logits, scores.detach())
    assert objective.need_labels == {"squared_hinge"}


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        (DeepSupervisionSchedule("none", 4, 0.25), [1.0, 1.0, 1.0, 1.0]),
        (DeepSupervisionSchedule("linear", 4, 0.25), [1.0, 0.75, 0.5, 0.25]),
        (DeepSupervisionSchedule("stop", 4, 0.25), [1.0, 0.0, 0.0, 0.0]),
        (DeepSupervisionSchedule("stop", 4, 0.3), [1.0, 1.0, 0.0, 0.0]),
        (DeepSupervisionSchedule("stop", 4, 0.0), [0.0, 0.0, 0.0, 0.0]),
        (DeepSupervisionSchedule("stop", 4, 1.0), [1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_weight_follows_the_schedule(schedule: DeepSupervisionSchedule, factors: list[float]) -> None:
    assert [schedule.factor(epoch) for epoch in range(4)] == factors
    term = companions_of(schedule=schedule, label_weight=0.6)
    features = drawn(BATCH, 6, key="features").requires_grad_()
    full = 0.6 * F.cross_entropy(term.heads["after_block"](features), LABELS)
    for epoch, factor in enumerate(factors):
        loss = term(features, Context(LABELS, hooked={"block": features}, epoch=epoch)).loss
        torch.testing.assert_close(loss, factor * full)


def test_the_epoch_of_the_stop_is_not_lost_in_rounding() -> None:
    # 0.07 * 100 is a little more than 7.
    schedule = DeepSupervisionSchedule("stop", 100, 0.07)
    assert sum(schedule.factor(epoch) for epoch in range(100)) == 7


@pytest.mark.parametrize("label_loss", ["cross_entropy", "squared_hinge"])
def test_a_companion_below_the_threshold_no_longer_teaches(label_loss: str) -> None:
    features = drawn(BATCH, 6, key="features").requires_grad_()
    own = companions_of(label_loss=label_loss)
    context = Context(LABELS, hooked={"block": features})
    free = own(features, context)
    (gradient,) = torch.autograd.grad(free.loss, features)
    level = free.loss.item()
    for gamma, expected in [(level - 0.1, gradient), (level + 0.1, torch.zeros_like(gradient))]:
        value = companions_of(label_loss=label_loss, threshold=gamma)(features, context)
        assert value.loss.item() == pytest.approx(max(0.0, level - gamma), abs=1e-6)
        assert torch.equal(torch.autograd.grad(value.loss, features)[0], expected)
        record = value.observed[f"branches/{label_loss}/after_block"]
        assert record.item() == level


def test_companions_with_squared_hinge_are_compared_with_a_network_that_has_it_too() -> None:
    features = drawn(BATCH, 6, key="features").requires_grad_()
    scores = features[:, :CLASSES] * 1.0
    term = companions_of(label_loss="squared_hinge", measure_gradients_every=1)
    value = term(scores, Context(LABELS, hooked={"block": features}, predictions=scores))
    companion = term.heads["after_block"](features)
    torch.testing.assert_close(value.loss, squared_hinge_loss(companion, LABELS))
    first, second = (
        torch.autograd.grad(squared_hinge_loss(each, LABELS), features, retain_graph=True)[0]
        for each in (scores, companion)
    )
    expected = float((first * second).sum() / first.norm() / second.norm())
    found = value.observed["branches/gradient_cosine/label/main~after_block"].item()
    assert found == pytest.approx(expected, abs=1e-5)


def test_companions_that_have_stopped_leave_trunk_and_optimizer_alone() -> None:
    inputs = drawn(BATCH, 6, key="inputs")

    def trained(epochs: int, alone_from: int | None) -> tuple[dict[str, Tensor], list[Tensor], list[int]]:
        """Train with companions that stop after 2 of 4 epochs, or without any from some epoch on."""
        with seeded("companions", "trunk"):
            trunk, classifier = nn.Linear(6, 6), nn.Linear(6, CLASSES)
        term = companions_of(schedule=DeepSupervisionSchedule("stop", 4, 0.5))
        runs: list[int] = []
        term.heads["after_block"].register_forward_hook(lambda *_: runs.append(1))
        terms = {"cross_entropy": Classification(), "branches": term}
        objective = Objective(terms, {"cross_entropy": 1.0, "branches": 1.0})
        alone = Objective({"cross_entropy": Classification()}, {"cross_entropy": 1.0})
        own = [*trunk.parameters(), *classifier.parameters()]
        optimizer = torch.optim.SGD([*own, *term.parameters()], lr=0.1, momentum=0.9, weight_decay=0.01)
        for epoch in range(epochs):
            features = trunk(inputs).relu()
            chosen = objective if alone_from is None or epoch < alone_from else alone
            value = chosen(classifier(features), Context(LABELS, hooked={"block": features}, epoch=epoch))
            value.total.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        momenta = [optimizer.state[each]["momentum_buffer"] for each in own]
        weights = {str(index): each.detach() for index, each in enumerate(own)}
        return {**weights, **term.state_dict()}, momenta, runs

    stopped, removed, before = trained(4, None), trained(4, 2), trained(2, None)
    assert len(stopped[2]) == 2
    for name, weight in stopped[0].items():
        assert torch.equal(weight, removed[0][name])
        # Those of the companions stay as they were, without decay; those of the network go on.
        assert torch.equal(weight, before[0][name]) == name.startswith("heads")
    for first, second in zip(stopped[1], removed[1], strict=True):
        assert torch.equal(first, second)
