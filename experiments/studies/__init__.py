"""Studies of what the papers claim: `python -m experiments.evidence NAME` runs one."""

from __future__ import annotations

from experiments.studies.overfitting import COLOUR, DIGITS
from experiments.studies.small_budgets import BRANCHES, CIFAR10, MUTUAL_LEARNING, SUB_NETWORKS
from experiments.studies.variations import DHM_STABILITY, LABELS, SEGMENTS, VARIANTS

_ALL = (
    *(DIGITS, VARIANTS, SEGMENTS, LABELS, DHM_STABILITY, COLOUR),
    *(CIFAR10, MUTUAL_LEARNING, SUB_NETWORKS, BRANCHES),
)
STUDIES = {study.name: study for study in _ALL}
"""All studies, by the names by which they are started."""
