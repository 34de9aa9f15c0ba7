"""Does a run on a cluster outlive the loss of a node, with the same weights, also if no other node ever comes?"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from ray._private import worker as ray_worker
from ray.cluster_utils import Cluster
from ray.core.generated import autoscaler_pb2

import engine
from engine.recipes import Recipe, Recovery
from engine.runtimes import Runtime, open_runtime
from engine.tasks import Metric
from engine.tracking import Record
from engine.training import Result
from tests.conftest import make_tiny_recipe

EPOCHS = 40


@pytest.fixture(scope="module")
def undisturbed(tiny_recipe_of_module: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Result:
    folder = tmp_path_factory.mktemp("undisturbed")
    return engine.train(tiny_recipe_of_module, engine.Plan(executor="process", evaluate_every_epochs=EPOCHS), folder)


@pytest.fixture(scope="module")
def tiny_recipe_of_module() -> Recipe:
    return make_tiny_recipe(epochs=EPOCHS)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A head with two processors, to which this process connects, and another node with one."""
    monkeypatch.setattr("engine.training.by_products.plot_curves", lambda *_: None)
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    try:
        made.add_node(num_cpus=1)
        yield made
    finally:
        made.shutdown()


class At:
    """A console that does something once, when it hears of a step."""

    def __init__(self, step: int, act: Callable[[], object]) -> None:
        self._step, self._act = step, act
        self._has_acted = False

    def update(self, step: int, epoch: int, records: Sequence[Record]) -> None:
        if step >= self._step and not self._has_acted:
            self._has_acted = True
            self._act()

    def start(self, title: str, learners: Sequence[str], total_steps: int, first_step: int, _: Metric) -> None:
        pass

    def message(self, text: str) -> None:
        pass


def plan_for(cluster: Cluster, recovery: Recovery) -> engine.Plan:
    return engine.Plan(
        address=cluster.address,
        recovery=recovery,
        checkpoint_every_steps=10,
        report_every_steps=5,
        evaluate_every_epochs=EPOCHS,
    )


@pytest.mark.slow
def test_learners_go_on_on_the_nodes_that_are_left(
    cluster: Cluster, tiny_recipe_of_module: Recipe, undisturbed: Result, tmp_path: Path
) -> None:
    (worker,) = cluster.worker_nodes
    console: Any = At(20, lambda: cluster.remove_node(worker, allow_graceful=False))
    plan = plan_for(cluster, Recovery(wait_seconds=4.0))
    result = engine.train(tiny_recipe_of_module, plan, tmp_path, console=console)
    assert result.status == "finished"
    assert result.weights_sha256 == undisturbed.weights_sha256
    assert result.metrics == undisturbed.metrics
    assert len(result.faults) == 1
    log = (tmp_path / "log.txt").read_text()
    assert (
        "the learners are laid over what is left: 3 actors with 0.6666 CPU each, PACK, window 6, instead of "
        "3 actors with 1 CPU each, PACK, window 6"
    ) in log


class Nodes:
    """The nodes on which the learners of each start have lived."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.of_starts: list[set[str]] = []

        def opened(*arguments: Any) -> Runtime:
            runtime: Any = open_runtime(*arguments)
            self.of_starts.append({place["node"] for place in runtime._actors.places.values()})
            return runtime  # type: ignore[no-any-return]

        monkeypatch.setattr("engine.training.session.open_runtime", opened)


def drain(node: str, seconds: float = 120.0) -> None:
    """Give notice of a node's end, as `ray start --block` does on SIGTERM."""
    accepted, why = ray_worker.global_worker.gcs_client.drain_node(
        node,
        autoscaler_pb2.DrainNodeReason.DRAIN_NODE_REASON_PREEMPTION,
        "of a test",
        int((time.time() + seconds) * 1000),
    )
    assert accepted, why


@pytest.mark.slow
def test_after_a_notice_nothing_is_repeated(
    cluster: Cluster,
    tiny_recipe_of_module: Recipe,
    undisturbed: Result,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The whole run takes seconds.
    monkeypatch.setattr("engine.runtimes.ray.drains._POLL_SECONDS", 0.0)
    (leaving,) = cluster.worker_nodes
    nodes = Nodes(monkeypatch)

    def replace() -> None:
        cluster.add_node(num_cpus=1)
        drain(leaving.node_id)

    console: Any = At(20, replace)
    # A failure would end it.
    plan = plan_for(cluster, Recovery(max_failures=0))
    result = engine.train(tiny_recipe_of_module, plan, tmp_path, console=console)
    assert result.status == "finished"
    assert result.weights_sha256 == undisturbed.weights_sha256
    assert result.metrics == undisturbed.metrics
    (fault,) = result.faults
    assert "its node " in fault.cause and " is draining, and ends in " in fault.cause
    assert fault.step >= 20
    assert fault.repeated_steps == 0
    before, after = nodes.of_starts
    assert leaving.node_id in before
    assert leaving.node_id not in after and len(after) == 2
    assert "(preemption failure 1)" in (tmp_path / "log.txt").read_text()
