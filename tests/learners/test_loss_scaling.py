"""Are steps that float16 leaves out counted without waiting, and is it told when there is no end to them?"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from engine.data import open_source
from engine.errors import LearnerDiverged
from engine.learners import Learner, NotFinite, make_optimizer
from engine.learners.loss_scaling import LossScaler
from engine.methods import method_of
from engine.recipes import SGD, Greedy, Recipe

CPU = torch.device("cpu")


def stepped(scaler: LossScaler, gradients: list[float]) -> list[float]:
    """Step an optimizer with gradients of a scaled loss; returns which steps were left out."""
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = make_optimizer(SGD(), [weight])
    found = []
    for gradient in gradients:
        scaler.scale(torch.ones(()))
        weight.grad = torch.full((1,), gradient)
        before = weight.detach().clone()
        scaler.step(optimizer)
        scaler.update()
        (skipped,) = scaler.observed().values()
        assert bool(skipped) == weight.detach().equal(before)
        found.append(float(skipped))
    return found


def test_the_steps_that_are_left_out_are_told_apart() -> None:
    scaler = LossScaler("cpu", enabled=True)
    infinite, nan = float("inf"), float("nan")
    assert stepped(scaler, [1.0, infinite, 1.0, nan, infinite]) == [0, 1, 0, 1, 1]
    assert scaler.settle() == {"loss_scale": 2.0**13}


def test_a_scale_that_grows_is_no_step_left_out() -> None:
    scaler = LossScaler("cpu", enabled=True)
    scaler.set_growth_interval(1)
    assert stepped(scaler, [1.0, 1.0]) == [0, 0]
    assert scaler.settle() == {"loss_scale": 2.0**18}


def test_fifty_in_a_row_end_the_training_when_it_is_asked() -> None:
    infinite = [float("inf")]
    scaler = LossScaler("cpu", enabled=True)
    stepped(scaler, [*infinite * 49, 1.0, *infinite * 49])
    scaler.settle()
    stepped(scaler, infinite)
    with pytest.raises(NotFinite, match=r"in the last 50 steps, .* set numerics\.precision=bfloat16"):
        scaler.settle()


def test_nothing_is_told_where_losses_are_not_scaled() -> None:
    scaler = LossScaler("cpu", enabled=False)
    scaler.update()
    assert scaler.observed() == scaler.settle() == {}


def test_a_learner_reports_scale_and_share_and_goes_on_so_after_a_resumption(
    tiny_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe(method=Greedy(num_segments=2))
    source = open_source(recipe.data, recipe.seed)
    batches = [source.batch(*divmod(step, source.steps_per_epoch())) for step in range(3)]
    source.close()

    def built() -> Learner:
        made = method_of(recipe).build_learner(recipe, source.facts, source.steps_per_epoch(), "segment0", CPU)
        assert isinstance(made, Learner)
        # A stand-in for float16, which needs a GPU.
        made._propagation.scaler = LossScaler("cpu", enabled=True)
        return made

    def run(learner: Learner, step: int) -> None:
        learner.call("forward", batches[step], {})
        if step == 1:
            weight = next(iter(learner.body.parameters()))
            weight.grad = torch.full_like(weight, float("inf"))
        learner.call("update", None, {})

    straight, before, after = built(), built(), built()
    for step in range(3):
        run(straight, step)
        run(before if step < 2 else after, step)
        if step == 1:
            after.restore(before.ask("state"))
    found, resumed = straight.ask("metrics"), after.ask("metrics")
    assert found["skipped_share"] == resumed["skipped_share"] == pytest.approx(1 / 3)
    assert found["loss_scale"] == resumed["loss_scale"] == 2.0**15
    monkeypatch.setattr("engine.learners.loss_scaling._MOST_IN_A_ROW", 1)
    run(straight, 1)
    with pytest.raises(LearnerDiverged, match=r"gradients in float16 were not finite"):
        straight.ask("metrics")
