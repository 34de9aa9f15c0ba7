"""Does a method in one file of the user's own train the same weights in process and on Ray?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import engine
from engine.runtimes.ray import disconnect, start_private_ray

OWN = '''
from engine.methods.whole_network import WholeNetwork
from engine.objectives import Classification, ConfidencePenalty, Objective
from engine.recipes import MethodSettings
from engine.recipes.settings import Weight, settings


@settings
class Humble(MethodSettings):
    """Cross-entropy, and a penalty on confident predictions (Pereyra et al. 2017)."""

    weight: Weight = 0.1
    """Weight of the penalty."""


def objective(recipe, facts, network):
    terms = {"cross_entropy": Classification(), "confidence_penalty": ConfidencePenalty()}
    return Objective(terms, {"cross_entropy": 1.0, "confidence_penalty": recipe.method.weight})


def teaching(training):
    return None


METHOD = WholeNetwork(objective, teaching)
'''
SMALL = ("data.train_limit=90", "data.test_limit=30", "data.batch_size=50", "epochs=1")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "humble.py"
    path.write_text(OWN)
    return path


@pytest.fixture
def local_ray() -> Iterator[None]:
    start_private_ray(num_cpus=1)
    yield
    disconnect()


def _train(folder: Path, *words: str) -> engine.Result:
    recipe, plan = engine.apply_overrides(engine.load_recipe("end_to_end_digits"), engine.Plan(), [*words, *SMALL])
    return engine.train(recipe, plan, folder)


def test_a_method_of_ones_own_is_trained(file: Path, tmp_path: Path) -> None:
    kind = f"method.kind={file}:Humble"
    own = _train(tmp_path / "own", "plan.executor=process", kind, "method.weight=0.5")
    plain = _train(tmp_path / "plain", "plan.executor=process", "method.kind=end_to_end")
    nothing = _train(tmp_path / "nothing", "plan.executor=process", kind, "method.weight=0")
    assert nothing.weights_sha256 == plain.weights_sha256 != own.weights_sha256
    run = engine.load(own.run_dir)
    assert run.recipe.method.kind == f"{file}:Humble"
    assert engine.evaluate(run)["test/accuracy"] == own.test_score


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_ray_gives_the_same_weights(file: Path, tmp_path: Path) -> None:
    kind = f"method.kind={file}:Humble"
    results = [_train(tmp_path / each, f"plan.executor={each}", kind) for each in ("process", "ray")]
    assert results[0].weights_sha256 == results[1].weights_sha256
    assert results[0].metrics == results[1].metrics
