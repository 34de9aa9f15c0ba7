"""Do optimizers step, and do learning rates run, as the formulas say?"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from engine.learners.optimization import learning_rate, learning_rate_at, make_optimizer
from engine.recipes import (
    SGD,
    Adam,
    AdamW,
    Backbone,
    Constant,
    Cosine,
    Data,
    EndToEnd,
    Exponential,
    Optimizer,
    Polynomial,
    Recipe,
    RMSProp,
    Schedule,
    Step,
)
from engine.streams import generator

Array = np.ndarray


def start_values() -> Array:
    return torch.randn(7, 5, generator=generator("optimization", "weights"), dtype=torch.float64).numpy()


def gradients(steps: int) -> list[Array]:
    draws = generator("optimization", "gradients")
    return [torch.randn(7, 5, generator=draws, dtype=torch.float64).numpy() for _ in range(steps)]


def follow(make: Any, steps: int) -> Array:
    """Apply an optimizer to known gradients."""
    weight = nn.Parameter(torch.from_numpy(start_values()).float())
    optimizer = make([weight])
    for gradient in gradients(steps):
        weight.grad = torch.from_numpy(gradient).float()
        optimizer.step()
    return weight.detach().double().numpy()


def sgd(settings: SGD, steps: int) -> Array:
    w, v = start_values(), np.zeros((7, 5))
    for step, raw in enumerate(gradients(steps)):
        g = raw + settings.weight_decay * w
        v = g if step == 0 else settings.momentum * v + g
        w = w - settings.learning_rate * (g + settings.momentum * v if settings.nesterov else v)
    return w


def adam(settings: Adam, steps: int, decoupled: bool) -> Array:
    w, m, s = start_values(), np.zeros((7, 5)), np.zeros((7, 5))
    first, second = settings.betas
    for step, raw in enumerate(gradients(steps), start=1):
        g = raw if decoupled else raw + settings.weight_decay * w
        if decoupled:
            w = w * (1 - settings.learning_rate * settings.weight_decay)
        m = first * m + (1 - first) * g
        s = second * s + (1 - second) * g * g
        unbiased, spread = m / (1 - first**step), s / (1 - second**step)
        w = w - settings.learning_rate * unbiased / (np.sqrt(spread) + settings.epsilon)
    return w


def rmsprop(settings: RMSProp, steps: int) -> Array:
    w, s, v = start_values(), np.zeros((7, 5)), np.zeros((7, 5))
    for raw in gradients(steps):
        g = raw + settings.weight_decay * w
        s = settings.alpha * s + (1 - settings.alpha) * g * g
        v = settings.momentum * v + g / (np.sqrt(s) + settings.epsilon)
        w = w - settings.learning_rate * v
    return w


SGDS = [
    SGD(),
    SGD(momentum=0, nesterov=False),
    SGD(nesterov=False),
    SGD(weight_decay=0),
    SGD(learning_rate=0.8, momentum=0.5, weight_decay=0.1),
]


@pytest.mark.parametrize("chosen", SGDS)
def test_sgd_follows_its_formula(chosen: SGD) -> None:
    np.testing.assert_allclose(follow(lambda p: make_optimizer(chosen, p), 4), sgd(chosen, 4), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("chosen", [Adam(), Adam(learning_rate=0.1, betas=(0.5, 0.7), epsilon=0.1, weight_decay=0.2)])
def test_adam_follows_its_formula(chosen: Adam) -> None:
    found = follow(lambda p: make_optimizer(chosen, p), 4)
    np.testing.assert_allclose(found, adam(chosen, 4, decoupled=False), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("chosen", [AdamW(), AdamW(learning_rate=0.1, betas=(0.5, 0.7), epsilon=0.1, weight_decay=0.2)])
def test_adamw_takes_the_decay_from_the_weights(chosen: AdamW) -> None:
    found = follow(lambda p: make_optimizer(chosen, p), 4)
    np.testing.assert_allclose(found, adam(chosen, 4, decoupled=True), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("chosen", [RMSProp(), RMSProp(learning_rate=0.1, alpha=0.5, momentum=0.9, weight_decay=0.2)])
def test_rmsprop_follows_its_formula(chosen: RMSProp) -> None:
    found = follow(lambda p: make_optimizer(chosen, p), 4)
    np.testing.assert_allclose(found, rmsprop(chosen, 4), rtol=1e-5, atol=1e-6)


TORCHS: list[tuple[Optimizer, Any]] = [
    (SGD(), lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True, weight_decay=1e-4)),
    (Adam(weight_decay=0.1), lambda p: torch.optim.Adam(p, 1e-3, weight_decay=0.1)),
    (AdamW(), lambda p: torch.optim.AdamW(p, 1e-3, weight_decay=0.01)),
    (RMSProp(momentum=0.5), lambda p: torch.optim.RMSprop(p, 1e-2, momentum=0.5)),
]


@pytest.mark.parametrize(("chosen", "torchs"), TORCHS, ids=lambda value: getattr(value, "kind", "torch"))
def test_a_real_step_equals_torchs_own(chosen: Optimizer, torchs: Any) -> None:
    def trained(make: Any) -> list[Tensor]:
        torch.set_num_threads(1)
        draws = generator("optimization", "network")
        network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
        for parameter in network.parameters():
            nn.init.normal_(parameter, generator=draws)
        optimizer = make(network.parameters())
        for _ in range(3):
            images = torch.randn(6, 3, 8, 8, generator=draws)
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(images), torch.arange(6) % 5).backward()
            optimizer.step()
        return [parameter.detach() for parameter in network.parameters()]

    ours, theirs = trained(lambda p: make_optimizer(chosen, p)), trained(torchs)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("chosen", [SGD(), Adam(), AdamW(), RMSProp()], ids=lambda value: value.kind)
def test_all_parameters_are_treated_alike(chosen: Optimizer) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    (group,) = make_optimizer(chosen, network.parameters()).param_groups
    assert [id(parameter) for parameter in group["params"]] == [id(parameter) for parameter in network.parameters()]
    assert group["weight_decay"] == chosen.weight_decay


def test_weight_decay_reaches_batch_norm() -> None:
    norm = nn.BatchNorm2d(4)
    optimizer = make_optimizer(SGD(learning_rate=0.1, momentum=0, nesterov=False, weight_decay=0.5), norm.parameters())
    for parameter in norm.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(norm.weight.detach(), torch.full((4,), 0.95))


places = st.tuples(st.integers(1, 200), st.integers(1, 50)).flatmap(
    lambda size: st.tuples(st.just(size[0]), st.just(size[1]), st.integers(0, size[0] - 1), st.integers(0, size[1] - 1))
)
rates = st.floats(1e-4, 10)


def expected(schedule: Schedule, start: float, epochs: int, per_epoch: int, epoch: int, step: int) -> float:
    """Return the rate by the words of the recipe's docstrings."""
    done = (epoch * per_epoch + step) / (epochs * per_epoch)
    if isinstance(schedule, Constant):
        return start
    if isinstance(schedule, Step):
        for milestone in schedule.milestones:
            if epoch >= milestone:
                start = start * schedule.factor
        return start
    if isinstance(schedule, Polynomial):
        return schedule.minimum + (start - schedule.minimum) * math.pow(1 - done, schedule.power)
    if isinstance(schedule, Exponential):
        for _ in range(epoch):
            start = start * schedule.factor
        return start
    assert isinstance(schedule, Cosine)
    # A single epoch that would run at 0 falls from step to step.
    alone = epochs == 1 and schedule.counts_from == 1 and schedule.warmup_epochs == 0
    turn = (epoch + schedule.counts_from) / epochs if schedule.interval == "epoch" and not alone else done
    base = start * math.cos(math.pi * turn / 2) ** 2  # half-angle form of (1 + cos) / 2
    e, warmup = epoch + 1, schedule.warmup_epochs
    if e > warmup:
        return base
    return (base * (e - 1) + schedule.warmup_learning_rate * (warmup + 1 - e)) / warmup


schedules = st.one_of(
    st.just(Constant()),
    st.builds(
        lambda count, **fields: Cosine(interval=count[0], counts_from=count[1], **fields),
        st.sampled_from([("epoch", 0), ("epoch", 1), ("step", 1)]),
        warmup_epochs=st.integers(0, 20),
        warmup_learning_rate=st.floats(0, 1),
    ),
    st.builds(Step, milestones=st.sets(st.integers(1, 200), max_size=4).map(lambda found: tuple(sorted(found)))),
    st.builds(Polynomial, power=st.floats(0.1, 3), minimum=st.floats(0, 0.1)),
    st.builds(Exponential, factor=st.floats(0.5, 1)),
)


@settings(max_examples=300, deadline=None)
@given(schedules, rates, places)
def test_rates_follow_their_formulas(schedule: Schedule, start: float, place: tuple[int, int, int, int]) -> None:
    found = learning_rate(schedule, start, *place)
    assert found == pytest.approx(expected(schedule, start, *place), rel=1e-9, abs=1e-12)
    assert found >= 0


def test_infopro_on_cifar() -> None:
    schedule = Cosine(counts_from=1, warmup_epochs=10, warmup_learning_rate=0.01)

    def rate(number: int, step: int = 0) -> float:
        return learning_rate(schedule, 0.8, 160, 49, number - 1, step)

    assert rate(1) == pytest.approx(0.01, abs=1e-15)
    assert rate(10) == pytest.approx(0.9 * 0.4 * (1 + math.cos(math.pi * 10 / 160)) + 0.001)
    assert rate(11) == pytest.approx(0.4 * (1 + math.cos(math.pi * 11 / 160)))
    assert rate(160) == 0
    assert all(rate(number, 0) == rate(number, 48) for number in range(1, 161))
    assert all(rate(number) < rate(number + 1) for number in range(1, 10))
    assert all(rate(number) > rate(number + 1) for number in range(11, 160))


def test_a_single_epoch_of_the_default_schedule_learns() -> None:
    found = [learning_rate(Cosine(), 1.0, 1, 4, 0, step) for step in range(4)]
    assert found == pytest.approx([1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2])
    # Two epochs are as they were: half of the rate, then 0.
    assert [learning_rate(Cosine(), 1.0, 2, 4, epoch, 0) for epoch in range(2)] == pytest.approx([0.5, 0], abs=1e-15)
    assert learning_rate(Cosine(warmup_epochs=2), 1.0, 1, 4, 0, 3) == pytest.approx(0.01)
    assert learning_rate(Cosine(counts_from=0), 1.0, 1, 4, 0, 3) == 1


def test_steps_of_the_milestones() -> None:
    schedule = Step(milestones=(80, 120))
    found = [learning_rate(schedule, 1.0, 160, 10, epoch, 9) for epoch in (0, 79, 80, 119, 120, 159)]
    assert found == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_steps_after_a_warm_up() -> None:
    schedule = Step(milestones=(40, 70), warmup_epochs=10)
    found = [learning_rate(schedule, 3.5e-4, 120, 10, epoch, 9) for epoch in (0, 4, 9, 10, 39, 40, 70)]
    assert found == pytest.approx([3.5e-5, 1.75e-4, 3.5e-4, 3.5e-4, 3.5e-4, 3.5e-5, 3.5e-6])


def test_rates_by_step_change_inside_an_epoch() -> None:
    for schedule in (Cosine(interval="step"), Polynomial()):
        found = [learning_rate(schedule, 1.0, 2, 5, epoch, step) for epoch in range(2) for step in range(5)]
        assert found[0] == 1
        assert all(one > other for one, other in pairwise(found))


def test_the_recipes_rate_is_that_of_its_schedule() -> None:
    recipe = Recipe(
        name="r",
        method=EndToEnd(),
        backbone=Backbone(name="resnet8"),
        data=Data(name="digits"),
        optimizer=Adam(learning_rate=0.3),
        schedule=Polynomial(power=2),
        epochs=4,
    )
    assert learning_rate_at(recipe, 5, 2, 3) == pytest.approx(0.3 * (1 - 13 / 20) ** 2)
