"""Branches of a network, a peer of a cohort or a segment of a chain."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from engine import backbones
from engine.data import Facts
from engine.errors import RecipeError
from engine.methods.tasks import require_classes
from engine.objectives import (
    Branches,
    BranchHead,
    Classification,
    DeepSupervisionSchedule,
    SquaredHinge,
    Term,
    linear_head,
)
from engine.partition import Origin, Segment
from engine.recipes import DHM, DSN, Branched, Recipe, RichBranches, Segmented
from engine.streams import seeded
from engine.tasks import task_of


def branches_of(recipe: Recipe) -> Branched | None:
    """Return the settings of the branches that a recipe's method has; None if it has none."""
    method = recipe.method
    if isinstance(method, Branched):
        return method
    return method.branches if isinstance(method, Segmented) else None


def forks_of(settings: Branched, facts: Facts, network: nn.Sequential) -> dict[str, str]:
    """Return for each branch of a network the block whose output it takes.

    Raises:
        RecipeError: there is no such block, or the network has fewer stages than it takes.
    """
    if isinstance(settings, RichBranches):
        return backbones.forks_of(network, facts.image_shape, settings.num_branches)
    assert isinstance(settings, DSN)
    names = [name for name, _ in network.named_children()]
    if settings.forks is None:
        return {f"after_{names[stop - 1]}": names[stop - 1] for _, stop in _stages(facts, network)[:-1]}
    for fork in settings.forks:
        if fork not in names[:-1]:
            raise RecipeError(
                f"method.forks: there is no block {fork!r} before the classifier. Blocks are {', '.join(names[:-1])}"
            )
    return {f"after_{fork}": fork for fork in names if fork in settings.forks}


def _stages(facts: Facts, network: nn.Sequential) -> tuple[tuple[int, int], ...]:
    return backbones.stages_of(network, facts.image_shape)


def branch_blocks(
    settings: Branched, branch: str, recipe: Recipe, facts: Facts, network: nn.Sequential, origin: Origin
) -> nn.Sequential:
    """Return a branch with its initial weights, which depend on the learner's origin and the branch's name alone."""
    fork = forks_of(settings, facts, network)[branch]
    with seeded(*origin, f"branch {branch}"):
        if isinstance(settings, RichBranches) and settings.shape == "rich":
            plans = backbones.branch_plans(recipe.backbone.name, network, facts.image_shape, settings.num_branches)
            plan = next(plan for plan in plans if plan.name == branch)
            return backbones.build_branch(plan, recipe.backbone.name, network, facts.num_classes, facts.image_shape)
        shapes = dict(zip(network._modules, backbones.feature_shapes(network, facts.image_shape), strict=True))
        there, otherwise = "", "choose method.kind=end_to_end"
        if isinstance(settings, DSN):
            there = "let branches leave (forks of the method) after blocks whose features it takes"
        else:
            otherwise = f"set method.shape=rich, or {otherwise}"
        with backbones.naming_block(fork, network, facts.image_shape, there, otherwise):
            return linear_head(shapes[fork], facts.num_classes)


def classifier_term(recipe: Recipe, facts: Facts) -> Term:
    """Return the label loss of a network's own classifier, which is its task's unless the method has another."""
    settings = recipe.method
    hinge = isinstance(settings, DSN) and settings.loss == "squared_hinge"
    return SquaredHinge() if hinge else task_of(recipe, facts).final_term()


def branch_terms(
    recipe: Recipe, facts: Facts, segment: Segment, network: nn.Sequential, origin: Origin
) -> Mapping[str, Term]:
    """Return the term of the branches that leave the network inside a segment; empty if none does.

    Raises:
        RecipeError: the network cannot have such branches, or no segment of the chain has one.
    """
    settings = branches_of(recipe)
    if settings is None:
        return {}
    if settings.measure_gradients_every and recipe.numerics.compile:
        raise RecipeError(
            "measure_gradients_every looks inside the network, which numerics.compile=true makes one piece: set it to "
            "0, or set numerics.compile=false"
        )
    require_classes(recipe, facts, "method.branches", "leave the branches out")
    names = [name for name, _ in network.named_children()]
    forks = forks_of(settings, facts, network)
    inside = {branch: fork for branch, fork in forks.items() if segment.start <= names.index(fork) < segment.stop}
    weight = settings.weight if isinstance(settings, DHM) else 0.0
    if not inside or settings.label_weight == weight == 0:
        return {}
    heads = [
        BranchHead(branch, fork, branch_blocks(settings, branch, recipe, facts, network, origin))
        for branch, fork in inside.items()
    ]
    own_smoothing = 0.0
    if segment.is_last and settings.measure_gradients_every:
        own = classifier_term(recipe, facts)
        own_smoothing = own.smoothing if isinstance(own, Classification) else 0.0
    if isinstance(settings, DSN):
        term = Branches(
            heads,
            origin=origin,
            label_weight=settings.label_weight,
            label_loss=settings.loss,
            threshold=settings.threshold,
            schedule=DeepSupervisionSchedule(settings.decay, recipe.epochs, settings.stop_at),
            measure_gradients_every=settings.measure_gradients_every,
            own_smoothing=own_smoothing,
        )
    else:
        dynamic = settings if isinstance(settings, DHM) else DHM(weight=0.0)
        term = Branches(
            heads,
            origin=origin,
            label_weight=settings.label_weight,
            weight=weight,
            temperature=dynamic.temperature,
            directions=dynamic.directions,
            keep=dynamic.keep,
            measure_gradients_every=settings.measure_gradients_every,
            own_smoothing=own_smoothing,
        )
    return {term.name: term}
