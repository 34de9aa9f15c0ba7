"""Analyses of trained networks: what the papers look at; a new one is a file, and a line in `registry`."""

from engine.analysis.analysis import Analysis, Arrays, Measured, Row
from engine.analysis.opened import OpenedRun, Settings
from engine.analysis.registry import ANALYSES
from engine.analysis.report.writing import REPORT, write_report
from engine.analysis.results import Finding, in_words
from engine.analysis.running import Executor, analyse

__all__ = [
    "ANALYSES",
    "Analysis",
    "Arrays",
    "Executor",
    "Finding",
    "Measured",
    "OpenedRun",
    "REPORT",
    "Row",
    "Settings",
    "analyse",
    "in_words",
    "write_report",
]
