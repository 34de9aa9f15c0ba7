"""Estimates of what a training would need and how fast it could be, for each number of segments."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from engine import backbones
from engine.data import Facts
from engine.errors import PlanError, RecipeError
from engine.learners import replica_name
from engine.methods import method_of
from engine.methods.chain import Chain
from engine.methods.registry import chain_of
from engine.methods.segments import build_network
from engine.partition import CostCounter, CostProfile, RecomputedCosts, balance
from engine.planning.pipeline import grouped, step_seconds
from engine.planning.sizes import team_sizes
from engine.planning.team_estimate import TeamEstimate
from engine.program import BATCH
from engine.recipes import MEASURED, Plan, Recipe, segmented, with_modelled_cuts, without_files
from engine.recipes.arguments import check_plan, check_recipe
from engine.runtimes.replicated import replicate
from engine.timing import MeasuredCut

BALANCES = ("balanced_layers", "balanced_memory", "balanced_time")
RECOMPUTED = "balanced_recomputed"
"""Balances memory where blocks are run again; ``balanced_memory`` cuts alike with and without, so it does not."""

_USUAL = (1, 2, 4, 8)


@dataclass(frozen=True)
class CutEstimate:
    """What a way to cut means for the largest segment.

    Attributes:
        num_segments: K.
        rule: one of `BALANCES`, ``measured``, or `RECOMPUTED`.
        blocks: the K - 1 blocks after which it cuts.
        memory: saved activations of the largest segment over those end to end, of which nothing is run again.
        speed_up: bound of a pipeline's speed-up over one device end to end, with a device for each segment.
        obstacle: why a local loss cannot stand behind one of these blocks, and memory is infinite; "" if all can.
    """

    num_segments: int
    rule: str
    blocks: tuple[str, ...]
    memory: float
    speed_up: float
    obstacle: str = ""


def with_segments(recipe: Recipe, num_segments: int, facts: Facts) -> Recipe:
    """Return a recipe with another K; cuts that do not exist for it become those that resemble them most.

    Raises:
        PlanError: the method does not cut, or the backbone has fewer blocks.
    """
    inside = segmented(recipe)
    if inside is None:
        raise PlanError(f"--k {num_segments}: method.kind={recipe.method.kind} does not cut the network: leave --k out")
    cuts = inside.cuts
    if num_segments != inside.num_segments:
        published = cuts in ("published", "published_memory") and _is_published(recipe, facts, num_segments, cuts)
        if not isinstance(cuts, str) or (cuts.startswith("published") and not published and num_segments > 1):
            cuts = "balanced_memory" if cuts == "published_memory" else "balanced_layers"
    changed: Any = dataclasses.replace(inside, num_segments=num_segments, cuts=cuts)
    return dataclasses.replace(recipe, method=recipe.method.with_inside(changed))


def _is_published(recipe: Recipe, facts: Facts, num_segments: int, cuts: Any) -> bool:
    try:
        backbones.cut(planned_network(recipe, facts), num_segments, cuts, recipe.backbone.name, facts.image_shape)
    except RecipeError:
        return False
    return True


def obstacle_to_cuts(recipe: Recipe) -> str:
    """Return why the cuts of a recipe's network cannot be compared; "" if they can, or if it is not cut.

    Raises:
        RecipeError: as `engine.methods.method_of`.
    """
    inside = segmented(recipe)
    if inside is None or isinstance(method_of(dataclasses.replace(recipe, method=inside)), Chain):
        return ""
    return (
        f"{recipe.method.inside_field}.kind={inside.kind}: its METHOD makes learners itself, so its segments cannot be "
        "looked at one by one; only those of a Chain can"
    )


def planned_network(recipe: Recipe, facts: Facts) -> nn.Sequential:
    """Return the recipe's whole network on the meta device."""
    with CostCounter(), torch.device("meta"):
        return build_network(recipe, facts, recipe.seed)


def segment_counts(recipe: Recipe, facts: Facts, wanted: Sequence[int] | None) -> Sequence[int | None]:
    """Return the numbers of segments to look at: those wanted, or 1, 2, 4, 8 and the recipe's own.

    Raises:
        PlanError: one of them is impossible.
    """
    inside = segmented(recipe)
    if inside is None:
        if wanted:
            raise PlanError(
                f"--k {','.join(map(str, wanted))}: method.kind={recipe.method.kind} does not cut the network: leave "
                "--k out"
            )
        return [None]
    blocks = len(planned_network(recipe, facts)) - 1
    if wanted:
        impossible = [count for count in wanted if not 1 <= count <= blocks]
        if impossible:
            raise PlanError(f"--k {impossible[0]}: {recipe.backbone.name} has {blocks} blocks: give 1 to {blocks}")
        return [*dict.fromkeys(wanted)]
    return sorted({inside.num_segments, *(count for count in _USUAL if count <= blocks)})


def with_batch(recipe: Recipe, facts: Facts, batch_size: int) -> tuple[Recipe, Facts]:
    """Return recipe and facts as if every batch held so many images: to be sized, not to be trained.

    A replica's part of a batch, and one that is only tried, need not be one that `train` takes: it may hold part of the
    classes of a batch, and leave a single image over at the end of an epoch.

    Args:
        recipe: as it is given back where its batch has this size already.
        facts: of its images.
        batch_size: B.
    """
    if batch_size == recipe.data.batch_size:
        return recipe, facts
    data = dataclasses.replace(recipe.data, batch_size=batch_size, classes_per_batch=None)
    # Images with a label, so that as many have none as before.
    more = -facts.sizes["train"] % batch_size
    sizes = {**facts.sizes, "train": facts.sizes["train"] + more}
    facts = dataclasses.replace(facts, sizes=sizes, labelled_images=facts.labelled_images + more)
    return dataclasses.replace(recipe, data=data), facts


def estimate_team(recipe: Recipe, facts: Facts, plan: Plan, devices: int | None = None) -> TeamEstimate:
    """Return what the team of a recipe needs; of replicas, each with its part of the batch.

    Cuts that are still to be measured are taken to be those of ``balanced_time``.

    Args:
        recipe: what would be trained.
        facts: what is known of the images.
        plan: whose executor, window, replicas and fractions of a GPU count.
        devices: how many there are; one for each learner unless given, or for as many as the plan puts on one. One
            process has one, whatever is given.

    Raises:
        RecipeError: `train` would refuse the recipe, too.
    """
    check_recipe(recipe)
    check_plan(plan)
    recipe, replicas = without_files(with_modelled_cuts(recipe)), plan.replicas
    recipe, facts = with_batch(recipe, facts, -(-recipe.data.batch_size // replicas))
    # What is read from files cannot be built on the meta device.
    place = torch.device("cpu" if recipe.method.reads_weights else "meta")
    with CostCounter(), place:
        team = method_of(recipe).team(recipe, facts)
    sizes = team_sizes(recipe, facts, team)
    if replicas > 1:
        team = replicate(team, replicas)
        sizes = tuple(
            dataclasses.replace(size, name=replica_name(size.name, replica))
            for size in sizes
            for replica in range(replicas)
        )
    in_process = plan.executor == "process"
    groups = grouped(sizes, 1 if in_process else devices or _devices(plan, len(sizes)))
    program = max(team.training, key=lambda each: each.bytes_per_step)
    inside = segmented(recipe)
    return TeamEstimate(
        num_segments=inside.num_segments if inside else None,
        cuts=_words(inside.cuts) if inside else "",
        sizes=sizes,
        groups=groups,
        seconds=step_seconds(team, sizes, groups),
        messages={name: message.bytes for name, message in program.messages.items() if name != BATCH},
        givers={name: call.learner for call in program.calls for name in call.gives if name != BATCH},
        batch=replicas * program.messages[BATCH].bytes,
        window=plan.steps_in_flight(len(sizes)),
        at_work=program.at_work(),
        in_process=in_process,
    )


def _devices(plan: Plan, learners: int) -> int:
    """Return how many devices the plan spreads learners over, if there are as many as it asks for."""
    share = plan.gpus_per_learner or 1.0
    return -(-learners // max(1, int(1 / share + 1e-9)))


def _words(cuts: str | tuple[str, ...]) -> str:
    return cuts if isinstance(cuts, str) else ",".join(cuts)


def compare_cuts(
    recipe: Recipe, facts: Facts, num_segments: int, measured: MeasuredCut | None = None
) -> list[CutEstimate]:
    """Return the three balanced cuts of a recipe's network side by side; of a cohort, its first peer's.

    Where blocks are run again, a fourth balances the memory that is needed then.

    Args:
        recipe: whose method cuts, and has no `obstacle_to_cuts`.
        facts: what is known of the images.
        num_segments: K.
        measured: a fourth cut, whose measured seconds decide all bounds.
    """
    recipe = without_files(recipe)
    inside = segmented(recipe)
    assert inside is not None
    own = dataclasses.replace(recipe, method=dataclasses.replace(inside, num_segments=num_segments))
    network = planned_network(own, facts)
    profile = CostProfile(own, facts, network, num_segments, chain_of(own).objective)
    costs = RecomputedCosts(profile, recipe.numerics.recomputed_blocks)
    # Segments were timed as learners run them, what is run again included.
    seconds = measured.cost if measured is not None else costs.seconds
    layers = backbones.cut(network, num_segments, "balanced_layers", own.backbone.name, facts.image_shape)
    found = {
        "balanced_layers": tuple(start for start, _ in layers[1:]),
        "balanced_memory": balance(profile.saved, profile.units, num_segments),
        "balanced_time": balance(profile.seconds, profile.units, num_segments),
    }
    if measured is not None:
        found[MEASURED] = measured.boundaries
    if recipe.numerics.recomputed_blocks:
        found[RECOMPUTED] = balance(costs.saved, profile.units, num_segments)
    points = backbones.cut_points(network)
    whole = (0, 0, profile.units)
    # The last segment has no auxiliary network: neither has a whole network, whichever segment it stands for.
    estimates = []
    for rule, inner in found.items():
        ranges = list(pairwise((0, *inner, profile.units)))
        memory = max(costs.saved(part, *each) for part, each in enumerate(ranges)) / profile.saved(*whole)
        slowest = max(seconds(part, *each) for part, each in enumerate(ranges))
        blocks = tuple(points[stop - 1] for stop in inner)
        alone = profile.seconds(*whole) if measured is None else measured.whole
        obstacle = next(filter(None, (profile.obstacle(part, stop) for part, (_, stop) in enumerate(ranges))), "")
        estimates.append(CutEstimate(num_segments, rule, blocks, memory, alone / slowest, obstacle))
    return estimates
