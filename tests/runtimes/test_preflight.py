"""Is a plan that this machine can never run refused before Ray is even started?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray

import engine
from engine.machine import Room
from engine.recipes import Recipe, Recovery
from engine.runtimes.ray import cluster
from engine.runtimes.ray.placement import Store, choose_store


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


@pytest.fixture
def little_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "shared_memory", lambda: Room(64 * 10**6, 64 * 10**6))


@pytest.mark.usefixtures("little_shared_memory")
def test_too_little_shared_memory(tmp_path: Path, tiny_recipe: Callable[..., Recipe]) -> None:
    plan = engine.Plan(transport="object_store")
    with pytest.raises(engine.PlanError, match=r"64,000,000 free; set plan.transport=direct.*--shm-size=1g"):
        engine.train(tiny_recipe(), plan, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("little_shared_memory")
def test_what_fits_on_direct_links_is_not_refused(
    tmp_path: Path,
    tiny_recipe: Callable[..., Recipe],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Started(Exception):
        pass

    def start(size: int, *, on_disk: bool, hanging_seconds: float) -> None:
        raise Started(size, on_disk, hanging_seconds)

    monkeypatch.setattr(cluster, "start_private_ray", start)
    with pytest.raises(Started) as started:
        engine.train(tiny_recipe(), engine.Plan(), tmp_path / "run")
    assert started.value.args == (75 * 2**20, True, 60.0)
    assert "shared memory has 64,000,000 bytes free" in caplog.text


@pytest.mark.parametrize(
    ("needed", "free", "direct", "through_the_store"),
    [
        (2**20, 10**9, Store(257 * 2**20), Store(769 * 2**20)),
        (60 * 2**20, 100 * 10**6, Store(100 * 10**6), Store(100 * 10**6)),
        (2**20, 75 * 2**20, Store(75 * 2**20), Store(75 * 2**20)),
    ],
)
def test_the_store_is_as_large_as_it_can_be(needed: int, free: int, direct: Store, through_the_store: Store) -> None:
    assert choose_store(engine.Plan(), needed, free, "direct") == direct
    assert choose_store(engine.Plan(), needed, free, "object_store") == through_the_store
    # What is kept for a learner that is lost is of no use to a run that ends at the first failure.
    at_once = engine.Plan(recovery=Recovery(max_failures=0))
    assert choose_store(at_once, needed, free, "object_store") == direct


def test_a_cluster_that_does_not_answer(
    tmp_path: Path, tiny_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody(**_: Any) -> None:
        raise ConnectionError("Could not find any running Ray instance.\nMore")

    monkeypatch.setattr(ray, "init", nobody)
    monkeypatch.setattr(cluster, "check_answers", lambda address: None)
    with pytest.raises(engine.PlanError, match=r"plan.address=auto: no Ray answers there \(Could not find any running"):
        engine.train(tiny_recipe(), engine.Plan(address="auto"), tmp_path / "run")
