"""On-the-fly native ensemble (ONE, Lan et al., NeurIPS 2018): copies of the last stage teach it as a gated ensemble.

    L = sum_i CE(z_i, y) + CE(z_e, y) + weight w(e) T^2 sum_i KL(softmax(z_e / T) || softmax(z_i / T))

The network itself is the first of the branches, and the only one that is deployed; the others start from weights of
their own. The last stage begins at the last block that lowers the resolution.
"""

from __future__ import annotations

import dataclasses

from torch import nn

from engine.backbones import Maps, feature_layout, feature_shapes, naming_block, require_layout
from engine.backbones.stages import lowers
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
    starts = [block for block in range(1, len(network)) if lowers(shapes[block], shapes[block + 1])]
    names, remedy = list(network._modules), "choose another backbone, such as resnet20, or method.kind=end_to_end"
    # Without a last stage, features that lie on no grid may be why.
    for stop in starts[-1:] or range(1, len(network)):
        with naming_block(names[stop - 1], network, facts.image_shape, "", remedy):
            require_layout(shapes[stop], "method.kind=one, which copies the last stage,", Maps)
    if not starts:
        raise RecipeError(
            f"method.kind=one copies the last stage, from the last block that lowers the resolution, but no block of "
            f"{recipe.backbone.name} behind the first one does so: choose another backbone, such as resnet20"
        )
    return starts[-1], feature_layout(shapes[starts[-1]]).channels


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


def _self_distillation(training: Training) -> None:
    return None


METHOD = WholeNetwork(_objective, _self_distillation)
