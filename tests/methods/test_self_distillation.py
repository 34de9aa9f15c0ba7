"""Are the methods that teach one network by itself the published ones, step by step, and plain training without it?"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import TypeAdapter
from torch import Tensor, nn

import engine
from engine.data import Batch, Facts
from engine.errors import RecipeError
from engine.knowledge import merge_changes
from engine.learners import Learner
from engine.methods import method_of
from engine.recipes import METHODS, Augmentation, Backbone, Classification, Recipe
from tests.methods.loops_by_hand import CPU, LOOPS, STEPS, Loop, data_of, dlb_with

RAY_CPUS = 2

Make = Callable[..., Recipe]
KINDS = ("label_smoothing", "data_mix", "one", "cs_kd", "ps_kd", "lwr", "dlb")
PLAIN: dict[str, Any] = {"data": {"augmentation": Augmentation()}}


@pytest.fixture
def make(tiny_recipe: Make) -> Make:
    """A function: kind and settings of a method, and what else is changed, to a recipe of 4 steps per epoch."""

    def build(kind: str, changes: dict[str, Any] | None = None, **settings: Any) -> Recipe:
        method: Any = TypeAdapter(METHODS[kind]).validate_python({"kind": kind, **settings})
        return tiny_recipe(**{**(changes or {}), "method": method})

    return build


def learner_of(recipe: Recipe, facts: Facts) -> Learner:
    method = method_of(recipe)
    (name,) = method.team(recipe, facts).names
    learner = method.build_learner(recipe, facts, STEPS, name, CPU)
    assert isinstance(learner, Learner)
    return learner


def learn(learner: Learner, batches: list[Batch]) -> None:
    for batch in batches:
        learner.forward(batch, {})
        learner.update(batch, {})


def trained(recipe: Recipe) -> dict[str, Tensor]:
    """Return the weights and running statistics of the network after the run."""
    facts, batches = data_of(recipe)
    learner = learner_of(recipe, facts)
    learn(learner, batches)
    return learner.body.state_dict()


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    assert first.keys() == second.keys()
    return all(value.equal(second[name]) for name, value in first.items())


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, rtol=1e-3, atol=2e-5, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_a_loop_written_by_hand(kind: str, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    loop, epochs, settings = LOOPS[kind]
    # Without a kink, where the rounding of one processor would tell on which side of it a unit lies.
    monkeypatch.setattr(nn.ReLU, "forward", lambda _, features: F.softplus(features))
    recipe = make(kind, {"epochs": epochs, "seed": 3}, **settings)
    assert_close(trained(recipe), loop(Loop(recipe)))


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_not_plain_training(kind: str, make: Make) -> None:
    """Without augmentation, whose random numbers depend on how many images are augmented."""
    _, epochs, settings = LOOPS[kind]
    changes = {**PLAIN, "epochs": epochs}
    found, plain = trained(make(kind, changes, **settings)), trained(make("end_to_end", changes))
    assert max(float((found[name] - plain[name]).abs().max()) for name in found if "weight" in name) > 1e-2


@pytest.mark.parametrize(
    ("kind", "settings", "changes"),
    [
        ("label_smoothing", {"smoothing": 0.0}, {}),
        ("data_mix", {"mixing_probability": 0.0}, {}),
        ("data_mix", {"warmup_fraction": 1.0}, {}),
        ("ps_kd", {"last_share": 0.0}, {}),
        ("ps_kd", {}, {"epochs": 1}),
        ("lwr", {"interval": 2}, {}),
        ("lwr", {"interval": 1, "label_share": 1.0}, {}),
        ("cs_kd", {"weight": 0.0}, PLAIN),
    ],
)
def test_without_what_it_adds_it_is_plain_training(
    kind: str, settings: dict[str, Any], changes: dict[str, Any], make: Make
) -> None:
    assert same(trained(make(kind, changes, **settings)), trained(make("end_to_end", changes)))


@pytest.mark.parametrize(("kind", "settings"), [("end_to_end", {}), ("stochastic_depth", {"last_survival": 1.0})])
def test_label_smoothing_of_the_task_is_that_of_the_method(kind: str, settings: dict[str, Any], make: Make) -> None:
    smoothed = trained(make(kind, {"task": Classification(label_smoothing=0.2)}, **settings))
    assert same(smoothed, trained(make("label_smoothing", smoothing=0.2)))
    assert not same(smoothed, trained(make(kind, **settings)))


def test_dlb_of_weight_0_is_cross_entropy_of_both_views(make: Make) -> None:
    recipe = make("dlb", {"seed": 3}, weight=0.0)
    assert_close(trained(recipe), dlb_with(Loop(recipe), 0.0))


@pytest.mark.parametrize(("kind", "images"), [("cs_kd", 24), ("dlb", 24), ("lwr", 12)])
def test_paired_images_are_part_of_the_message(kind: str, images: int, make: Make) -> None:
    recipe = make(kind)
    facts, batches = data_of(recipe)
    assert len(batches[0].labels) == images
    (program,) = method_of(recipe).team(recipe, facts).training
    assert program.bytes_per_step == images * (64 + 8 + 8)


def test_the_branches_of_one_are_copies_with_weights_of_their_own(make: Make) -> None:
    recipe = make("one", num_branches=4)
    facts, _ = data_of(recipe)
    learner = learner_of(recipe, facts)
    branches = learner.objective.terms["ensemble"].branches
    assert isinstance(branches, nn.ModuleList)
    last = learner.body[5:].state_dict()
    assert [branch.state_dict().keys() for branch in branches] == [last.keys()] * 3
    weights = [last["layer3_0.conv1.weight"], *(branch.state_dict()["layer3_0.conv1.weight"] for branch in branches)]
    assert not any(first.equal(second) for first, second in itertools.combinations(weights, 2))
    (summary,) = method_of(recipe).team(recipe, facts).learners
    copied = sum(parameter.numel() for parameter in learner.body[5:].parameters())
    # Linear layer and batch norm of the gate, from 4 channels to 4 branches.
    assert summary.auxiliary_parameters == 3 * copied + 4 * 4 + 4 + 2 * 4


def test_one_needs_a_last_stage(make: Make, tmp_path: Path) -> None:
    file = tmp_path / "flat.py"
    file.write_text(
        "from collections import OrderedDict\n"
        "from torch import nn\n"
        "def flat(num_classes, image_shape):\n"
        "    end = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes))\n"
        "    first, second = nn.Conv2d(image_shape[0], 4, 3, stride=2), nn.Conv2d(4, 4, 1)\n"
        "    return nn.Sequential(OrderedDict(first=first, second=second, end=end))\n"
    )
    recipe = make("one", {"backbone": Backbone(name=f"{file}:flat")})
    facts, _ = data_of(recipe)
    with pytest.raises(RecipeError, match="no block of .* behind the first one"):
        method_of(recipe).team(recipe, facts)


@pytest.mark.parametrize("kind", KINDS)
def test_images_without_label_train(kind: str, make: Make) -> None:
    recipe = make(kind, {"data": {"labelled_fraction": 0.5}, "epochs": 3}, **({"interval": 1} if kind == "lwr" else {}))
    assert all(bool(value.isfinite().all()) for value in trained(recipe).values())


@pytest.mark.parametrize("kind", KINDS)
def test_another_learner_goes_on_from_the_state(kind: str, make: Make) -> None:
    """Knowledge comes in two pieces, of which the second holds only what changed."""
    _, epochs, settings = LOOPS[kind]
    recipe = make(kind, {"epochs": epochs}, **settings)
    facts, batches = data_of(recipe)
    straight, stopped, resumed = (learner_of(recipe, facts) for _ in range(3))
    learn(straight, batches)
    middle = len(batches) // 2 + 1
    learn(stopped, batches[:3])
    pieces = [stopped.ask_state().knowledge]
    learn(stopped, batches[3:middle])
    state = stopped.ask_state()
    if state.knowledge:
        state.knowledge = merge_changes([*pieces, state.knowledge])
    resumed.restore(state)
    learn(resumed, batches[middle:])
    first, second = straight.ask_state(), resumed.ask_state()
    assert same(first.tensors, second.tensors)
    assert first.extra["meters"] == second.extra["meters"]
    assert (kind in ("ps_kd", "lwr")) == bool(first.knowledge)


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("kind", ["one", "dlb", "ps_kd"])
def test_the_process_and_ray_give_the_same_weights(
    kind: str, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.training.by_products.plot_curves", lambda *_: None)
    alone = engine.train(make(kind), engine.Plan(executor="process"), tmp_path / "process")
    on_ray = engine.train(make(kind), engine.Plan(executor="ray", window=2), tmp_path / "ray")
    assert alone.weights_sha256 == on_ray.weights_sha256
    assert alone.metrics == on_ray.metrics
