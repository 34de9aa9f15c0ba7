"""Architecture of side branches that supervise a network from within (DSL, DKS and DHM).

A branch continues the main path from the end of one of its stages to logits of its own, by the same kinds of blocks:
the one near the top repeats the last stage wider, deeper ones repeat all that follows in shorter form.

Sources: Li and Chen 2020 (arXiv 2003.10739) with its released code, Sun et al. 2019 (CVPR).
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from itertools import islice, repeat

import torch
from torch import nn

from engine.backbones.branch_weights import draw_weights
from engine.backbones.continuation import continued
from engine.backbones.shapes import feature_shapes
from engine.backbones.stages import Stages, ends_stage, stages_by_shapes, stages_of
from engine.errors import RecipeError

Counts = tuple[int, ...]

# Blocks of each repeated stage, near the top and deep, by name and number of stages, as in the released code.
_PUBLISHED: dict[tuple[str, int], tuple[Counts, Counts]] = {
    ("resnet32", 3): ((5,), (5, 3)),
    ("resnet110", 3): ((18,), (9, 9)),
    ("resnet1202", 3): ((200,), (100, 100)),
    ("wrn_16_8", 3): ((2,), (2, 1)),
    ("wrn_28_10", 3): ((4,), (4, 2)),
    ("densenet_40_12", 3): ((12,), (12, 6)),
    ("densenet_100_12", 3): ((32,), (16, 16)),
    ("densenet_100_24", 3): ((32,), (16, 16)),
    ("densenet_bc_100_12", 3): ((32,), (16, 16)),
    ("densenet_bc_190_40", 3): ((31,), (16, 16)),
    ("densenet_bc_250_24", 3): ((41,), (22, 22)),
    ("resnet18", 4): ((2,), (1, 2)),
    ("resnet34", 4): ((3,), (3, 2)),
    ("resnet50", 4): ((3,), (3, 2)),
    ("resnet101", 4): ((3,), (12, 2)),
    ("resnet152", 4): ((3,), (18, 2)),
}
_MOST_SHALLOW = 12
_USUAL_WIDENING = 2


@dataclass(frozen=True)
class BranchPlan:
    """What a branch is made of, before any of its weights exist.

    Attributes:
        name: ``near_top``, ``deep``, ``deep3``, ...: how many stages it repeats.
        fork: the block of the main path whose output it reads.
        features: shape of that output without the batch axis.
        factor: by which its blocks are wider than the main path's.
        counts: how many blocks it has of each stage that it repeats, without those that end the stage.
        blocks: the blocks of the main path that it repeats, in order; the last block of a stage may be there often.
    """

    name: str
    fork: str
    features: tuple[int, ...]
    factor: int
    counts: Counts
    blocks: tuple[str, ...]


def forks_of(network: nn.Sequential, image_shape: tuple[int, int, int], count: int) -> dict[str, str]:
    """Return which block's output each branch reads, by the branch's name, from the network's top downwards.

    The first branch forks after the last stage but one, the next after the stage before that, and so on.

    Raises:
        RecipeError: fewer than ``count`` stages have a stage after them, or the network has no stages.
    """
    return _forks(network, stages_of(network, image_shape), count)


def branch_plans(
    backbone_name: str, network: nn.Sequential, image_shape: tuple[int, int, int], count: int
) -> tuple[BranchPlan, ...]:
    """Return the plans of ``count`` branches, from the network's top downwards; nothing is allocated.

    Lengths and widths are those of the released code. By our rule for all other networks, the branch near the top has
    all n blocks of the last stage, twice as wide, or with three times the growth rate in DenseNets. Deeper ones are as
    wide as the main path. They have half the blocks of each stage and two thirds of the last one's, all rounded up; in
    networks of three stages, all of the first repeated stage up to 12 blocks, half of it above, and half of the last.

    Args:
        backbone_name: the recipe's ``backbone.name``.
        network: flat, its last child the classifier; on any device.
        image_shape: (C, H, W) of one image.
        count: of branches, at least 1.

    Raises:
        RecipeError: as `forks_of`.
    """
    in_order = feature_shapes(network, image_shape)
    stages = stages_by_shapes(network, image_shape, in_order)
    names = list(network._modules)
    shapes = dict(zip(names, in_order, strict=True))
    published = _PUBLISHED.get((backbone_name, len(stages)), ())
    plans = []
    for distance, (name, fork) in enumerate(_forks(network, stages, count).items(), start=1):
        repeated = [names[start:stop] for start, stop in stages[-distance:]]
        parts = [_body_and_end(network, stage) for stage in repeated]
        lengths = tuple(len(body) for body, _ in parts)
        counts = published[distance - 1] if distance <= len(published) else _counts(lengths, len(stages))
        blocks = [block for part, count in zip(parts, counts, strict=True) for block in _shortened(*part, count)]
        first = network.get_submodule(repeated[0][0])
        factor = getattr(first, "widening", _USUAL_WIDENING) if distance == 1 else 1
        plans.append(BranchPlan(name, fork, shapes[fork], factor, counts, tuple(blocks)))
    return tuple(plans)


def build_branch(
    plan: BranchPlan,
    backbone_name: str,
    network: nn.Sequential,
    num_classes: int,
    image_shape: tuple[int, int, int],
) -> nn.Sequential:
    """Return a branch, from features ``[B, *plan.features]`` to logits [B, num_classes], with initial weights.

    They are drawn from torch's default generator, from the distributions that the backbone's builder uses. Nothing is
    taken from the network but its structure. Under ``torch.device("meta")`` nothing is allocated.

    Args:
        plan: of `branch_plans`, for the same network.
        backbone_name: the recipe's ``backbone.name``.
        network: on any device, the meta device too.
        num_classes: outputs of the network.
        image_shape: (C, H, W) of one image.

    Returns:
        Float32 parameters on the default device, training mode; flat, named after the blocks that are repeated, the
        last child ``classifier``: the main path's ending, not wider than that one's.

    Raises:
        RecipeError: a block cannot be made again for the features that it gets in the branch.
    """
    features = torch.empty(2, *plan.features, device="meta")
    children: OrderedDict[str, nn.Module] = OrderedDict()
    for place, source in enumerate(plan.blocks):
        again = plan.blocks[:place].count(source)
        name = f"{source}_again{again}" if again else source
        children[name], features = continued(source, network.get_submodule(source), features, plan.factor)
    last = list(network._modules)[-1]
    children["classifier"], features = continued(last, network.get_submodule(last), features, factor=1)
    if tuple(features.shape) != (2, num_classes):
        raise RecipeError(
            f"method.shape=rich: branch {plan.name}, which repeats {', '.join(plan.blocks)} after {plan.fork} for "
            f"images of shape {tuple(image_shape)}, gives {tuple(features.shape[1:])} for each. Expected "
            f"({num_classes},): let the last child pool and flatten what it gets, or set method.shape=linear."
        )
    branch = nn.Sequential(children).to_empty(device=torch.get_default_device())
    draw_weights(branch, backbone_name)
    return branch


def _forks(network: nn.Sequential, stages: Stages, count: int) -> dict[str, str]:
    most = len(stages) - 1
    if count > most:
        raise RecipeError(
            f"method.num_branches={count}: a branch forks after each stage but the last, and this network has "
            f"{len(stages)} stages for images of this size. Expected 1 to {most}."
        )
    names = list(network._modules)
    branches = ["near_top", "deep", *(f"deep{distance}" for distance in range(3, count + 1))][:count]
    return {branch: names[stages[-distance][0] - 1] for distance, branch in enumerate(branches, start=1)}


def _body_and_end(network: nn.Sequential, stage: list[str]) -> tuple[list[str], list[str]]:
    # What pools or flattens at the end of a stage is no block to be left out or to be repeated.
    def is_end(name: str) -> bool:
        block = network.get_submodule(name)
        return ends_stage(block) or next(block.parameters(), None) is None

    length = len(stage)
    while length and is_end(stage[length - 1]):
        length -= 1
    return stage[:length], stage[length:]


def _counts(lengths: Counts, num_stages: int) -> Counts:
    if len(lengths) == 1:
        return lengths
    halves = tuple(-(-length // 2) for length in lengths)
    if num_stages == 3:
        return (lengths[0] if lengths[0] <= _MOST_SHALLOW else halves[0], *halves[1:])
    return (*halves[:-1], -(-2 * lengths[-1] // 3))


def _shortened(body: list[str], end: list[str], count: int) -> list[str]:
    return [*body[:count], *islice(repeat(body[-1]), max(count - len(body), 0)), *end] if body else end
