"""Members of a cohort: their names, and the numbers from which they start."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass

from torch import nn

from engine.data import Facts
from engine.errors import RecipeError
from engine.learners import Output, Role
from engine.methods.registry import chain_of
from engine.methods.segments import build_network
from engine.partition import Segment, segments_of
from engine.recipes import DML, Recipe


@dataclass(frozen=True)
class Member:
    """One peer of a cohort.

    The first peer has the initial weights and the random streams of a network that trains alone with the same seed,
    and so has a peer with a seed of its own. So peers that change places change results.

    Attributes:
        place: p = 0..P-1.
        recipe: as if the peer trained alone: its own backbone and optimizer, and what it does inside as its method.
        own_seed: the peer's seed, where the recipe gives it one.
    """

    place: int
    recipe: Recipe
    own_seed: int | None

    @property
    def name(self) -> str:
        """Name of its network."""
        return f"peer{self.place}"

    @property
    def origin(self) -> tuple[int, int]:
        """Seed and place in the cohort that its initial weights follow from."""
        return (self.recipe.seed, self.place) if self.own_seed is None else (self.own_seed, 0)

    def network(self, facts: Facts) -> nn.Sequential:
        """Return the whole network with its initial weights."""
        return build_network(self.recipe, facts, *self.origin)

    def segments(self, facts: Facts, network: nn.Sequential) -> tuple[Segment, ...]:
        """Return its segments; one if it learns end to end."""
        return segments_of(self.recipe, facts, network, chain_of(self.recipe).objective)

    def learner(self, segment: Segment) -> str:
        """Return the name of the learner of a segment."""
        return self.name if segment.count == 1 else f"{self.name}_{segment.name}"

    def owns(self, learner: str) -> bool:
        """Return whether a learner is one of its own."""
        return learner == self.name or learner.startswith(f"{self.name}_")

    def role(self, segment: Segment, gives: tuple[Output, ...], may_leave: bool) -> Role:
        """Return what sets the learner of a segment apart from the others."""
        seed, place = self.origin
        return Role(self.name, seed, f"peer{place}_{segment.name}" if place else segment.name, gives, may_leave)


def members_of(recipe: Recipe) -> tuple[Member, ...]:
    """Return the peers of a cohort, in order.

    Raises:
        RecipeError: two peers would never differ.
    """
    method = recipe.method
    assert isinstance(method, DML)
    members = tuple(
        Member(
            place,
            dataclasses.replace(
                recipe,
                method=method.peer_method,
                backbone=peer.backbone or recipe.backbone,
                optimizer=peer.optimizer or recipe.optimizer,
            ),
            peer.seed,
        )
        for place, peer in enumerate(method.peers)
    )
    for one, other in itertools.combinations(members, 2):
        if one.origin == other.origin and one.recipe == other.recipe:
            raise RecipeError(
                f"method.peers: peer {one.place} and peer {other.place} have the same backbone, optimizer and seed "
                f"({one.origin[0]}), so they would start from the same weights, see the same images and never differ, "
                "and peers learn from one another only where they disagree: give one of them another seed in "
                "method.peers, or leave the seeds out"
            )
    return members
