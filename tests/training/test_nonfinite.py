"""Does a loss that is not finite stop the training before the weights change, and say where it came from?"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import engine
from engine.data import Batch, open_source
from engine.learners import Learner
from engine.objectives import Objective
from engine.recipes import SGD, Recipe
from engine.training import load

RAY_CPUS = 3

TinyRecipe = Callable[..., Recipe]
PLAN = engine.Plan(executor="process", checkpoint_every_steps=2, report_every_steps=1)


class Spoiler:
    """Makes one loss term of one segment infinite or NaN in one step, and remembers the weights before that step."""

    def __init__(self, patched: pytest.MonkeyPatch, segment: str, term: str, value: float, at: int) -> None:
        self.before: dict[str, torch.Tensor] = {}
        self.learner: Learner | None = None
        now: dict[str, Any] = {"spoil": False}
        update, compute = Learner.update, Objective.forward

        def spoiled_update(learner: Learner, batch: Batch | None, messages: Mapping[str, torch.Tensor]) -> Any:
            assert learner._pending is not None
            place = learner._pending.batch.epoch * 4 + learner._pending.batch.step + 1
            now["spoil"] = learner.name == segment and place == at
            if now["spoil"]:
                self.learner = learner
                self.before = {name: value.clone() for name, value in self.state().items()}
            return update(learner, batch, messages)

        def spoiled_forward(objective: Objective, *arguments: Any) -> Any:
            found = compute(objective, *arguments)
            if not now["spoil"]:
                return found
            losses = {name: loss * value if name == term else loss for name, loss in found.losses.items()}
            return dataclasses.replace(found, losses=losses, total=found.total * value)

        patched.setattr(Learner, "update", spoiled_update)
        patched.setattr(Objective, "forward", spoiled_forward)

    def state(self) -> dict[str, torch.Tensor]:
        assert self.learner is not None
        slots = self.learner.optimizer.state_dict()["state"]
        optimizer = {f"{place} {slot}": value for place, found in slots.items() for slot, value in found.items()}
        return {**self.learner.body.state_dict(), **self.learner.objective.state_dict(), **optimizer}


@pytest.mark.parametrize(
    ("segment", "term", "value", "step"),
    [
        ("segment1", "reconstruction", float("inf"), 7),
        ("segment0", "cross_entropy", float("nan"), 5),
        ("segment2", "cross_entropy", float("-inf"), 8),
    ],
)
def test_a_loss_that_is_not_finite(
    segment: str,
    term: str,
    value: float,
    step: int,
    tmp_path: Path,
    tiny_recipe: TinyRecipe,
    assert_same_run: Callable[[Path, Path], None],
) -> None:
    recipe = tiny_recipe()
    with pytest.MonkeyPatch.context() as patched:
        spoiler = Spoiler(patched, segment, term, value, step)
        with pytest.raises(engine.LearnerError) as caught:
            engine.train(recipe, PLAN, tmp_path / "run")
        assert spoiler.state().keys() == spoiler.before.keys()
        for name, before in spoiler.before.items():
            if "running" not in name and "num_batches" not in name:  # the forward pass, before the loss, changed these
                assert spoiler.state()[name].equal(before), name
    source = open_source(recipe.data, recipe.seed)
    indices = source.batch(*divmod(step - 1, 4)).indices[:5].tolist()
    source.close()
    message = str(caught.value)
    assert caught.value.learner == segment
    assert message.startswith(f"learner {segment}: loss term '{term}' is {value} in epoch 2, step {step - 4} ")
    assert f"indices {', '.join(map(str, indices))}, ..." in message
    assert "the weights were not changed" in message
    assert "optimizer.learning_rate" in message
    assert message in (tmp_path / "run" / "log.txt").read_text()
    assert load(tmp_path / "run").checkpoint.step == (step - 1) // 2 * 2
    engine.train(recipe, PLAN, tmp_path / "run")
    engine.train(recipe, PLAN, tmp_path / "straight")
    assert_same_run(tmp_path / "straight", tmp_path / "run")


def test_a_learning_rate_that_is_far_too_large(tmp_path: Path, tiny_recipe: TinyRecipe) -> None:
    recipe = tiny_recipe(optimizer=SGD(learning_rate=1e30))
    with pytest.raises(
        engine.LearnerError, match=r"learner segment\d: loss term '\w+' is (nan|inf) in epoch 1, step 2"
    ):
        engine.train(recipe, engine.Plan(executor="process", checkpoint_every_steps=1), tmp_path)
    checkpoint = load(tmp_path).checkpoint
    assert checkpoint.step == 1


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_on_ray_the_same_is_said(tmp_path: Path, tiny_recipe: TinyRecipe) -> None:
    recipe = tiny_recipe(optimizer=SGD(learning_rate=1e30))
    messages = []
    for executor in ("process", "ray"):
        plan = engine.Plan(executor=executor, checkpoint_every_steps=1)
        with pytest.raises(engine.LearnerError) as caught:
            engine.train(recipe, plan, tmp_path / executor)
        messages.append(str(caught.value))
        assert load(tmp_path / executor).checkpoint.step == 1
    assert messages[0] == messages[1]
