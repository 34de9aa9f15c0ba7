"""Is a plan that this machine can never run refused before Ray is even started?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray

import engine
from engine.recipes import Recipe
from engine.runtimes.ray import cluster


@pytest.fixture(autouse=True)
def _no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refuse)


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        ({"cpus_per_learner": 4096}, r"3 actors with 4096 CPU each.*lower plan.cpus_per_learner"),
        ({"gpus_per_learner": 64}, r"64 GPU each"),
        ({"placement": "STRICT_SPREAD"}, r"set plan.placement=SPREAD"),
        (
            {"object_store_bytes": 80 * 2**20, "window": 256, "transport": "object_store"},
            r"object_store_bytes is 83,886,080, but .* need [\d,]+ bytes",
        ),
    ],
)
def test_impossible_plans(
    plan: dict[str, Any],
    words: str,
    tmp_path: Path,
    tiny_recipe: Callable[..., Recipe],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Features of 128 x 16 x 32 x 32 numbers: the window does not fit into the smallest store.
    data = {"name": "synthetic", "num_classes": 4, "synthetic_images": 64, "image_size": 32, "batch_size": 64}
    recipe = tiny_recipe(data={**data, "train_limit": None, "test_limit": None})
    with pytest.raises(engine.PlanError, match=words):
        engine.train(recipe, engine.Plan(**plan), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_too_little_shared_memory(
    tmp_path: Path, tiny_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Disk:
        free = 64 * 10**6

    monkeypatch.setattr(cluster.psutil, "disk_usage", lambda _: Disk)
    monkeypatch.setattr(cluster.os.path, "isdir", lambda _: True)
    with pytest.raises(engine.PlanError, match=r"shared memory has 64,000,000 free"):
        engine.train(tiny_recipe(), engine.Plan(), tmp_path / "run")


def test_a_cluster_that_does_not_answer(
    tmp_path: Path, tiny_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody(**_: Any) -> None:
        raise ConnectionError("Could not find any running Ray instance.\nMore")

    monkeypatch.setattr(ray, "init", nobody)
    with pytest.raises(engine.PlanError, match=r"plan.address=auto: no Ray answers there \(Could not find any running"):
        engine.train(tiny_recipe(), engine.Plan(address="auto"), tmp_path / "run")
