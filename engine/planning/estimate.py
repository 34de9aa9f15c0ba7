"""What would a training need and how fast could it be, for each number of segments, before anything is trained?"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
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
from engine.methods.balanced_cuts import CostProfile
from engine.methods.balancing import balance
from engine.methods.costs import Ledger
from engine.methods.segments import build_network
from engine.planning.pipeline import grouped, step_seconds
from engine.planning.sizes import LearnerSize, team_sizes, without_files
from engine.program import BATCH
from engine.recipes import DML, Plan, Recipe, Segmented
from engine.runtimes.replicated import replicate

BALANCES = ("balanced_layers", "balanced_memory", "balanced_time")
_USUAL = (1, 2, 4, 8)


@dataclass(frozen=True)
class TeamEstimate:
    """A team with one number of segments.

    Attributes:
        num_segments: K; None for a method that does not cut.
        cuts: the rule, or the names of the blocks, that it is cut by.
        sizes: of its learners.
        groups: names of the learners on each device.
        seconds: modelled, from one step to the next in a full pipeline.
        messages: bytes of each message of a step but the batch, by name.
        givers: which learner gives each of them.
        batch: bytes of the batch's message.
        window: steps in flight at once.
        at_work: who makes each call of a step, and which others are in the middle of theirs.
    """

    num_segments: int | None
    cuts: str
    sizes: tuple[LearnerSize, ...]
    groups: tuple[tuple[str, ...], ...]
    seconds: float
    messages: dict[str, int]
    givers: dict[str, str]
    batch: int
    window: int
    at_work: tuple[tuple[str, frozenset[str]], ...]

    @property
    def device_bytes(self) -> int:
        """The most that a device needs: its learners as actors, all of them at work."""
        by_name = {size.name: size for size in self.sizes}
        return max(sum(by_name[name].peak for name in group) for group in self.groups)

    @property
    def in_turn_bytes(self) -> int:
        """What one device needs for all learners in turn, in one process.

        Peers see a batch before one of them learns from it, so while one goes backward the others keep their graphs.
        """
        by_name = {size.name: size for size in self.sizes}
        return sum(size.lasting for size in self.sizes) + max(
            by_name[own].transient + sum(by_name[other].body_activations for other in others)
            for own, others in self.at_work
        )

    @property
    def needed(self) -> int:
        """The most that a device needs; all learners on one device take turns."""
        return self.in_turn_bytes if len(self.groups) == 1 else self.device_bytes

    @property
    def total_seconds(self) -> float:
        """Modelled work of a step, on one device."""
        return sum(size.seconds for size in self.sizes)

    @property
    def efficiency(self) -> float:
        """Share of the time that devices are at work, 0 to 1."""
        return self.total_seconds / (len(self.groups) * self.seconds)

    @property
    def parameter_overhead(self) -> float:
        """Parameters of auxiliary networks over those of the bodies."""
        auxiliary = sum(size.auxiliary_parameters for size in self.sizes)
        return auxiliary / max(sum(size.parameters for size in self.sizes) - auxiliary, 1)

    @property
    def mac_overhead(self) -> float:
        """Multiply-accumulates of auxiliary networks over those of the bodies, forward."""
        return sum(size.auxiliary_macs for size in self.sizes) / max(sum(size.macs for size in self.sizes), 1)

    @property
    def in_flight_bytes(self) -> int:
        """Bytes of the messages of all steps in flight."""
        return self.window * (self.batch + sum(self.messages.values()))

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        learners = [
            {**dataclasses.asdict(size), "peak": size.peak, "time_share": size.seconds / self.total_seconds}
            for size in self.sizes
        ]
        return {
            "num_segments": self.num_segments,
            "cuts": self.cuts,
            "learners": learners,
            "devices": [list(group) for group in self.groups],
            "device_bytes": self.device_bytes,
            "in_turn_bytes": self.in_turn_bytes,
            "messages": {BATCH: self.batch, **self.messages},
            "window": self.window,
            "in_flight_bytes": self.in_flight_bytes,
            "parameter_overhead": self.parameter_overhead,
            "mac_overhead": self.mac_overhead,
            "efficiency": self.efficiency,
            "modelled_step_seconds": self.seconds,
        }


@dataclass(frozen=True)
class CutEstimate:
    """What a way to cut means for the largest segment.

    Attributes:
        num_segments: K.
        rule: one of `BALANCES`, or ``measured``.
        blocks: the K - 1 blocks after which it cuts.
        memory: saved activations of the largest segment over those end to end.
        speed_up: bound of a pipeline's speed-up over one device end to end, with a device for each segment.
    """

    num_segments: int
    rule: str
    blocks: tuple[str, ...]
    memory: float
    speed_up: float


Seconds = Callable[[int, int, int], float]


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
    if isinstance(recipe.method, DML):
        return dataclasses.replace(recipe, method=dataclasses.replace(recipe.method, peer_method=changed))
    return dataclasses.replace(recipe, method=changed)


def segmented(recipe: Recipe) -> Segmented | None:
    """Return the settings by which a recipe cuts its networks; None if it does not."""
    found = getattr(recipe.method, "peer_method", recipe.method)
    return found if isinstance(found, Segmented) else None


def _is_published(recipe: Recipe, facts: Facts, num_segments: int, cuts: Any) -> bool:
    try:
        backbones.cut(planned_network(recipe, facts), num_segments, cuts, recipe.backbone.name, facts.image_shape)
    except RecipeError:
        return False
    return True


def planned_network(recipe: Recipe, facts: Facts) -> nn.Sequential:
    """Return the recipe's whole network on the meta device."""
    with Ledger(), torch.device("meta"):
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


def estimate_team(recipe: Recipe, facts: Facts, plan: Plan, devices: int | None = None) -> TeamEstimate:
    """Return what the team of a recipe needs; of replicas, each with its part of the batch.

    Args:
        recipe: what would be trained.
        facts: what is known of the images.
        plan: whose window, replicas and fractions of a GPU count.
        devices: how many there are; one for each learner unless given, or for as many as the plan puts on one.

    Raises:
        RecipeError: `train` would refuse the recipe, too.
    """
    recipe, replicas = without_files(recipe), plan.replicas
    recipe = dataclasses.replace(
        recipe, data=dataclasses.replace(recipe.data, batch_size=-(-recipe.data.batch_size // replicas))
    )
    # Teachers come from files, so they cannot be built on the meta device.
    place = torch.device("cpu" if recipe.method.kind == "distillation" else "meta")
    with Ledger(), place:
        team = method_of(recipe).team(recipe, facts)
    sizes = team_sizes(recipe, facts, team)
    if replicas > 1:
        team = replicate(team, replicas)
        sizes = tuple(
            dataclasses.replace(size, name=replica_name(size.name, replica))
            for size in sizes
            for replica in range(replicas)
        )
    groups = grouped(sizes, devices or _devices(plan, len(sizes)))
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
    )


def _devices(plan: Plan, learners: int) -> int:
    """Return how many devices the plan spreads learners over, if there are as many as it asks for."""
    share = plan.gpus_per_learner or 1.0
    return -(-learners // max(1, int(1 / share + 1e-9)))


def _words(cuts: str | tuple[str, ...]) -> str:
    return cuts if isinstance(cuts, str) else ",".join(cuts)


def compare_cuts(recipe: Recipe, facts: Facts, num_segments: int, measured: Seconds | None = None) -> list[CutEstimate]:
    """Return the three balanced cuts of a recipe's network side by side; of a cohort, its first peer's.

    Args:
        recipe: whose method cuts.
        facts: what is known of the images.
        num_segments: K.
        measured: measured seconds of a segment, as `engine.methods.balancing.Cost`; a fourth cut balances these, and
            they decide all bounds.
    """
    recipe = without_files(recipe)
    inside = segmented(recipe)
    assert inside is not None
    own = dataclasses.replace(recipe, method=dataclasses.replace(inside, num_segments=num_segments))
    network = planned_network(own, facts)
    profile = CostProfile(own, facts, network, num_segments)
    seconds = measured or profile.seconds
    layers = backbones.cut(network, num_segments, "balanced_layers", own.backbone.name, facts.image_shape)
    found = {
        "balanced_layers": tuple(start for start, _ in layers[1:]),
        "balanced_memory": balance(profile.saved, profile.units, num_segments),
        "balanced_time": balance(profile.seconds, profile.units, num_segments),
    }
    if measured is not None:
        found["measured"] = balance(measured, profile.units, num_segments)
    points = backbones.cut_points(network)
    whole = (0, 0, profile.units)
    # The last segment has no auxiliary network: neither has a whole network, whichever segment it stands for.
    estimates = []
    for rule, inner in found.items():
        ranges = list(pairwise((0, *inner, profile.units)))
        memory = max(profile.saved(part, *each) for part, each in enumerate(ranges)) / profile.saved(*whole)
        slowest = max(seconds(part, *each) for part, each in enumerate(ranges))
        blocks = tuple(points[stop - 1] for stop in inner)
        estimates.append(CutEstimate(num_segments, rule, blocks, memory, seconds(*whole) / slowest))
    return estimates
