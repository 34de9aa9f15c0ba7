"""Resources that each trial of a search reserves, and how many trials there is room for."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import ray
from ray import tune

from engine.errors import DataError, PlanError, RecipeError
from engine.recipes import Plan, Recipe, recipe_to_dict
from engine.runtimes.ray.cluster import node_resources, private_node
from engine.runtimes.ray.placement import Placement, choose_placement, most_teams, store_bytes_needed
from engine.runtimes.ray.transport import choose_transport
from engine.runtimes.replicated import check_replicable, replicate
from engine.search.definition import Sweep
from engine.search.settings import Settings, examples, recipe_with
from engine.training.preview import preview

# Fields on which neither learners nor messages depend.
_WITHOUT_INFLUENCE = ("name", "seed", "optimizer", "schedule")


class Needs:
    """What trials reserve; refuses a search of which a trial would never fit, before anything starts.

    Attributes:
        epochs: of the longest trial.
        transport: how messages travel in a trial: on direct links, or in one process, little is in the object store.
        store_bytes: of object store that a trial needs at most.

    Raises:
        RecipeError, PlanError, DataError: a trial could not be trained, or ASHA would never stop one.
    """

    def __init__(self, definition: Sweep, base: Recipe, plan: Plan) -> None:
        self._definition, self._base, self._plan = definition, base, plan
        self._learners: dict[str, int] = {}
        self._seen: set[str] = set()
        # Before a private Ray has started, this machine is known without it.
        self._nodes = node_resources() if ray.is_initialized() else [private_node()]
        self._home = _home() if ray.is_initialized() else {}
        # As runtimes choose it before they know where actors are.
        in_process = plan.executor == "process"
        self.transport: Literal["direct", "object_store"] = (
            "direct" if in_process else choose_transport(plan, len(self._nodes), on_gpus=False).kind
        )
        self._placements: set[Placement] = set()
        self.epochs, self.store_bytes = 0, 0
        for settings in examples(definition):
            recipe = recipe_with(base, definition, settings)
            self.epochs = max(self.epochs, recipe.epochs)
            self._look_at(recipe)
            self._placements.add(self._placement(settings))

        if definition.scheduler == "asha" and definition.grace_epochs > self.epochs:
            raise RecipeError(
                f"sweep {definition.name}: grace_epochs={definition.grace_epochs}, but trials have {self.epochs} "
                "epochs, so none would be stopped: lower it, or set scheduler='none'"
            )

    def factory(self, settings: Settings) -> Any:
        """Return the placement group of a trial: a bundle for itself, and one for each of its actors.

        A trial writes its run folder, so it lives on the node of this process; its actors may live on any.

        Raises:
            RecipeError, PlanError, DataError: settings that each can be together make no training, or one that does not
                fit.
        """
        placement = self._placement(settings)
        if self._plan.executor == "process":
            return tune.PlacementGroupFactory([placement.bundle | self._home])
        return tune.PlacementGroupFactory(
            [{"CPU": 0.0, **self._home}, *[placement.bundle] * placement.actors], strategy=placement.strategy
        )

    def _placement(self, settings: Settings) -> Placement:
        recipe = recipe_with(self._base, self._definition, settings)
        if self._plan.executor != "process":
            return self._of_actors(recipe)
        placement = choose_placement(self._plan, recipe, 1, self._own_nodes())
        threads = recipe.numerics.threads
        placement = dataclasses.replace(placement, cpus=float(max(placement.cpus, threads)))
        if most_teams(placement, self._own_nodes()) < 1:
            raise PlanError(
                f"a trial takes {placement.cpus:g} CPUs (numerics.threads={threads}), more than this machine has: "
                "lower numerics.threads, or set plan.executor=ray"
            )
        return placement

    def _of_actors(self, recipe: Recipe) -> Placement:
        actors = self._count(recipe)
        placement = choose_placement(self._plan, recipe, actors, self._nodes)
        strategy, nodes = placement.strategy, self._nodes_of_actors(placement.strategy)
        if len(nodes) == len(self._nodes):
            return placement
        try:
            return choose_placement(self._plan, recipe, actors, nodes)
        except PlanError:
            packed = strategy == "STRICT_PACK"
            there = "that node has" if packed else f"other nodes, which are {len(nodes)}, have"
            raise PlanError(
                f"plan.placement={strategy}: a trial's own process is on the node of this command, and {there} no room "
                f"for {placement.describe()}; set plan.placement={strategy.removeprefix('STRICT_')}, or "
                f"{'give the command on a node that has' if packed else 'add nodes'}"
            ) from None

    def _nodes_of_actors(self, strategy: str) -> Sequence[Mapping[str, float]]:
        """Return the nodes that a placement group with a bundle for the trial itself leaves to its actors."""
        if self._plan.executor == "process" or strategy == "STRICT_PACK":
            return self._own_nodes()
        if strategy == "STRICT_SPREAD" and self._home:
            return [node for node in self._nodes if not all(name in node for name in self._home)]
        return self._nodes

    def _own_nodes(self) -> list[Mapping[str, float]]:
        """Return the nodes on which the trials' own processes may live."""
        return [node for node in self._nodes if all(name in node for name in self._home)]

    def _look_at(self, recipe: Recipe) -> None:
        """Refuse replicas where there can be none, and take up what a trial needs of the object store."""
        if self._plan.executor == "process" and self._plan.replicas == 1:
            return
        values = recipe_to_dict(recipe)
        key = json.dumps({name: each for name, each in values.items() if name not in _WITHOUT_INFLUENCE})
        if key in self._seen:
            return
        self._seen.add(key)
        try:
            found = preview(recipe, resume="never")
        except (RecipeError, DataError):
            # Of settings that go with one another in no training, the trial fails alone.
            return
        check_replicable(recipe, found.facts, self._plan)
        team = replicate(found.team, self._plan.replicas) if self._plan.replicas > 1 else found.team
        self._learners[_method_of(recipe)] = len(team.learners)
        self.store_bytes = max(self.store_bytes, store_bytes_needed(team, self._plan, self.transport))

    def _count(self, recipe: Recipe) -> int:
        key = _method_of(recipe)
        if key not in self._learners:
            self._learners[key] = len(preview(recipe, resume="never").team.learners) * self._plan.replicas
        return self._learners[key]

    def at_once(self, limit: int | None) -> int:
        """Return how many of the smallest trials the cluster has room for."""
        rooms = [most_teams(each, self._nodes_of_actors(each.strategy)) for each in self._placements]
        return min(max(rooms), limit or max(rooms), self._definition.num_samples)

    def describe(self) -> str:
        """Return what trials take, and what there is, in words."""
        sizes = [_sum([placement.bundle] * placement.actors) for placement in self._placements]
        words = " or ".join(dict.fromkeys(map(_words, sorted(sizes, key=lambda size: (size["CPU"], size["GPU"])))))
        return f"a trial takes {words} of {_words(_sum(self._nodes))}"


def _method_of(recipe: Recipe) -> str:
    return json.dumps(recipe_to_dict(recipe)["method"], sort_keys=True)


def _home() -> dict[str, float]:
    """Return what to ask for to be placed on the node of this process, also while it is the only one of its cluster."""
    here = next(node for node in ray.nodes() if node["NodeID"] == ray.get_runtime_context().get_node_id())
    name = next(name for name in here["Resources"] if name.startswith("node:") and "internal_head" not in name)
    return {name: 0.001}


def _words(resources: Mapping[str, float]) -> str:
    return ", ".join(f"{resources[name]:g} {name}" for name in ("CPU", "GPU") if resources.get(name)) or "nothing"


def _sum(nodes: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: sum(node.get(name, 0.0) for node in nodes) for name in ("CPU", "GPU")}
