"""Backbones: networks as flat sequences of blocks, their cuts, and the names under which weights are exchanged."""

from __future__ import annotations

from engine.backbones.auxiliary_heads import auxiliary_heads
from engine.backbones.branch_scale import scaled_branches
from engine.backbones.branches import BranchPlan, branch_plans, build_branch, forks_of
from engine.backbones.building import build, without_classifier
from engine.backbones.cuts import cut, cut_points
from engine.backbones.layouts import (
    ChannelsLast,
    FeatureLayout,
    LayoutError,
    Maps,
    Tokens,
    Vectors,
    feature_layout,
    require_layout,
)
from engine.backbones.neck import BatchNormNeck
from engine.backbones.plain_names import load_plain_state, plain_state
from engine.backbones.registry import Family, family, names
from engine.backbones.residual import bypassable
from engine.backbones.segmentation import needs_two_images
from engine.backbones.shapes import feature_shapes, naming_block, parameter_counts
from engine.backbones.stages import stages_of
from engine.backbones.subnetworks import SubNetworkSampler, droppable_stages, require_droppable, run_without
from engine.backbones.weights import load_weights

__all__ = [
    "BatchNormNeck",
    "BranchPlan",
    "ChannelsLast",
    "Family",
    "FeatureLayout",
    "LayoutError",
    "Maps",
    "SubNetworkSampler",
    "Tokens",
    "Vectors",
    "auxiliary_heads",
    "branch_plans",
    "build",
    "build_branch",
    "bypassable",
    "cut",
    "cut_points",
    "droppable_stages",
    "family",
    "feature_layout",
    "feature_shapes",
    "forks_of",
    "load_plain_state",
    "load_weights",
    "names",
    "naming_block",
    "needs_two_images",
    "parameter_counts",
    "plain_state",
    "require_droppable",
    "require_layout",
    "run_without",
    "scaled_branches",
    "stages_of",
    "without_classifier",
]
