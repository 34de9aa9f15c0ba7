"""Does a run on a cluster outlive the loss of a node, with the same weights, also if no other node ever comes?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from ray.cluster_utils import Cluster

import engine
from engine.recipes import Recipe, Recovery
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
