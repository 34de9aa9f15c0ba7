"""One file per method: from a recipe to learners and their program. Adding a method adds a file."""

from __future__ import annotations

from engine.methods.networks import assemble, networks_sha256, weights_sha256
from engine.methods.registry import method_of, trained_team
from engine.methods.team import LearnerSummary, Method, Network, Team

__all__ = [
    "LearnerSummary",
    "Method",
    "Network",
    "Team",
    "assemble",
    "method_of",
    "networks_sha256",
    "trained_team",
    "weights_sha256",
]
