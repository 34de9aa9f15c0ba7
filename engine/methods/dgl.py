"""Decoupled greedy learning (Belilovsky, Eickenberg, Oyallon 2020): the `mlp-sr` auxiliary network on every segment.

    L_k = CE(head(h_k), y)

The head reduces the resolution first, so it costs little in time and much in parameters.
"""

from __future__ import annotations

from engine.data import Facts
from engine.methods.chain import Chain
from engine.methods.tasks import local_objective_of_task
from engine.objectives import Objective
from engine.partition import Segment
from engine.recipes import Recipe


def local_objective(recipe: Recipe, facts: Facts, segment: Segment) -> Objective:
    """Return the objective of a segment that is not the last."""
    return local_objective_of_task(recipe, facts, segment, "dgl")


METHOD = Chain(local_objective)
