"""Benchmarks of a recipe beside other ways to train its network: baselines, results, reports."""

from engine.benchmarking.baseline_cases import BASELINES
from engine.benchmarking.benchmark import measure
from engine.benchmarking.output_folder import write_measurement
from engine.benchmarking.result import Measurement

__all__ = ["BASELINES", "Measurement", "measure", "write_measurement"]
