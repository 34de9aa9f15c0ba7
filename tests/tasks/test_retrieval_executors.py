"""Do teams that learn to find identities come to the same weights in process, on Ray, and resumed?"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

import engine
from engine.recipes import DHM, DML, InfoPro, Retrieval
from tests.tasks.small_market import market, recipe_for

IN_PROCESS = engine.Plan(executor="process")

RAY_CPUS = 2

TERMS = Retrieval(label_smoothing=0.1, triplet_weight=1.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "task", "changes"),
    [
        (DML(peer_method=InfoPro()), Retrieval(), {}),
        (InfoPro(), TERMS, {"neck": "batch_norm"}),
        (DHM(), TERMS, {"neck": "batch_norm"}),
    ],
    ids=lambda given: getattr(given, "kind", ""),
)
def test_in_process_on_ray_and_resumed_are_equal(
    method: Any, task: Retrieval, changes: dict[str, Any], tmp_path: Path, local_ray: None
) -> None:
    """Two peers of two segments each: every message that retrieval has; and its further terms in chains."""
    recipe = recipe_for(market(tmp_path / "people"), method, task=task)
    recipe = dataclasses.replace(recipe, backbone=dataclasses.replace(recipe.backbone, **changes))
    if task.triplet_weight:
        recipe = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, classes_per_batch=2))
    alone = engine.train(recipe, IN_PROCESS, tmp_path / "process")
    on_ray = engine.train(recipe, engine.Plan(executor="ray"), tmp_path / "ray")
    engine.train(recipe, IN_PROCESS, tmp_path / "resumed", until_step=alone.steps // 2 + 1)
    resumed = engine.train(recipe, IN_PROCESS, tmp_path / "resumed")
    assert alone.weights_sha256 == on_ray.weights_sha256 == resumed.weights_sha256
    assert alone.metrics == on_ray.metrics == resumed.metrics
    assert ("ensemble/test/mean_average_precision" in alone.metrics) is (method.kind == "dml")
