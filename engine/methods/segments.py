"""What is cut: a network, its segments, and what their learners hold and hand on?"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from engine import backbones
from engine.data import Facts
from engine.errors import RecipeError
from engine.methods.balanced_cuts import balanced_cuts
from engine.methods.team import LearnerSummary
from engine.objectives import Objective
from engine.program import Message, batch_message
from engine.recipes import Recipe, Segmented
from engine.tasks import task_of

_known_shapes: dict[str, tuple[tuple[int, ...], ...]] = {}


@dataclass(frozen=True)
class Segment:
    """Consecutive blocks [start, stop) of a backbone.

    Attributes:
        index: j = 0..K-1.
        count: K.
        start: first block.
        stop: block after the last.
        features: shape of its output without the batch axis: (C, H, W), or the task's output shape for the last.
        final_channels: channels of the last features before the classifier.
    """

    index: int
    count: int
    start: int
    stop: int
    features: tuple[int, ...]
    final_channels: int

    @property
    def name(self) -> str:
        """Name of the learner that trains it, and of its random stream."""
        return f"segment{self.index}"

    @property
    def is_last(self) -> bool:
        """Whether it ends with the classifier."""
        return self.index == self.count - 1


def build_network(recipe: Recipe, facts: Facts, seed: int, peer: int = 0) -> nn.Sequential:
    """Return the whole backbone of a recipe with the initial weights of a seed and a place in a cohort."""
    return backbones.build(recipe.backbone, task_of(recipe, facts).outputs, facts.image_shape, seed, peer)


def refuse_auxiliary_heads(recipe: Recipe, trainer: str) -> None:
    """Refuse a backbone's own auxiliary classifiers where they would silently not be trained.

    Args:
        recipe: whose backbone may be to have some.
        trainer: the field by which they are left out, such as ``method.kind=ps_kd``.

    Raises:
        RecipeError: it is to have some.
    """
    if recipe.backbone.auxiliary_heads:
        raise RecipeError(
            f"backbone.auxiliary_heads=true, but {trainer} trains no classifiers that a backbone brings: set "
            "backbone.auxiliary_heads=false, here and in what you compare with, or choose method.kind=end_to_end, dml, "
            "or one that cuts"
        )


def segments_of(recipe: Recipe, facts: Facts, network: nn.Sequential) -> tuple[Segment, ...]:
    """Return the segments that a recipe cuts a network into; one if its method does not cut.

    Raises:
        RecipeError: there are fewer blocks than segments, or no such published cuts.
    """
    method = recipe.method
    count, rule = (method.num_segments, method.cuts) if isinstance(method, Segmented) else (1, "balanced_layers")
    if rule in ("balanced_memory", "balanced_time") and 1 < count < len(network):
        rule = balanced_cuts(recipe, facts, network, count, rule)
    ranges = backbones.cut(network, count, rule, recipe.backbone.name, facts.image_shape)
    shapes, wanted = _feature_shapes(recipe, facts, network), task_of(recipe, facts).output_shape(facts.image_shape)
    if shapes[-1] != wanted:
        raise RecipeError(
            f"backbone.name={recipe.backbone.name}: the last block gives {shapes[-1]} for each image, but "
            f"task.kind={recipe.task.kind} needs {wanted}: choose a backbone that is made for this task"
        )
    return tuple(
        Segment(index, len(ranges), start, stop, shapes[stop - 1], shapes[-2][0])
        for index, (start, stop) in enumerate(ranges)
    )


def _feature_shapes(recipe: Recipe, facts: Facts, network: nn.Sequential) -> tuple[tuple[int, ...], ...]:
    """Return the shapes of all blocks' outputs; each backbone is looked at once."""
    if ":" in recipe.backbone.name:
        # A file of one's own may change while the process lasts.
        return backbones.feature_shapes(network, facts.image_shape)
    key = repr((recipe.backbone, task_of(recipe, facts).outputs, facts.image_shape))
    if key not in _known_shapes:
        _known_shapes[key] = backbones.feature_shapes(network, facts.image_shape)
    return _known_shapes[key]


def summarise(name: str, segment: Segment, network: nn.Sequential, objective: Objective) -> LearnerSummary:
    """Return what the learner of a segment will hold."""
    names = [block for block, _ in network.named_children()]
    body = network[segment.start : segment.stop]
    return LearnerSummary(name, tuple(names[segment.start : segment.stop]), _trained(body), _trained(objective))


def _trained(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def features_message(recipe: Recipe, name: str, segment: Segment, batch_size: int) -> Message:
    """Return the message with the features of a segment."""
    return Message(name, (((batch_size, *segment.features), recipe.numerics.precision),))


def images_message(recipe: Recipe, facts: Facts, batch_size: int) -> Message:
    """Return the message with a batch of images, and the labels that the recipe's task has for them."""
    task = task_of(recipe, facts)
    return batch_message(batch_size, facts.image_shape, task.label_shape(facts.image_shape), task.label_dtype)
