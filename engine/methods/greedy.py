"""Greedy supervised learning: a pooled linear head ("0c1f") on every segment.

    L_k = CE(linear(pool(h_k)), y)          head = softmax
    L_k = SupCon(linear(pool(h_k)), y)      head = contrastive

The baseline that InfoPro (Wang et al. 2021, Table 2) calls Greedy SL.
"""

from __future__ import annotations

from engine.data import Facts
from engine.methods.chain import Chain
from engine.methods.tasks import local_objective_of_task, require_classes
from engine.objectives import EMBEDDING_SIZE, Contrastive, Objective, linear_head
from engine.partition import Segment
from engine.recipes import Greedy, Recipe


def local_objective(recipe: Recipe, facts: Facts, segment: Segment) -> Objective:
    """Return the objective of a segment that is not the last."""
    method = recipe.method
    assert isinstance(method, Greedy)
    if method.head == "contrastive":
        require_classes(recipe, facts, "method.head=contrastive", "set method.head=softmax")
        head = linear_head(segment.features, EMBEDDING_SIZE)
        return Objective({"contrastive": Contrastive(head)}, {"contrastive": 1.0})
    return local_objective_of_task(recipe, facts, segment, "linear")


METHOD = Chain(local_objective)
