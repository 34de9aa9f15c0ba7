"""Decoupled greedy learning (Belilovsky, Eickenberg, Oyallon 2020): the `mlp-sr` auxiliary network on every segment.

    L_k = CE(head(h_k), y)

The head reduces the resolution first, so it costs little in time and much in parameters.
"""

from __future__ import annotations

from engine.data import Facts
from engine.methods.chain import Chain
from engine.objectives import AuxiliaryClassification, Objective, dgl_head
from engine.partition import Segment
from engine.recipes import Recipe


def local_objective(recipe: Recipe, facts: Facts, segment: Segment) -> Objective:
    """Return the objective of a segment that is not the last."""
    head = dgl_head(segment.features, facts.num_classes)
    return Objective({"cross_entropy": AuxiliaryClassification(head)}, {"cross_entropy": 1.0})


METHOD = Chain(local_objective)
