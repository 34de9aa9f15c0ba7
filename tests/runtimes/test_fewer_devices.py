"""Does a team that is started again wait for what it had, and take less only where that changes no number?"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from engine.errors import PlanError
from engine.recipes import Numerics, Plan, Recipe
from engine.runtimes import Reservations
from engine.runtimes.ray.fewer_devices import choose_placement_again
from engine.runtimes.ray.placement import choose_placement

Nodes = list[dict[str, float]]
GPUS: dict[str, float] = {"CPU": 8.0, "GPU": 2.0}
CPUS: dict[str, float] = {"CPU": 2.0}


@pytest.fixture
def recipe(tiny_recipe: Callable[..., Recipe]) -> Recipe:
    return tiny_recipe()


def started(plan: Plan, recipe: Recipe, actors: int, nodes: Nodes, less_will_do: bool = False) -> Reservations:
    """Return the reservations of a session whose actors have started once."""
    found = Reservations(less_will_do=less_will_do)
    found.note(choose_placement(plan, recipe, actors, nodes))
    return found


def test_the_first_start_is_as_the_plan_says(recipe: Recipe) -> None:
    assert choose_placement_again(Plan(), recipe, 3, [CPUS], Reservations(less_will_do=True)) == choose_placement(
        Plan(), recipe, 3, [CPUS]
    )


def test_what_a_lost_node_had_is_waited_for(recipe: Recipe) -> None:
    """Also where the plan leaves it open, and half of it would do."""
    earlier = started(Plan(), recipe, 4, [GPUS, GPUS])
    with pytest.raises(PlanError, match=r"4 actors with 1 CPU and 1 GPU each, .* room for 2 such actors"):
        choose_placement_again(Plan(), recipe, 4, [GPUS], earlier)
    assert choose_placement_again(Plan(), recipe, 4, [GPUS, GPUS, GPUS], earlier) == earlier.first


@pytest.mark.parametrize(
    ("plan", "actors", "before", "after", "cpus", "gpus", "strategy"),
    [
        (Plan(), 4, [GPUS, GPUS], [GPUS], 1.0, 0.5, "PACK"),
        (Plan(), 4, [GPUS, GPUS, GPUS], [GPUS, {"CPU": 8.0, "GPU": 1.0}], 1.0, 0.5, "PACK"),
        (Plan(gpus_per_learner=1, cpus_per_learner=4), 4, [GPUS, GPUS], [GPUS], 1.0, 0.5, "PACK"),
        # Never more than before, though there would be.
        (Plan(gpus_per_learner=0.4, cpus_per_learner=0.5), 8, [GPUS, GPUS], [GPUS], 0.5, 0.25, "PACK"),
        (Plan(placement="STRICT_SPREAD"), 2, [CPUS, CPUS], [CPUS], 1.0, 0.0, "SPREAD"),
        (Plan(placement="STRICT_PACK"), 2, [CPUS, CPUS], [{"CPU": 1.0}, {"CPU": 1.0}], 1.0, 0.0, "PACK"),
        (Plan(cpus_per_learner=2, gpus_per_learner=0), 2, [CPUS, CPUS], [CPUS], 1.0, 0.0, "PACK"),
        (Plan(gpus_per_learner=0), 3, [CPUS, CPUS], [CPUS], 0.6666, 0.0, "PACK"),
    ],
)
def test_learners_are_laid_over_what_is_left(
    plan: Plan,
    actors: int,
    before: Nodes,
    after: Nodes,
    cpus: float,
    gpus: float,
    strategy: str,
    recipe: Recipe,
) -> None:
    earlier = started(plan, recipe, actors, before, less_will_do=True)
    less = choose_placement_again(plan, recipe, actors, after, earlier)
    assert (less.actors, less.cpus, less.gpus, less.strategy) == (actors, cpus, gpus, strategy)
    assert less.window == choose_placement(plan, recipe, actors, before).window
    earlier.note(less)
    assert (
        earlier.describe()
        == f"{less.describe()}, instead of {choose_placement(plan, recipe, actors, before).describe()}"
    )


def test_once_laid_over_less_nothing_is_waited_for(recipe: Recipe) -> None:
    earlier = started(Plan(), recipe, 4, [GPUS, GPUS], less_will_do=True)
    less = choose_placement_again(Plan(), recipe, 4, [GPUS], earlier)
    earlier.note(less)
    earlier.less_will_do = False
    assert choose_placement_again(Plan(), recipe, 4, [GPUS], earlier) == less
    # The node is back after all.
    assert choose_placement_again(Plan(), recipe, 4, [GPUS, GPUS], earlier) == earlier.first


@pytest.mark.parametrize("less_will_do", [False, True])
@pytest.mark.parametrize(
    ("plan", "before", "after"),
    [
        # From GPU to CPU.
        (Plan(), [GPUS, CPUS], [CPUS]),
        # From NCCL to Gloo.
        (Plan(replicas=2), [GPUS, GPUS], [{"CPU": 8.0, "GPU": 1.0}]),
        (Plan(), [CPUS], []),
    ],
)
def test_numbers_never_change(plan: Plan, before: Nodes, after: Nodes, less_will_do: bool, recipe: Recipe) -> None:
    with pytest.raises(PlanError, match="the plan does not fit: it asks for 2 actors with 1 CPU"):
        choose_placement_again(plan, recipe, 2, after, started(plan, recipe, 2, before, less_will_do))


def test_learners_on_cpus_stay_there(recipe: Recipe) -> None:
    """A node with GPUs that has joined meanwhile would give other bits."""
    earlier = started(Plan(), recipe, 2, [CPUS])
    assert choose_placement_again(Plan(), recipe, 2, [GPUS, CPUS], earlier).gpus == 0
    on_cpu = dataclasses.replace(recipe, numerics=Numerics(device="cpu"))
    less: Any = started(Plan(), on_cpu, 2, [CPUS, CPUS], less_will_do=True)
    assert choose_placement_again(Plan(), on_cpu, 2, [{"CPU": 1.0, "GPU": 1.0}], less).bundle == {"CPU": 0.5}
