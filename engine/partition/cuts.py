"""The segments of a recipe's network: cut by count, by a published table, by name, or where memory or time balances."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import nn

from engine import backbones
from engine.data import Facts
from engine.errors import RecipeError
from engine.partition.balancing import balance
from engine.partition.segment import Segment, SegmentObjective, segment_of
from engine.partition.segment_costs import CostProfile
from engine.recipes import MEASURED, Recipe, Segmented
from engine.tasks import task_of

_known_shapes: dict[str, tuple[tuple[int, ...], ...]] = {}
_found: dict[tuple[SegmentObjective, str], tuple[str, ...]] = {}
# By the process that made the team. An objective is not told: it follows from the recipe.
_told: dict[str, tuple[str, ...]] = {}


@dataclass(frozen=True)
class Findings:
    """What a process has found of networks, for others that would find the same.

    To find it on the meta device torch loads its compiler, which takes a learner seconds and 150 MB.

    Attributes:
        shapes: of the outputs of all blocks, by network.
        cuts: blocks after which to cut, by method and network.
    """

    shapes: dict[str, tuple[tuple[int, ...], ...]]
    cuts: dict[str, tuple[str, ...]]

    @classmethod
    def of_this_process(cls) -> Findings:
        """Return all but what follows from files of the user's own."""
        # Such a file may be another one where this is told.
        cuts = {setting: names for (_, setting), names in _found.items() if ".py:" not in setting}
        return cls(dict(_known_shapes), cuts)

    def remember(self) -> None:
        """Let this process know it, too."""
        _known_shapes.update(self.shapes)
        _told.update(self.cuts)


def segments_of(
    recipe: Recipe, facts: Facts, network: nn.Sequential, objective: SegmentObjective
) -> tuple[Segment, ...]:
    """Return the segments that a recipe cuts a network into; one if its method does not cut.

    Every learner finds the same ones wherever it lives, since they follow from the recipe alone.

    Args:
        recipe: of the network, or of the peer.
        facts: what is known of the data.
        network: the whole backbone.
        objective: of its segments, whose auxiliary networks count where memory or time is balanced.

    Raises:
        RecipeError: there are fewer blocks than segments, or no such published cuts, or the cuts are still to be
            measured.
    """
    method = recipe.method
    if not isinstance(method, Segmented):
        return (whole_network(recipe, facts, network),)
    count, rule = method.num_segments, method.cuts
    if rule == MEASURED and count > 1:
        # Learners that each measured for themselves would not fit together.
        raise RecipeError(
            "cuts=measured: is chosen by times when a training starts, and has not been chosen here: train, compare or "
            "measure this recipe, or name the blocks that `local-learning estimate --profile` prints"
        )
    if rule in ("balanced_memory", "balanced_time") and 1 < count < len(network):
        rule = _balanced(recipe, facts, network, objective)
    ranges = backbones.cut(network, count, rule, recipe.backbone.name, facts.image_shape)
    return tuple(_segment(recipe, facts, network, index, len(ranges), *each) for index, each in enumerate(ranges))


def whole_network(recipe: Recipe, facts: Facts, network: nn.Sequential) -> Segment:
    """Return the only segment of a network that is not cut."""
    return _segment(recipe, facts, network, 0, 1, 0, len(network))


def _segment(
    recipe: Recipe, facts: Facts, network: nn.Sequential, index: int, count: int, start: int, stop: int
) -> Segment:
    segment = segment_of(_feature_shapes(recipe, facts, network, facts.image_shape), index, count, start, stop)
    largest = task_of(recipe, facts).evaluated_shape
    if largest == facts.image_shape:
        return segment
    evaluated = _feature_shapes(recipe, facts, network, largest)[stop - 1]
    return replace(segment, evaluation_features=evaluated)


def _balanced(recipe: Recipe, facts: Facts, network: nn.Sequential, objective: SegmentObjective) -> tuple[str, ...]:
    """Return the K - 1 names of the blocks after which ``balanced_memory`` or ``balanced_time`` cuts a network."""
    method = recipe.method
    rule, count = method.cuts, method.num_segments
    setting = repr((rule, count, method, recipe.backbone, recipe.data.batch_size, recipe.numerics.precision))
    setting += repr((facts.image_shape, recipe.task, [tuple(weight.shape) for weight in network.parameters()]))
    key = (objective, setting)
    found = _told.get(setting) or _found.get(key)
    if found is None:
        profile = CostProfile(recipe, facts, network, count, objective)
        cost = profile.saved if rule == "balanced_memory" else profile.seconds
        points = backbones.cut_points(network)
        found = tuple(points[stop - 1] for stop in balance(cost, profile.units, count))
        _found[key] = found
    return found


def _feature_shapes(
    recipe: Recipe, facts: Facts, network: nn.Sequential, image_shape: tuple[int, int, int]
) -> tuple[tuple[int, ...], ...]:
    """Return the shapes of all blocks' outputs for images of a shape; each backbone is looked at once."""
    task = task_of(recipe, facts)
    key = repr((recipe.backbone, task.outputs, image_shape))
    found = _known_shapes.get(key)
    if found is None:
        found = backbones.feature_shapes(network, image_shape)
    # A file of one's own may change while the process lasts.
    if ":" not in recipe.backbone.name:
        _known_shapes[key] = found
    wanted = task.output_shape_of(found[-1], image_shape)
    if found[-1] != wanted:
        raise RecipeError(
            f"backbone.name={recipe.backbone.name}: the last block gives {found[-1]} for each image, but "
            f"task.kind={recipe.task.kind} needs {wanted}: choose a backbone that is made for this task"
        )
    if task.scored == "features" and not any(isinstance(module, nn.Linear) for module in network.modules()):
        raise RecipeError(
            f"backbone.name={recipe.backbone.name}: has no linear layer, but task.kind={recipe.task.kind} compares the "
            "features that enter the last one: choose a backbone that ends with one"
        )
    return found
