"""Estimates of what a recipe would need and how fast it could be, before anything is trained."""

from engine.planning.estimate import CutEstimate, TeamEstimate, compare_cuts, estimate_team

__all__ = ["CutEstimate", "TeamEstimate", "compare_cuts", "estimate_team"]
