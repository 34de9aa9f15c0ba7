"""On-the-fly native ensemble (ONE, Lan et al., NeurIPS 2018): copies of the last stage teach it as a gated ensemble.

    L = sum_i CE(z_i, y) + CE(z_e, y) + weight w(e) T^2 sum_i KL(softmax(z_e / T) || softmax(z_i / T))

The network itself is the first of the branches, and the only one that is deployed; the others start from weights of
their own. The last stage begins at the last block that lowers the resolution.
"""

from __future__ import annotations

import dataclasses
import itertools

from torch import nn

from engine.backbones import feature_shapes
from engine.data import Facts
from engine.errors import RecipeError
from engine.methods.segments import build_network
from engine.methods.whole_network import Training, WholeNetwork
from engine.objectives import Classification, Objective
from engine.objectives.on_the_fly_ensemble import OnTheFlyEnsemble
from engine.recipes import ONE, Recipe


def _last_stage(recipe: Recipe, facts: Facts, network: nn.Sequential) -> tuple[int, int]:
    """Return the first block of the last stage, and the channels of the features that it takes."""
    shapes = (facts.image_shape, *feature_shapes(network, facts.image_shape))
    starts = [
        block
        for block, (before, after) in enumerate(itertools.pairwise(shapes))
        if block and len(after) == 3 and after[1] < before[1]
    ]
    if not starts:
        raise RecipeError(
            f"method.kind=one copies the last stage, from the last block that lowers the resolution, but no block of "
            f"{recipe.backbone.name} behind the first one does so: choose another backbone, such as resnet20"
        )
    return starts[-1], shapes[starts[-1]][0]


def _objective(recipe: Recipe, facts: Facts, network: nn.Sequential) -> Objective:
    method = recipe.method
    assert isinstance(method, ONE)
    start, channels = _last_stage(recipe, facts, network)
    block = [name for name, _ in network.named_children()][start - 1]
    # Networks of a cohort, so that each branch has initial weights of its own, also where the network's are loaded.
    drawn = dataclasses.replace(recipe, backbone=recipe.backbone.without_weights())
    copies = [build_network(drawn, facts, recipe.seed, peer)[start:] for peer in range(1, method.num_branches)]
    ensemble = OnTheFlyEnsemble(
        block,
        channels,
        copies,
        weight=method.weight,
        temperature=method.temperature,
        ramp_epochs=method.ramp_epochs,
    )
    terms = {Classification.name: Classification(), ensemble.name: ensemble}
    return Objective(terms, dict.fromkeys(terms, 1.0))


def _teaching(training: Training) -> None:
    return None


METHOD = WholeNetwork(_objective, _teaching)
