"""Do the worst members of a population copy the best, with settings that stay inside what is searched?"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray import tune

from engine.errors import PlanError, RecipeError
from engine.recipes import LWR, Plan, Recipe, recipe_to_dict
from engine.search import Sweep, Trial
from engine.search.copying import steps_between_copies
from engine.search.population import donors, explored

ACCURACY = "validation/accuracy"
SPACE = {
    "method.reconstruction_weight": tune.loguniform(0.1, 10.0),
    "optimizer.momentum": tune.choice([0.5, 0.8, 0.9]),
}


def _sweep(**changes: Any) -> Sweep:
    return Sweep(**{"name": "p", "recipe": "infopro_digits", "space": SPACE, "scheduler": "pbt", **changes})


def _members(values: Any, metric: str = ACCURACY) -> list[Trial]:
    return [Trial(n, {}, "waiting", 2, {} if v is None else {metric: v}) for n, v in enumerate(values)]


@given(
    values=st.lists(st.sampled_from([None, math.nan, 0.1, 0.2, 0.5, 0.7, 0.9]), min_size=1, max_size=17),
    epoch=st.integers(1, 50),
    seed=st.integers(0, 2**40),
)
def test_the_worst_quarter_copies_the_best(values: Any, epoch: int, seed: int) -> None:
    sweep, members = _sweep(seed=seed), _members(values)
    found = donors(sweep, members, epoch)
    assert donors(sweep, members[::-1], epoch) == found, "the order in which members came has no influence"
    score = {t.number: t.metrics.get(ACCURACY, -math.inf) for t in members}
    score = {number: -math.inf if math.isnan(value) else value for number, value in score.items()}
    count = min(math.ceil(len(members) / 4), len(members) // 2)
    assert len(found) <= count and not set(found) & set(found.values())
    for member, donor in found.items():
        assert score[donor] > score[member]
        assert sum(value > score[donor] for value in score.values()) < count
        assert sum(value < score[member] for value in score.values()) < count
    worst, best = sorted(score.values())[:count], sorted(score.values())[-count:] if count else []
    # Nobody of the worst stays behind if every one of the best is better.
    assert len(found) == count or max(worst) >= min(best)


def test_donors_are_drawn_from_all_of_the_best() -> None:
    members = _members([0.9, 0.8, 0.5, 0.5, 0.5, 0.5, 0.2, 0.1])
    chosen = [donors(_sweep(seed=seed), members, 2) for seed in range(60)]
    assert all(sorted(found) == [6, 7] for found in chosen)
    assert {found[7] for found in chosen} == {found[6] for found in chosen} == {0, 1}
    assert {donors(_sweep(), members, epoch)[7] for epoch in range(60)} == {0, 1}


def test_where_small_is_good_the_largest_copies() -> None:
    members = _members([0.1, 3.0, 1.0, 2.0], "validation/loss")
    assert donors(_sweep(metric="validation/loss"), members, 2) == {1: 0}


DOMAINS = {
    "number": (tune.uniform(0.0, 2.0), 1.9),
    "wide": (tune.loguniform(1e-4, 1.0), 1e-4),
    "normal": (tune.randn(0, 1), -3.0),
    "whole": (tune.randint(1, 8), 1),
    "grid": (tune.quniform(0.0, 4.0, 0.5), 4.0),
    "whole grid": (tune.qrandint(4, 16, 4), 8),
}


@pytest.mark.parametrize("name", DOMAINS)
def test_numbers_change_by_a_fifth_or_are_drawn_anew_and_stay_inside(name: str) -> None:
    domain, value = DOMAINS[name]
    found = [explored(_sweep(space={"f": domain}), {"f": value}, member, 2)["f"] for member in range(400)]
    assert {type(each) for each in found} == {type(value)}
    steps = {"whole": 1, "grid": 0.5, "whole grid": 4}
    if name != "normal":
        assert all(domain.lower <= each <= domain.upper for each in found)
    if name == "whole":
        assert max(found) < domain.upper
    if name in steps:
        assert all(each % steps[name] == 0 for each in found)
        down, up = max(value - steps[name], domain.lower), min(value + steps[name], domain.upper)
        if name == "grid":
            down = 3.0  # 0.8 of 4, on the grid
    else:
        down, up = value * 0.8, value * 1.2
    if name == "number":
        up = 2.0
    if name == "wide":
        down = 1e-4
    near = [each for each in found if each in (pytest.approx(down), pytest.approx(up))]
    assert any(each == pytest.approx(down) for each in near) and any(each == pytest.approx(up) for each in near)
    # Three quarters, within five standard deviations; on a grid new draws meet the same values.
    assert len(near) > 400 * 0.75 - 5 * math.sqrt(400 * 0.1875)
    if name in ("number", "wide", "normal"):
        assert len(near) < 400 * 0.75 + 5 * math.sqrt(400 * 0.1875)


def test_listed_values_give_way_to_a_neighbour() -> None:
    sweep = _sweep(space={"f": tune.choice(["a", "b", "c", "d"]), "one": tune.choice([3])})
    for value, neighbours in (("a", {"b"}), ("b", {"a", "c"}), ("d", {"c"})):
        found = [explored(sweep, {"f": value, "one": 3}, member, 2) for member in range(300)]
        assert {each["one"] for each in found} == {3}
        counts = {each: [x["f"] for x in found].count(each) / 300 for each in "abcd"}
        # An eighth of a quarter and less for those that only a new draw reaches.
        assert all((counts[each] > 0.25) == (each in neighbours) for each in "abcd")


def test_what_is_explored_follows_from_seed_member_and_epoch_alone() -> None:
    settings = {"method.reconstruction_weight": 1.0, "optimizer.momentum": 0.8}
    first = explored(_sweep(), settings, 3, 2)
    assert explored(_sweep(num_samples=20), settings, 3, 2) == first and list(first) == list(settings)
    several = [explored(_sweep(seed=s), settings, m, e) for s in range(3) for m in range(3) for e in range(3)]
    assert len({str(each) for each in several}) > 8


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"searcher": "tpe"}, "searcher='tpe'.*set searcher='random'"),
        ({"num_samples": 1}, "num_samples=1.*at least 2 and 1"),
        ({"perturb_every_epochs": 0}, "perturb_every_epochs=0"),
        ({"scheduler": "ptb"}, "scheduler='ptb'.*'pbt'"),
    ],
)
def test_a_definition_that_makes_no_population_is_refused(changes: Any, said: str) -> None:
    with pytest.raises(RecipeError, match=f"sweep p: .*{said}"):
        _sweep(**changes)


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({"epochs": tune.choice([2, 3])}, r"space\['epochs'\] must not change while weights are copied"),
        ({"data.batch_size": tune.choice([12])}, r"space\['data.batch_size'\] must not change"),
        ({"seed": tune.choice([0, 1])}, r"space\['seed'\] must not change"),
        ({"backbone.name": tune.choice(["resnet14"])}, r"space\['backbone.name'\] must not change"),
        ({"numerics.precision": tune.choice(["float32"])}, r"space\['numerics.precision'\] must not change"),
        ({"method.kind": tune.choice(["greedy"])}, r"space\['method.kind'\] must not change"),
        ({"optimizer.kind": tune.choice(["sgd"])}, r"space\['optimizer.kind'\] must not change"),
        (
            {"method.num_segments": tune.choice([3, 2])},
            r"space\['method.num_segments'\] changes which weights.*with 3 .* has shape.*, with 2 it is missing",
        ),
        (
            {"method.num_segments": tune.randint(1, 3)},
            r"space\['method.num_segments'\] changes which weights.*with 1 .*, with 2 it",
        ),
        (
            {"method.num_segments": tune.qrandint(1, 2, 1)},
            r"space\['method.num_segments'\] changes which weights.*with 1 .*, with 2 it",
        ),
        (
            {"method.cuts": tune.choice(["balanced_layers", "layer1_1,layer2_1"])},
            r"space\['method.cuts'\] changes which weights.*'layer1_1,layer2_1' it",
        ),
        (
            {"method.head": tune.choice(["softmax", "contrastive"])},
            r"space\['method.head'\] changes which weights.*'softmax' auxiliary\..* has shape.*'contrastive' it is",
        ),
        (
            {"optimizer.nesterov": tune.choice([False]), "optimizer.momentum": tune.choice([0.9, 0.0])},
            r"space\['optimizer.momentum'\] changes which weights.*momentum_buffer of segment0.*with 0.0 it is missing",
        ),
    ],
)
def test_settings_between_which_weights_cannot_be_copied_are_refused(
    make_sweep: Callable[..., Sweep], space: Any, said: str
) -> None:
    sweep = make_sweep(space=space, scheduler="pbt")
    with pytest.raises(RecipeError, match=f"sweep tiny: {said}"):
        steps_between_copies(sweep, sweep.base(), Plan())


def test_what_an_optimizer_remembers_later_is_part_of_what_is_copied(make_sweep: Callable[..., Sweep]) -> None:
    """Before its first step RMSProp remembers nothing, with momentum or without."""

    def steps(*momenta: float) -> int:
        space = {"optimizer.momentum": tune.choice([*momenta]), "optimizer.alpha": tune.choice([0.9, 0.99])}
        sweep = make_sweep(space=space, scheduler="pbt", fields=("optimizer.kind=rmsprop",))
        return steps_between_copies(sweep, sweep.base(), Plan())

    with pytest.raises(RecipeError, match="with 0.0 momentum_buffer of the optimizer is missing, with 0.9 it is there"):
        steps(0.0, 0.9)
    assert steps(0.5, 0.9) > 0


def test_moments_that_never_come_are_refused(make_sweep: Callable[..., Sweep]) -> None:
    def steps(evaluate_every_epochs: int = 1, **changes: Any) -> int:
        sweep = make_sweep(space=SPACE, scheduler="pbt", **changes)
        return steps_between_copies(sweep, sweep.base(), Plan(evaluate_every_epochs=evaluate_every_epochs))

    assert steps() == 4  # 44 images, 12 in a step
    with pytest.raises(RecipeError, match="perturb_every_epochs=2, but trials have 2 epochs"):
        steps(perturb_every_epochs=2)
    with pytest.raises(PlanError, match=r"plan.evaluate_every_epochs=2: .*every 1 epochs"):
        steps(evaluate_every_epochs=2)


def test_a_method_whose_knowledge_keeps_its_shape_is_accepted(
    make_sweep: Callable[..., Sweep], tiny_recipe: Callable[..., Recipe]
) -> None:
    recipe = tiny_recipe(method=LWR())
    numbers = {name: v for name, v in recipe_to_dict(recipe)["method"].items() if isinstance(v, float)}
    space = {f"method.{name}": tune.choice([value, value / 2]) for name, value in numbers.items()}
    assert space
    sweep = make_sweep(recipe=recipe, space=space, scheduler="pbt")
    assert steps_between_copies(sweep, sweep.base(), Plan()) > 0
