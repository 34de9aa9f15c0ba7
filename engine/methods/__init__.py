"""One file per method: from a recipe to learners and their program. Adding a method adds a file."""

from __future__ import annotations

import importlib

from engine.methods.team import LearnerSummary, Method, Team
from engine.recipes import Recipe


def method_of(recipe: Recipe) -> Method:
    """Return the method that a recipe asks for: ``METHOD`` in the file named like its ``kind``."""
    method: Method = importlib.import_module(f"engine.methods.{recipe.method.kind}").METHOD
    return method


__all__ = ["LearnerSummary", "Method", "Team", "method_of"]
