"""Methods with sub-networks and group knowledge, and the plan that tests train them with."""

from __future__ import annotations

import dataclasses
from typing import Any

import engine
from engine.recipes import GKT, MKF, ST, StochasticDepth

MIXED = MKF(warmup_fraction=0.5, mixing_probability=0.9, measure_fraction_every=2, recalibration_images=20)
METHODS: dict[str, Any] = {
    "stochastic_depth": StochasticDepth(recalibration_images=20),
    "st": ST(num_subnetworks=2),
    "gkt": GKT(),
    "gkt_every_group": GKT(every_group=True, num_groups=2),
    "mkf": MIXED,
    "mkf_exact_second_batch": dataclasses.replace(MIXED, fraction="exact", mixing_partners="second_batch"),
    "mkf_top_k": dataclasses.replace(MIXED, top_k=4),
    "mkf_two_stores": dataclasses.replace(MIXED, store_learners=2),
}
# 16 steps, 4 in an epoch: the last half of them is mixed. Reports come after steps that are no ends of loops either.
IN_PROCESS = engine.Plan(executor="process", report_every_steps=5, checkpoint_every_steps=2, keep_checkpoints=9)
