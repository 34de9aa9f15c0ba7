"""Searches over the fields of a recipe, with Ray Tune."""

from engine.search.console import SweepConsole
from engine.search.definition import Sweep, load_sweep, shipped_sweeps
from engine.search.driver import SweepResult, sweep
from engine.search.trials import Trial

__all__ = ["Sweep", "SweepConsole", "SweepResult", "Trial", "load_sweep", "shipped_sweeps", "sweep"]
