"""Are the gradients of each learner clipped to the norm that is given, and otherwise left as they are?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import engine
from engine.data import Batch, open_source
from engine.learners import Learner
from engine.learners.loss_scaling import LossScaler
from engine.methods import method_of
from engine.program import BATCH
from engine.recipes import (
    DHM,
    DML,
    SGD,
    Adam,
    AdamW,
    Constant,
    EndToEnd,
    Greedy,
    Peer,
    Plan,
    Recipe,
    RMSProp,
    apply_overrides,
    recipe_from_dict,
    recipe_identity,
    recipe_to_dict,
)

TinyRecipe = Callable[..., Recipe]
CPU = torch.device("cpu")
RATE, NORM = 0.5, 0.125
PLAIN = SGD(learning_rate=RATE, momentum=0.0, nesterov=False, weight_decay=0.0)
CLIPPED = SGD(learning_rate=RATE, momentum=0.0, nesterov=False, weight_decay=0.0, clip_norm=NORM)
LOOSE = SGD(learning_rate=RATE, momentum=0.0, nesterov=False, weight_decay=0.0, clip_norm=1e6)


def changes(
    recipe: Recipe, prepare: Callable[[Learner], None] = lambda learner: None
) -> tuple[dict[str, Tensor], dict[str, dict[str, float]]]:
    """Return by how much a step changes each learner's weights, and the metrics, by learner."""
    source, method = open_source(recipe.data, recipe.seed), method_of(recipe)
    batch: Batch = source.batch(0, 0)
    team = method.team(recipe, source.facts)
    made: dict[str, Learner] = {}
    for spec in team.learners:
        built = method.build_learner(recipe, source.facts, source.steps_per_epoch(), spec.name, CPU)
        assert isinstance(built, Learner)
        prepare(built)
        made[spec.name] = built
    source.close()
    before = {
        name: [each.detach().clone() for each in own.optimizer.param_groups[0]["params"]] for name, own in made.items()
    }
    messages: dict[str, Tensor] = {}
    for call in team.program(0).calls:
        if call.learner in made:
            taken = {name: messages[name] for name in call.takes if name != BATCH}
            given = made[call.learner].call(call.phase, batch if BATCH in call.takes else None, taken)
            messages |= dict(zip(call.gives, given, strict=False))
    moved = {
        name: torch.cat(
            [
                (now.detach() - then).flatten()
                for now, then in zip(own.optimizer.param_groups[0]["params"], before[name], strict=True)
            ]
        )
        for name, own in made.items()
    }
    return moved, {name: own.ask("metrics") for name, own in made.items()}


def test_each_learner_moves_by_the_norm_that_is_given(tiny_recipe: TinyRecipe) -> None:
    recipes = [
        tiny_recipe(method=Greedy(num_segments=2), optimizer=each, schedule=Constant()) for each in (PLAIN, CLIPPED)
    ]
    (free, told), (clipped, metrics) = (changes(recipe) for recipe in recipes)
    assert set(free) == {"segment0", "segment1"}
    for name, way in free.items():
        assert float(way.norm()) > RATE * NORM
        torch.testing.assert_close(clipped[name], way * (RATE * NORM / way.norm()), rtol=1e-3, atol=1e-7)
        assert metrics[name]["gradient_norm"] == pytest.approx(float(way.norm()) / RATE, rel=1e-4)
        assert "gradient_norm" not in told[name]


def test_smaller_gradients_stay_as_they_are_to_the_last_bit(tiny_recipe: TinyRecipe) -> None:
    (free, _), (loose, metrics) = (
        changes(tiny_recipe(method=Greedy(num_segments=2), optimizer=each)) for each in (PLAIN, LOOSE)
    )
    assert all(way.equal(loose[name]) for name, way in free.items())
    assert all(own["gradient_norm"] > 0 for own in metrics.values())


def test_scaled_gradients_are_clipped_as_if_they_were_not(tiny_recipe: TinyRecipe) -> None:
    recipe = tiny_recipe(method=EndToEnd(), optimizer=CLIPPED, schedule=Constant())

    def scaled(learner: Learner) -> None:
        learner._propagation.scaler = LossScaler("cpu", enabled=True)

    (plain, told), (found, metrics) = changes(recipe), changes(recipe, scaled)
    for name, way in plain.items():
        # A scale that is a power of two changes no digit.
        assert found[name].equal(way)
        assert metrics[name]["gradient_norm"] == told[name]["gradient_norm"]


@pytest.mark.parametrize(("field", "value"), [("clip_norm", 1.0), ("undecayed", "norms_and_biases")])
@pytest.mark.parametrize("kind", [SGD, Adam, AdamW, RMSProp])
def test_a_recipe_without_it_is_the_one_of_before(
    kind: Any, field: str, value: float | str, tiny_recipe: TinyRecipe
) -> None:
    plain, given = (tiny_recipe(optimizer=each) for each in (kind(), kind(**{field: value})))
    assert field not in recipe_to_dict(plain)["optimizer"]
    assert recipe_to_dict(given)["optimizer"][field] == value
    assert recipe_from_dict(recipe_to_dict(given)) == given
    assert recipe_identity(plain) != recipe_identity(given)
    without, _ = apply_overrides(given, Plan(), [f"optimizer.{field}=null"])
    assert recipe_identity(without) == recipe_identity(plain)


def test_a_norm_of_zero_is_refused(tiny_recipe: TinyRecipe) -> None:
    with pytest.raises(engine.RecipeError, match=r"optimizer\.clip_norm: found 0"):
        apply_overrides(tiny_recipe(), Plan(), ["optimizer.clip_norm=0"])


def test_branches_that_are_learners_would_clip_other_norms(tiny_recipe: TinyRecipe) -> None:
    words = ["method.branch_learners=true", "optimizer.clip_norm=1"]
    with pytest.raises(engine.RecipeError, match=r"optimizer\.clip_norm=1\.0 .* set optimizer\.clip_norm=null, or"):
        apply_overrides(tiny_recipe(method=DHM()), Plan(), words)
    assert apply_overrides(tiny_recipe(method=DHM()), Plan(), words[1:])[0].optimizer.clip_norm == 1


def test_a_peer_may_clip_alone(tiny_recipe: TinyRecipe) -> None:
    recipe = tiny_recipe(method=DML(peers=(Peer(), Peer(optimizer=CLIPPED))), optimizer=PLAIN)
    _, metrics = changes(recipe)
    assert {name: "gradient_norm" in own for name, own in metrics.items()} == {"peer0": False, "peer1": True}


@pytest.mark.parametrize("kind", [SGD, Adam])
def test_a_learner_that_goes_on_from_its_state_ends_with_the_same_weights(kind: Any, tiny_recipe: TinyRecipe) -> None:
    recipe = tiny_recipe(method=EndToEnd(), optimizer=kind(clip_norm=0.1, undecayed="norms_and_biases"))
    source = open_source(recipe.data, recipe.seed)
    batches = [source.batch(*divmod(step, source.steps_per_epoch())) for step in range(4)]
    source.close()

    def built() -> Learner:
        made = method_of(recipe).build_learner(recipe, source.facts, source.steps_per_epoch(), "segment0", CPU)
        assert isinstance(made, Learner)
        return made

    straight, halted, resumed = built(), built(), built()
    for step, batch in enumerate(batches):
        for each in (straight, halted if step < 2 else resumed):
            each.call("forward", batch, {})
            each.call("update", None, {})
        if step == 1:
            resumed.restore(halted.ask("state"))
    one, other = straight.ask("state").tensors, resumed.ask("state").tensors
    assert one.keys() == other.keys()
    assert all(value.equal(other[name]) for name, value in one.items())
    assert straight.ask("metrics")["gradient_norm"] == resumed.ask("metrics")["gradient_norm"]
