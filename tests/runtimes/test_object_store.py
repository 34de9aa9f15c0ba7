"""Do teams of Ray actors compute what one process computes, and leave Ray as they found it?"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from ray._private.state import actors
from ray.util import placement_group_table

import engine
from engine.recipes import DGL, EndToEnd, Greedy, Recipe
from engine.runtimes.ray import cluster
from engine.tracking import read_metrics

pytestmark = pytest.mark.usefixtures("local_ray")


TinyRecipe = Callable[..., Recipe]
RAY_CPUS = 3
SETTLED_WITHIN_SECONDS = 30


def _assert_nothing_is_reserved() -> None:
    """Ray takes a moment to count back what was given back."""
    deadline = time.monotonic() + SETTLED_WITHIN_SECONDS
    while ray.available_resources().get("CPU", 0.0) < RAY_CPUS:
        assert time.monotonic() < deadline, ray.available_resources()
        time.sleep(0.1)
    assert all(group["state"] == "REMOVED" for group in placement_group_table().values())
    assert all(actor["State"] == "DEAD" for actor in actors().values())


def _scores(folder: Path) -> list[tuple[Any, ...]]:
    return [
        (record.step, record.learner, record.split, record.name, record.value)
        for record in read_metrics(folder)
        if record.name.startswith("loss") or record.name == "accuracy" or record.split != "train"
    ]


@pytest.fixture
def assert_equal(tmp_path: Path) -> Callable[[Recipe, int], None]:
    def check(recipe: Recipe, window: int) -> None:
        results = [
            engine.train(
                recipe, engine.Plan(executor=executor, window=window, report_every_steps=3), tmp_path / executor
            )
            for executor in ("process", "ray")
        ]
        assert results[0].weights_sha256 == results[1].weights_sha256
        assert results[0].metrics == results[1].metrics
        assert _scores(tmp_path / "process") == _scores(tmp_path / "ray")

    return check


def test_a_window_larger_than_the_run(tiny_recipe: TinyRecipe, assert_equal: Callable[[Recipe, int], None]) -> None:
    """The last batches of the epoch (8 of 12 images) and of the evaluation (4 of 16) are smaller than the others."""
    assert_equal(tiny_recipe(method=Greedy(num_segments=2)), 256)
    _assert_nothing_is_reserved()


@pytest.mark.slow
def test_teams_one_after_another(tiny_recipe: TinyRecipe, tmp_path: Path) -> None:
    """Each in the same Ray, where the one before gave back what it had."""
    for number, method in enumerate([DGL(num_segments=3), EndToEnd(), DGL(num_segments=3)]):
        results = [
            engine.train(
                tiny_recipe(method=method, epochs=1),
                engine.Plan(executor=executor, window=1),
                tmp_path / f"{number}{executor}",
            )
            for executor in ("process", "ray")
        ]
        assert results[0].weights_sha256 == results[1].weights_sha256
        assert results[0].metrics == results[1].metrics
    _assert_nothing_is_reserved()


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        ({"cpus_per_learner": 64}, r"3 actors with 64 CPU each.*node 1: 3 CPU"),
        ({"cpus_per_learner": 1.01}, r"room for 2 such actors"),
        ({"gpus_per_learner": 0.5}, r"set plan.gpus_per_learner=0"),
        ({"placement": "STRICT_SPREAD"}, r"set plan.placement=SPREAD"),
    ],
)
def test_impossible_plans_reserve_nothing(
    plan: dict[str, Any], words: str, tiny_recipe: TinyRecipe, tmp_path: Path
) -> None:
    before = len(actors()), len(placement_group_table())
    with pytest.raises(engine.PlanError, match=words):
        engine.train(tiny_recipe(), engine.Plan(**plan), tmp_path / "run")
    assert (len(actors()), len(placement_group_table())) == before
    assert not (tmp_path / "run").exists()
    assert ray.is_initialized(), "a Ray that was there before was stopped"


def test_a_store_that_is_too_small(tiny_recipe: TinyRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = {"CPU": 3.0, "object_store_memory": 10_000.0}
    monkeypatch.setattr(cluster, "node_resources", lambda: [node])
    before = len(actors())
    with pytest.raises(engine.PlanError, match=r"need [\d,]+ bytes of object store, but the smallest node has 10,000"):
        engine.train(tiny_recipe(), engine.Plan(), tmp_path / "run")
    assert len(actors()) == before


@pytest.mark.slow
def test_a_busy_cluster_is_waited_for_and_then_named(tiny_recipe: TinyRecipe, tmp_path: Path) -> None:
    """The plan fits, but somebody else has the CPUs: no group is left pending."""

    class Idle:
        def ready(self) -> bool:
            return True

    actor = ray.remote(Idle).options(num_cpus=RAY_CPUS).remote()
    try:
        assert ray.get(actor.ready.remote())
        with pytest.raises(engine.PlanError, match=r"did not free 3 actors .* within plan.start_timeout_seconds=2"):
            engine.train(tiny_recipe(), engine.Plan(start_timeout_seconds=2), tmp_path / "run")
    finally:
        ray.kill(actor)
    _assert_nothing_is_reserved()


@pytest.mark.slow
def test_a_learner_that_cannot_be_built_ends_the_run(
    tiny_recipe: TinyRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network's file is there for the driver, and broken for the actors."""
    network = tmp_path / "mine.py"
    network.write_text(
        "import sys\n"
        "from torch import nn\n\n"
        "def mine(num_classes, image_shape):\n"
        "    if 'ray._private.workers.default_worker' in sys.modules or 'default_worker' in sys.argv[0]:\n"
        "        raise ZeroDivisionError('not here')\n"
        "    c, h, w = image_shape\n"
        "    last = nn.Sequential(nn.Flatten(), nn.Linear(c * h * w, num_classes))\n"
        "    return nn.Sequential(nn.Conv2d(c, c, 3, padding=1), nn.Conv2d(c, c, 3, padding=1), last)\n"
    )
    from engine.recipes import Backbone

    recipe = tiny_recipe(method=Greedy(num_segments=2), backbone=Backbone(name=f"{network}:mine"))
    with pytest.raises(engine.EngineError, match=r"mine.py:mine: .*not here"):
        engine.train(recipe, engine.Plan(), tmp_path / "run")
    _assert_nothing_is_reserved()


def test_nothing_listens_beyond_loopback() -> None:
    own = psutil.Process(os.getpid())
    names, listening = [], []
    for process in [own, *own.children(recursive=True)]:
        # Workers that nobody needs any more end meanwhile.
        with contextlib.suppress(psutil.NoSuchProcess):
            names.append(process.name())
            found = process.net_connections(kind="inet")
            listening += [(names[-1], each.laddr.ip) for each in found if each.status == psutil.CONN_LISTEN]
    assert any("raylet" in name for name in names)
    assert any("gcs" in name for name in names)
    assert listening
    assert {address for _, address in listening} <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}, listening
