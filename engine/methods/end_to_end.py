"""End-to-end training: one learner owns the whole network, and its only loss is the classifier's."""

from __future__ import annotations

from engine.data import Facts
from engine.methods.chain import Chain
from engine.objectives import Objective
from engine.partition import Segment
from engine.recipes import Recipe


def _no_local_objective(recipe: Recipe, facts: Facts, segment: Segment) -> Objective:
    raise AssertionError("a chain of one segment has no local objective")


METHOD = Chain(_no_local_objective)
