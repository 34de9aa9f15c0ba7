"""Does a check that is deferred find, say and change just what an immediate one does?"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch

from engine.data import Batch, open_source
from engine.errors import LearnerError
from engine.learners import Learner, learner
from engine.learners.finite import DeferredCheck, ImmediateCheck, LossCheck, NotFinite, loss_check
from engine.methods import method_of
from engine.objectives import Objective
from engine.recipes import SGD, AdamW, Greedy, Recipe

TinyRecipe = Callable[..., Recipe]
CPU = torch.device("cpu")
STEPS = 6
SPOILED = 4


def _deferred(device: torch.device, optimizer: torch.optim.Optimizer, *, at_once: bool) -> LossCheck:
    return DeferredCheck(device)


def _build(recipe: Recipe) -> tuple[Learner, list[Batch]]:
    source = open_source(recipe.data, recipe.seed)
    built = method_of(recipe).build_learner(recipe, source.facts, source.steps_per_epoch(), "segment0", CPU)
    batches = [source.batch(*divmod(step, source.steps_per_epoch())) for step in range(STEPS)]
    source.close()
    assert isinstance(built, Learner)
    return built, batches


def _weights(of: Learner) -> dict[str, torch.Tensor]:
    slots = of.optimizer.state_dict()["state"]
    found = {f"{place} {slot}": value for place, own in slots.items() for slot, value in own.items()}
    found |= dict(of.body.named_parameters()) | dict(of.objective.named_parameters())
    return {name: value.detach().clone() for name, value in found.items()}


def _train(of: Learner, batches: list[Batch], patched: pytest.MonkeyPatch, spoiled: int | None) -> dict[str, Any]:
    """Run all steps, one of them perhaps with a loss that is NaN; returns the weights before that one."""
    before: dict[str, torch.Tensor] = {}
    now = {"step": 0}
    compute = Objective.forward

    def forward(objective: Objective, *arguments: Any) -> Any:
        found = compute(objective, *arguments)
        if now["step"] != spoiled:
            return found
        losses = {name: loss * float("nan") for name, loss in found.losses.items()}
        return dataclasses.replace(found, losses=losses, total=found.total * float("nan"))

    patched.setattr(Objective, "forward", forward)
    for step, batch in enumerate(batches):
        now["step"] = step
        if step == spoiled:
            before = _weights(of)
        of.call("forward", batch, {})
        of.call("update", None, {})
    return before


@pytest.mark.parametrize(
    "optimizer", [SGD(), SGD(momentum=0.0, nesterov=False), AdamW()], ids=["sgd", "plain", "adamw"]
)
def test_weights_and_numbers_are_the_same(
    optimizer: Any, tiny_recipe: TinyRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe(method=Greedy(num_segments=2), optimizer=optimizer)
    found = []
    for deferred in (False, True):
        with monkeypatch.context() as patched:
            if deferred:
                patched.setattr(learner, "loss_check", _deferred)
            built, batches = _build(recipe)
            _train(built, batches, patched, None)
            metrics = built.ask("metrics")
            found.append(
                (_weights(built), {name: metrics[name] for name in metrics if "loss" in name or "acc" in name})
            )
    (first, said), (second, also_said) = found
    assert said == also_said and said
    assert first.keys() == second.keys()
    assert all(value.equal(second[name]) for name, value in first.items())


@pytest.mark.parametrize("optimizer", [SGD(), AdamW()], ids=["sgd", "adamw"])
def test_no_weight_changes_from_the_loss_on_that_is_not_finite(
    optimizer: Any, tiny_recipe: TinyRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an immediate check says in the step itself, a deferred one says when it is asked, whatever the question."""
    recipe = tiny_recipe(method=Greedy(num_segments=2), optimizer=optimizer)
    with monkeypatch.context() as patched:
        at_once, batches = _build(recipe)
        with pytest.raises(LearnerError, match="loss term 'cross_entropy' is nan in epoch 2, step 1") as expected:
            _train(at_once, batches, patched, SPOILED)
    with monkeypatch.context() as patched:
        patched.setattr(learner, "loss_check", _deferred)
        built, batches = _build(recipe)
        before = _train(built, batches, patched, SPOILED)
    after = _weights(built)
    assert before.keys() == after.keys()
    assert all(value.equal(after[name]) for name, value in before.items())
    for question in ("metrics", "state", "score", "state"):
        with pytest.raises(LearnerError) as caught:
            built.ask(question)
        assert str(caught.value) == str(expected.value)


def _batch(step: int) -> Batch:
    return Batch(np.zeros((2, 1, 1, 1), np.uint8), np.zeros(2, np.int64), np.arange(2), "train", 0, step)


def _see(check: LossCheck, values: Mapping[str, float], step: int = 0) -> None:
    check.see({name: torch.tensor(value) for name, value in values.items()}, _batch(step))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_the_first_of_several_is_named(value: float) -> None:
    check = DeferredCheck(CPU)
    _see(check, {"a": 1.0, "total": 1.0}, 0)
    _see(check, {"a": value, "total": value}, 1)
    _see(check, {"a": 1.0, "total": float("nan")}, 2)
    words = f"loss term 'a' is {value} in epoch 1, step 2 .batch of 2 images, indices 0, 1, ...."
    for _ in range(2):
        with pytest.raises(NotFinite, match=words):
            check.settle()
    with pytest.raises(NotFinite, match=words):
        _see(ImmediateCheck(), {"a": value, "total": value}, 1)


def test_many_steps_without_a_question_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.learners.finite._MOST_STEPS", 3)
    check = DeferredCheck(CPU)
    _see(check, {"total": float("nan")})
    _see(check, {"total": 1.0})
    with pytest.raises(NotFinite):
        _see(check, {"total": 1.0})


@pytest.mark.parametrize("fails", [False, True])
def test_a_scaler_masks_the_step_itself(fails: bool) -> None:
    """Also the steps after the one whose loss was not finite."""
    check, weight = DeferredCheck(CPU), torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([weight], 0.1, momentum=0.9, fused=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for step in range(3):
        loss = (weight * weight).sum() * (float("nan") if fails and step == 1 else 1.0)
        check.see({"total": loss.detach()}, _batch(step))
        scaler.scale(check.spoiled(loss)).backward()
        check.mask(optimizer)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        if step == 0:
            after_one = weight.detach().clone()
    assert weight.equal(after_one) == fails
    assert bool(weight.isfinite().all())


def test_only_a_gpu_is_worth_a_deferred_check() -> None:
    weight = torch.nn.Parameter(torch.ones(1))
    fused, plain = torch.optim.SGD([weight], 0.1, fused=True), torch.optim.RMSprop([weight], 0.1)
    assert isinstance(loss_check(CPU, fused, at_once=False), ImmediateCheck)
    assert isinstance(loss_check(torch.device("cuda"), fused, at_once=True), ImmediateCheck)
    assert isinstance(loss_check(torch.device("cuda"), plain, at_once=False), ImmediateCheck)
