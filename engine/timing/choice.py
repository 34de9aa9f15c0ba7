"""The choice of a recipe's cuts by measured times: ``cuts=measured`` becomes the names of blocks."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

from engine import backbones
from engine.data import Facts
from engine.partition import Cost
from engine.recipes import MEASURED, Plan, Recipe, has_measured_cuts, segmented, with_cuts
from engine.recipes.measured_cuts import refuse_different_networks
from engine.timing.blocks import TimedBlocks
from engine.timing.search import search
from engine.timing.segments import TimedSegments
from engine.timing.subject import Subject, subject_of

_SECONDS_OF_SEGMENTS = 15.0


@dataclass(frozen=True)
class MeasuredCut:
    """The cut that was found by running it.

    Attributes:
        boundaries: the K - 1 units that begin a segment, from 1; a unit is a block, the last with the classifier.
        blocks: names of the K - 1 blocks after which it cuts.
        seconds: of a step of each segment.
        whole: seconds of a step of the whole network on one device, end to end, where nothing is run again: estimated.
        rows: images of the step that was timed.
        cost: seconds of any segment: measured where it was timed, else estimated from its blocks.
    """

    boundaries: tuple[int, ...]
    blocks: tuple[str, ...]
    seconds: tuple[float, ...]
    whole: float
    rows: int
    cost: Cost = field(repr=False, compare=False)

    @property
    def speed_up(self) -> float:
        """Bound of a pipeline's speed-up over one device end to end, with a device for each segment."""
        return self.whole / max(self.seconds)


def measured_cut(
    subject: Subject, blocks: TimedBlocks, num_segments: int, budget: float = _SECONDS_OF_SEGMENTS
) -> MeasuredCut:
    """Return the cut into K segments whose slowest segment takes least time, found by running the likely ones.

    Args:
        subject: whose network is cut.
        blocks: times of its blocks, which were asked for this K.
        num_segments: K, from 2 to the number of blocks.
        budget: seconds after which no further cut is tried.
    """
    estimate = functools.partial(blocks.seconds, num_segments)
    timed = TimedSegments(subject, num_segments, blocks.rows)
    units = subject.units
    boundaries, cost = search(estimate, units, num_segments, timed, budget)
    seconds = tuple(cost(part, *each) for part, each in enumerate(pairwise((0, *boundaries, units))))
    points = backbones.cut_points(subject.network)
    names = tuple(points[stop - 1] for stop in boundaries)
    # The whole network is not run: it may be cut just because it does not fit. Its blocks were timed without being run
    # again, its segments as learners run them.
    whole = (estimate if subject.recipe.numerics.recomputed_blocks else cost)(0, 0, units)
    return MeasuredCut(boundaries, names, seconds, whole, blocks.rows, cost)


def chosen_recipe(recipe: Recipe, facts: Facts, plan: Plan, tell: Callable[[str], None]) -> Recipe:
    """Return a recipe with the names of blocks where it asks for ``cuts=measured``; any other as it is.

    What is timed is one learner at a time in this process, with the recipe's threads, precision and layout, and as many
    images as a learner has in a step. It takes seconds: where the network is large, parts of a batch are timed.

    Args:
        recipe: what is to be trained.
        facts: what is known of the images.
        plan: whose replicas share a batch.
        tell: told that blocks are timed, and what was chosen.

    Raises:
        RecipeError: there is no such cut, or no single one for all networks of the recipe, or the method's segments
            cannot be timed.
        PlanError: the recipe asks for a device that this process does not have.
        LearnerError: a block or segment fails.
    """
    if not has_measured_cuts(recipe):
        return recipe
    inside, name = segmented(recipe), f"{recipe.method.inside_field}.cuts={MEASURED}"
    assert inside is not None
    refuse_different_networks(recipe)
    count = inside.num_segments
    if count == 1:
        return with_cuts(recipe, ())
    first = recipe.method.networks(recipe.backbone)[0]
    subject = subject_of(dataclasses.replace(recipe, backbone=first), facts)
    # Refuses numbers of segments that the network does not have.
    backbones.cut(subject.network, count, "balanced_layers", first.name, facts.image_shape)
    tell(f"{name}: timing the blocks of {first.name} on this machine")
    rows = -(-recipe.data.batch_size // plan.replicas)
    cut = measured_cut(subject, TimedBlocks(subject, [count], rows), count)
    tell(f"{name}: chose {_in_words(cut, subject)}")
    subject.let_go()
    return with_cuts(recipe, cut.blocks)


def _in_words(cut: MeasuredCut, subject: Subject) -> str:
    *most, last = (f"{1000 * seconds:.3g}" for seconds in cut.seconds)
    threads = subject.recipe.numerics.threads
    where = f"{subject.device.type}, {threads} thread{'s' if threads > 1 else ''}"
    return (
        f"{','.join(cut.blocks)} (segments take {', '.join(most)} and {last} ms for {cut.rows} images on this machine, "
        f"{where}; bound on speed {cut.speed_up:.2f}x)"
    )
