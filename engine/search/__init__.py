"""Searches over the fields of a recipe, with Ray Tune."""

from engine.search.console import SweepConsole
from engine.search.definition import Sweep, load_sweep, shipped_sweeps
from engine.search.driver import SweepResult, sweep
from engine.search.lineage import begin_from, replay
from engine.search.trial import Trial

__all__ = [
    "Sweep",
    "SweepConsole",
    "SweepResult",
    "Trial",
    "begin_from",
    "load_sweep",
    "replay",
    "shipped_sweeps",
    "sweep",
]
