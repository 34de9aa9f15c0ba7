"""What a recipe would need and what it does need: estimates, balanced cuts, and measurements beside other ways."""

from engine.planning.estimate import CutEstimate, TeamEstimate, compare_cuts, estimate_team
from engine.planning.measure import measure
from engine.planning.measure_result import Measurement
from engine.planning.peer_ways import PEERS

__all__ = [
    "PEERS",
    "CutEstimate",
    "Measurement",
    "TeamEstimate",
    "compare_cuts",
    "estimate_team",
    "measure",
]
