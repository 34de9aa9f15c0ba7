"""Estimates of what a recipe would need and how fast it could be, before anything is trained."""

from engine.planning.estimate import CutEstimate, compare_cuts, estimate_team
from engine.planning.team_estimate import TeamEstimate

__all__ = ["CutEstimate", "TeamEstimate", "compare_cuts", "estimate_team"]
