"""What does each trial of a search reserve, does it fit, and how many are there room for at once?"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray import tune

from engine.errors import PlanError
from engine.recipes import Plan, Recipe, recipe_to_dict
from engine.runtimes.ray.cluster import node_resources, private_node
from engine.runtimes.ray.placement import choose_placement
from engine.search.definition import Sweep
from engine.search.settings import Settings, examples, recipe_with
from engine.training.preview import preview


class Needs:
    """What trials reserve; refuses a search of which a trial would never fit, before anything starts."""

    def __init__(self, definition: Sweep, base: Recipe, plan: Plan) -> None:
        self._definition, self._base, self._plan = definition, base, plan
        self._learners: dict[str, int] = {}
        nodes = [private_node()] if plan.address is None and not ray.is_initialized() else None
        self._sizes: set[tuple[tuple[str, float], ...]] = set()
        self._nodes = nodes
        for settings in examples(definition):
            self._sizes.add(tuple(sorted(self._total(self.factory(settings)).items())))

    def factory(self, settings: Settings) -> Any:
        """Return the placement group of a trial: a bundle for itself, and one for each of its actors."""
        recipe = recipe_with(self._base, self._definition, settings)
        if self._plan.executor == "process":
            placement = choose_placement(self._plan, recipe, 1, self._known_nodes())
            bundle = {**placement.bundle, "CPU": float(max(placement.bundle.get("CPU", 0.0), recipe.numerics.threads))}
            if _room([bundle], self._known_nodes()) < 1:
                raise PlanError(
                    f"a trial takes {bundle['CPU']:g} CPUs (numerics.threads={recipe.numerics.threads}), more than any "
                    "node has: lower numerics.threads, or add nodes"
                )
            return tune.PlacementGroupFactory([bundle])
        placement = choose_placement(self._plan, recipe, self._count(recipe), self._known_nodes())
        return tune.PlacementGroupFactory(
            [{"CPU": 0.0}, *[placement.bundle] * placement.actors], strategy=placement.strategy
        )

    def _known_nodes(self) -> Sequence[Mapping[str, float]]:
        return self._nodes if self._nodes is not None else node_resources()

    def _count(self, recipe: Recipe) -> int:
        key = json.dumps(recipe_to_dict(dataclasses.replace(recipe, name="x"))["method"], sort_keys=True)
        if key not in self._learners:
            self._learners[key] = len(preview(recipe, resume="never").team.learners)
        return self._learners[key]

    def _total(self, factory: Any) -> dict[str, float]:
        return {name: amount for name, amount in factory.required_resources.items() if amount}

    def at_once(self, limit: int | None) -> int:
        """Return how many of the smallest trials the cluster has room for."""
        rooms = [_room([dict(size)], [_sum(node_resources())]) for size in self._sizes]
        return min(max(rooms), limit or max(rooms), self._definition.num_samples)

    def describe(self) -> str:
        """Return what trials take, and what there is, in words."""
        sizes = sorted(self._sizes)
        words = " or ".join(_words(dict(size)) for size in sizes)
        return f"a trial takes {words} of {_words(_sum(node_resources()))}"


def _words(resources: Mapping[str, float]) -> str:
    return ", ".join(f"{resources[name]:g} {name}" for name in ("CPU", "GPU") if resources.get(name)) or "nothing"


def _sum(nodes: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: sum(node.get(name, 0.0) for node in nodes) for name in ("CPU", "GPU")}


def _room(bundles: Sequence[Mapping[str, float]], nodes: Sequence[Mapping[str, float]]) -> int:
    wanted = _sum(bundles)
    rooms = [
        min([int(node.get(name, 0.0) / amount + 1e-9) for name, amount in wanted.items() if amount], default=1)
        for node in nodes
    ]
    return max(rooms, default=0)
