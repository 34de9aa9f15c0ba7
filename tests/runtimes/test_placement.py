"""Is every plan fitted to what the nodes have, and is an impossible one refused with sizes and a remedy?"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from engine.errors import PlanError
from engine.methods import LearnerSummary, Team
from engine.program import Call, Message, Program
from engine.recipes import DML, InfoPro, Numerics, Plan, Recipe
from engine.runtimes.ray.placement import (
    Placement,
    check_store_bytes,
    choose_placement,
    choose_store,
    most_teams,
    store_bytes_needed,
)

Nodes = list[dict[str, float]]
ONE_SMALL: Nodes = [{"CPU": 2.0}]
TWO: Nodes = [{"CPU": 4.0, "GPU": 1.0}, {"CPU": 2.0, "GPU": 1.0}]


@pytest.fixture
def recipe(tiny_recipe: Callable[..., Recipe]) -> Recipe:
    return tiny_recipe()


@pytest.mark.parametrize(
    ("actors", "nodes", "cpus", "gpus"),
    [
        (1, ONE_SMALL, 1.0, 0.0),
        (2, ONE_SMALL, 1.0, 0.0),
        (3, ONE_SMALL, 0.6666, 0.0),
        (16, ONE_SMALL, 0.125, 0.0),
        (2, TWO, 1.0, 1.0),
        (4, TWO, 1.0, 0.5),
        # Not two thirds: no GPU has room for two of them.
        (3, TWO, 1.0, 0.5),
        (3, [{"CPU": 8.0, "GPU": 2.0}], 1.0, 0.5),
        # Not three quarters: the second node has room for two of them only.
        (8, [{"CPU": 4.0}, {"CPU": 2.0}], 0.6666, 0.0),
        # The node without a GPU counts for nothing.
        (3, [{"CPU": 64.0}, {"CPU": 2.0, "GPU": 1.0}], 0.6666, 0.3333),
        (8, [{"CPU": 64.0, "GPU": 8.0}], 1.0, 1.0),
    ],
)
def test_what_is_left_open_is_shared_equally(
    actors: int, nodes: Nodes, cpus: float, gpus: float, recipe: Recipe
) -> None:
    placement = choose_placement(Plan(), recipe, actors, nodes)
    assert (placement.actors, placement.cpus, placement.gpus) == (actors, cpus, gpus)
    assert placement.cpus * actors <= sum(node["CPU"] for node in nodes)


@pytest.mark.parametrize(
    ("method", "strategy"),
    [
        (DML(), "SPREAD"),
        (DML(peer_method=InfoPro(num_segments=2)), "PACK"),
        (InfoPro(num_segments=2), "PACK"),
    ],
)
def test_neighbours_are_packed_and_peers_are_spread(method: DML | InfoPro, strategy: str, recipe: Recipe) -> None:
    recipe = dataclasses.replace(recipe, method=method)
    assert choose_placement(Plan(), recipe, 2, TWO).strategy == strategy
    assert choose_placement(Plan(placement="STRICT_PACK"), recipe, 2, [{"CPU": 4.0}]).strategy == "STRICT_PACK"


def test_window_is_twice_the_learners_unless_given(recipe: Recipe) -> None:
    assert choose_placement(Plan(), recipe, 3, ONE_SMALL).window == 6
    assert choose_placement(Plan(window=1), recipe, 3, ONE_SMALL).window == 1


def test_gpus_are_used_only_when_wanted(recipe: Recipe) -> None:
    on_cpu = dataclasses.replace(recipe, numerics=Numerics(device="cpu"))
    assert choose_placement(Plan(), on_cpu, 2, TWO).bundle == {"CPU": 1.0}
    assert choose_placement(Plan(gpus_per_learner=0), recipe, 2, TWO).bundle == {"CPU": 1.0}
    assert choose_placement(Plan(gpus_per_learner=0.25), recipe, 8, TWO).bundle == {"CPU": 0.5, "GPU": 0.25}


def test_a_share_suits_the_strategy(recipe: Recipe) -> None:
    nodes = [{"CPU": 4.0}, {"CPU": 0.5}]
    shares: dict[Any, float] = {"PACK": 1.0, "STRICT_PACK": 1.0, "STRICT_SPREAD": 0.5}
    for strategy, cpus in shares.items():
        assert choose_placement(Plan(placement=strategy), recipe, 2, nodes).cpus == cpus


def test_an_actor_always_reserves_something(recipe: Recipe) -> None:
    """Ray refuses an empty bundle."""
    bundle = choose_placement(Plan(cpus_per_learner=0), recipe, 2, ONE_SMALL).bundle
    assert 0 < bundle["CPU"] <= 0.001


@pytest.mark.parametrize(
    ("strategy", "actors", "nodes", "fits"),
    [
        ("PACK", 6, TWO, True),
        ("PACK", 7, TWO, False),
        ("SPREAD", 6, TWO, True),
        ("SPREAD", 7, TWO, False),
        ("STRICT_PACK", 4, TWO, True),
        ("STRICT_PACK", 5, TWO, False),
        ("STRICT_SPREAD", 2, TWO, True),
        ("STRICT_SPREAD", 3, TWO, False),
        ("STRICT_SPREAD", 2, ONE_SMALL, False),
        ("PACK", 1, [], False),
        ("PACK", 2, [{"CPU": 1.9}], False),
    ],
)
def test_strategies(strategy: Any, actors: int, nodes: Nodes, fits: bool, recipe: Recipe) -> None:
    plan = Plan(placement=strategy, cpus_per_learner=1, gpus_per_learner=0)
    if fits:
        assert choose_placement(plan, recipe, actors, nodes).strategy == strategy
    else:
        with pytest.raises(PlanError, match="the plan does not fit"):
            choose_placement(plan, recipe, actors, nodes)


def test_a_part_of_a_gpu_is_of_one_gpu(recipe: Recipe) -> None:
    node = {"CPU": 8.0, "GPU": 2.0}
    assert choose_placement(Plan(gpus_per_learner=0.6), recipe, 2, [node]).gpus == 0.6
    with pytest.raises(PlanError, match="room for 2 such actors"):
        choose_placement(Plan(gpus_per_learner=0.6), recipe, 3, [node])


def test_bundles_are_fitted_node_by_node(recipe: Recipe) -> None:
    """Three CPUs are there in all, but no node has room for an actor with two of them twice."""
    plan = Plan(cpus_per_learner=2, gpus_per_learner=0)
    assert choose_placement(plan, recipe, 2, [{"CPU": 2.0}, {"CPU": 2.0}]).cpus == 2
    with pytest.raises(PlanError, match="room for 1 such actors"):
        choose_placement(plan, recipe, 2, [{"CPU": 2.0}, {"CPU": 1.0}, {"CPU": 1.0}])


def test_fractions_are_not_lost_to_rounding(recipe: Recipe) -> None:
    for share in (0.1, 0.2, 0.3, 1 / 3):
        actors = int(1 / share)
        plan = Plan(cpus_per_learner=int(share * 10_000) / 10_000)
        assert choose_placement(plan, recipe, actors, [{"CPU": 1.0}]).actors == actors


@pytest.mark.parametrize(
    ("plan", "nodes", "words"),
    [
        (
            Plan(cpus_per_learner=8),
            ONE_SMALL,
            [
                "3 actors with 8 CPU each",
                "room for 0 such actors",
                "node 1: 2 CPU, 0 GPU",
                "lower plan.cpus_per_learner",
            ],
        ),
        (Plan(gpus_per_learner=1), ONE_SMALL, ["and 1 GPU each", "set plan.gpus_per_learner=0"]),
        (Plan(gpus_per_learner=1), TWO, ["node 1: 4 CPU, 1 GPU; node 2: 2 CPU, 1 GPU", "fractions are allowed"]),
        (Plan(placement="STRICT_SPREAD"), TWO, ["STRICT_SPREAD", "set plan.placement=SPREAD", "add nodes"]),
        (Plan(placement="STRICT_PACK", cpus_per_learner=2, gpus_per_learner=0), TWO, ["set plan.placement=PACK"]),
        (Plan(), [], ["no node is alive"]),
    ],
)
def test_the_message_has_sizes_and_a_remedy(plan: Plan, nodes: Nodes, words: list[str], recipe: Recipe) -> None:
    with pytest.raises(PlanError) as caught:
        choose_placement(plan, recipe, 3, nodes)
    for word in words:
        assert word in str(caught.value)


def _program(name: str, messages: dict[str, int]) -> Program:
    calls = tuple(Call("source", "next", (), (message,)) for message in messages)
    return Program(calls, {each: Message(each, (((size,), "uint8"),)) for each, size in messages.items()}, name)


def test_store_holds_the_window_and_a_checkpoint() -> None:
    larger, smaller = _program("larger", {"batch": 100, "features": 900}), _program("smaller", {"batch": 300})
    learners = (LearnerSummary("a", ("stem",), 40, 2), LearnerSummary("b", ("classifier",), 8, 0))
    # Each parameter is saved with two slots of its optimizer, and once more as the copy that is written.
    states = (40 + 2 + 8) * 16
    assert store_bytes_needed(Team(learners, (larger,), smaller, {}), Plan(window=4)) == 1000 * 5 + states
    assert store_bytes_needed(Team(learners, (smaller, smaller), larger, {}), Plan()) == 1000 * 5 + states


def test_store_of_a_private_ray() -> None:
    mebibyte = 2**20
    assert choose_store(Plan(), 1000, 10**12, "object_store").bytes >= 128 * mebibyte
    assert choose_store(Plan(), 10**9, 10**12, "object_store").bytes > 10**9
    given = Plan(object_store_bytes=100 * mebibyte)
    assert choose_store(given, 10 * mebibyte, 10**12, "object_store").bytes == 100 * mebibyte
    with pytest.raises(
        PlanError, match=r"object_store_bytes is 104,857,600, .* need 209,715,200 bytes; raise it, or lower"
    ):
        choose_store(given, 200 * mebibyte, 10**12, "object_store")
    with pytest.raises(PlanError, match=r"shared memory has 64,000,000 free; set plan.transport=direct"):
        choose_store(Plan(), 1000, 64_000_000, "object_store")


def test_store_of_a_cluster() -> None:
    check_store_bytes(1000, 1000)
    with pytest.raises(PlanError, match=r"need 1,001 bytes of object store, but the smallest node has 1,000; lower"):
        check_store_bytes(1001, 1000)


@pytest.mark.parametrize(
    ("strategy", "nodes", "expected"),
    [
        ("PACK", [{"CPU": 8.0, "GPU": 2.0}], 1),
        ("PACK", [{"CPU": 8.0, "GPU": 1.0}] * 4, 2),
        ("STRICT_PACK", [{"CPU": 8.0, "GPU": 2.0}, {"CPU": 8.0, "GPU": 1.0}], 1),
        ("STRICT_PACK", [{"CPU": 8.0, "GPU": 1.0}] * 4, 0),
        ("STRICT_SPREAD", [{"CPU": 8.0, "GPU": 4.0}, {"CPU": 8.0, "GPU": 1.0}, {"CPU": 8.0, "GPU": 1.0}], 2),
        ("STRICT_SPREAD", [{"CPU": 8.0, "GPU": 4.0}] * 2, 0),
        ("SPREAD", [], 0),
    ],
)
def test_teams_that_fit_at_the_same_time(strategy: str, nodes: list[dict[str, float]], expected: int) -> None:
    # Three halves of a GPU: a node with two GPUs has room for four, and so for one team.
    assert most_teams(Placement(actors=3, cpus=0.5, gpus=0.5, strategy=strategy, window=1), nodes) == expected
