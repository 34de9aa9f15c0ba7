"""No gradient crosses a segment boundary, and a segment never depends on those after it."""

from __future__ import annotations

import pytest
import torch

import engine
from engine.data import Batch, open_source
from engine.learners import Learner
from engine.methods import method_of

NAMES = ("greedy_digits", "dgl_digits", "predsim_digits", "infopro_digits")


def _learners(name: str, *words: str) -> tuple[list[Learner], Batch]:
    base = ["method.num_segments=3"] if not words else []
    recipe, _ = engine.apply_overrides(engine.load_recipe(name), engine.Plan(), [*base, *words, "data.train_limit=100"])
    source = open_source(recipe.data, recipe.seed)
    method = method_of(recipe)
    names = method.team(recipe, source.facts).names
    made = [method.build_learner(recipe, source.facts, 2, each, torch.device("cpu")) for each in names]
    return made, source.batch(0, 0)


@pytest.mark.parametrize("name", NAMES)
def test_features_are_handed_on_without_a_graph(name: str) -> None:
    learners, batch = _learners(name)
    (features,) = learners[0].forward(batch, {})
    assert not features.requires_grad
    assert features.grad_fn is None


@pytest.mark.parametrize("name", NAMES)
def test_a_later_update_leaves_no_gradient_and_no_change_in_an_earlier_segment(name: str) -> None:
    learners, batch = _learners(name)
    first, second, _ = learners
    (features,) = first.forward(batch, {})
    first.update(None, {})
    before = {key: value.clone() for key, value in first.body.state_dict().items()}
    second.forward(batch, {"features0": features})
    second.update(None, {})
    assert all(parameter.grad is None for parameter in first.body.parameters())
    assert all(value.equal(before[key]) for key, value in first.body.state_dict().items())


@pytest.mark.parametrize("name", NAMES)
def test_a_segment_does_not_depend_on_the_weights_after_it(name: str) -> None:
    trained = []
    for change in (False, True):
        learners, batch = _learners(name)
        if change:
            with torch.no_grad():
                for learner in learners[1:]:
                    for parameter in learner.body.parameters():
                        parameter.mul_(1.5)
        for _ in range(2):
            messages: dict[str, torch.Tensor] = {}
            for index, learner in enumerate(learners):
                given = learner.forward(batch, messages)
                learner.update(None, {})
                messages = {f"features{index}": features for features in given}
        trained.append(learners[0].body.state_dict())
    for key, value in trained[0].items():
        assert value.equal(trained[1][key]), key


def test_initial_weights_do_not_depend_on_the_cut() -> None:
    whole, _ = _learners("infopro_digits", "method.num_segments=1")
    cut, _ = _learners("infopro_digits", "method.num_segments=7")
    together = {key: value for learner in cut for key, value in learner.body.state_dict().items()}
    expected = whole[0].body.state_dict()
    assert together.keys() == expected.keys()
    assert all(value.equal(expected[key]) for key, value in together.items())


def test_running_statistics_after_one_step_are_those_of_the_uncut_network() -> None:
    whole, batch = _learners("infopro_digits", "method.num_segments=1")
    whole[0].forward(batch, {})
    cut, _ = _learners("infopro_digits", "method.num_segments=4")
    messages: dict[str, torch.Tensor] = {}
    for index, learner in enumerate(cut):
        given = learner.forward(batch, messages)
        learner.update(None, {})
        messages = {f"features{index}": features for features in given}
    expected = {key: value for key, value in whole[0].body.state_dict().items() if "running" in key}
    found = {key: v for learner in cut for key, v in learner.body.state_dict().items() if "running" in key}
    assert found.keys() == expected.keys()
    assert all(value.equal(expected[key]) for key, value in found.items())


def test_a_body_that_writes_to_its_input_is_refused() -> None:
    learners, batch = _learners("greedy_digits")
    (features,) = learners[0].forward(batch, {})
    name, block = next(learners[1].body.named_children())
    setattr(learners[1].body, name, torch.nn.Sequential(torch.nn.ReLU(inplace=True), block))
    with pytest.raises(engine.LearnerError, match="segment1.*in place"):
        learners[1].forward(batch, {"features0": features})
