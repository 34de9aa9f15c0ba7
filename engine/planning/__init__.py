"""Estimates of what a recipe would need and how fast it could be, before anything is trained."""

from engine.planning.choosing import Choice, fastest_that_fits
from engine.planning.estimate import CutEstimate, compare_cuts, estimate_team
from engine.planning.team_estimate import TeamEstimate

__all__ = ["Choice", "CutEstimate", "TeamEstimate", "compare_cuts", "estimate_team", "fastest_that_fits"]
