"""Is what a team reserves waited for as long as it can come, and no longer?"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from engine.errors import PlanError
from engine.recipes import Plan, Recipe
from engine.runtimes.ray import bundles
from engine.runtimes.ray.placement import Placement, choose_placement

PLACEMENT = Placement(2, 1.0, 0.0, "PACK", 4)
BOTH, ONE = [{"CPU": 1.0}, {"CPU": 1.0}], [{"CPU": 1.0}]


class Group:
    """A placement group that is ready after so many waits, each of which takes the time that it may."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, waits: int) -> None:
        self.waits, self.now = waits, 0.0
        monkeypatch.setattr("time.monotonic", lambda: self.now)

    def wait(self, seconds: float) -> bool:
        self.now += seconds
        self.waits -= 1
        return self.waits < 0


def nodes_are(monkeypatch: pytest.MonkeyPatch, *views: Any) -> None:
    left = list(views)
    monkeypatch.setattr(bundles, "node_resources", lambda: left.pop(0) if len(left) > 1 else left[0])


def test_it_is_waited_for_while_others_use_it(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes_are(monkeypatch, BOTH)
    group = Group(monkeypatch, waits=5)
    bundles.wait_for_group(group, PLACEMENT, 10.0)
    assert group.now == 6.0


def test_others_use_it_for_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes_are(monkeypatch, BOTH)
    group = Group(monkeypatch, waits=50)
    with pytest.raises(PlanError, match=r"did not free 2 actors with 1 CPU each, .*=9\.5: others are using it"):
        bundles.wait_for_group(group, PLACEMENT, 9.5)
    assert group.now == 9.5


def test_a_node_that_is_gone_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes_are(monkeypatch, BOTH, BOTH, ONE)
    group = Group(monkeypatch, waits=50)
    with pytest.raises(PlanError, match="a node was lost while 2 actors with 1 CPU each"):
        bundles.wait_for_group(group, PLACEMENT, 100.0)
    assert group.now == 3.0


@pytest.mark.parametrize(
    ("plan", "before", "joined"),
    [
        (Plan(), {"CPU": 8.0, "GPU": 1.0}, {"CPU": 8.0, "GPU": 1.0}),
        (Plan(), {"CPU": 2.0}, {"CPU": 8.0, "GPU": 4.0}),
        (Plan(cpus_per_learner=0), {"CPU": 2.0, "GPU": 1.0}, {"CPU": 8.0, "GPU": 4.0}),
        (Plan(cpus_per_learner=0), {"CPU": 2.0}, {"CPU": 8.0, "GPU": 4.0}),
        (Plan(cpus_per_learner=0.5, gpus_per_learner=0.25), {"CPU": 2.0, "GPU": 1.0}, {"CPU": 8.0, "GPU": 4.0}),
    ],
)
def test_a_node_that_joins_changes_nothing_of_what_was_reserved(
    plan: Plan, before: Any, joined: Any, tiny_recipe: Callable[..., Recipe]
) -> None:
    recipe = tiny_recipe()
    reserved = choose_placement(plan, recipe, 3, [before])
    group = SimpleNamespace(bundle_specs=[{"node:10.0.0.1": 0.001}, *[reserved.bundle] * 3])
    now = choose_placement(bundles.plan_as_reserved(plan, group), recipe, 3, [before, joined])
    assert now.bundle == reserved.bundle
