"""Several recipes under one budget with the same seeds: trained, and set side by side in tables and pictures."""

from engine.comparison.driver import compare
from engine.comparison.result import ComparedRecipe, Comparison
from engine.comparison.side_by_side import ComparisonRow, comparison_table, plot_comparison

__all__ = ["ComparedRecipe", "Comparison", "ComparisonRow", "compare", "comparison_table", "plot_comparison"]
