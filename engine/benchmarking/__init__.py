"""Benchmarks of a recipe beside other ways to train its network: baselines, results, reports."""

from engine.benchmarking.baseline_cases import BASELINES
from engine.benchmarking.benchmark import measure
from engine.benchmarking.result import Measurement
from engine.benchmarking.result_files import write_measurement

__all__ = ["BASELINES", "Measurement", "measure", "write_measurement"]
