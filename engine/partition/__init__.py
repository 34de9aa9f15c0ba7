"""Partitions of a network into consecutive segments: what a segment is, what it costs, and where cuts balance that."""

from __future__ import annotations

from engine.partition.balancing import Cost, balance
from engine.partition.cost_counter import CostCounter, in_precision, layer_macs
from engine.partition.cuts import Findings, segments_of, whole_network
from engine.partition.recomputed_costs import RecomputedCosts
from engine.partition.segment import Origin, Segment, SegmentObjective, segment_of
from engine.partition.segment_costs import Auxiliary, CostProfile, modelled_seconds

__all__ = [
    "Auxiliary",
    "Cost",
    "CostProfile",
    "Findings",
    "CostCounter",
    "Origin",
    "RecomputedCosts",
    "Segment",
    "SegmentObjective",
    "balance",
    "in_precision",
    "layer_macs",
    "modelled_seconds",
    "segment_of",
    "segments_of",
    "whole_network",
]
