"""Do the further terms of retrieval reach every method that takes them, and are the others refused by name?"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

import engine
from engine.data import open_source
from engine.errors import PlanError, RecipeError
from engine.methods import method_of
from engine.recipes import CSKD, DHM, DML, DSN, EndToEnd, InfoPro, Recipe, Retrieval, load_recipe
from engine.runtimes.replicated import check_replicable

IN_PROCESS = engine.Plan(executor="process")
TERMS = Retrieval(label_smoothing=0.1, triplet_weight=0.5)


def recipe_of(method: Any, task: Retrieval = TERMS) -> Recipe:
    recipe = load_recipe("dml_omniglot_tiny")
    data = dataclasses.replace(recipe.data, batch_size=8, classes_per_batch=2)
    return dataclasses.replace(recipe, method=method, task=task, data=data)


@pytest.mark.parametrize(
    "method",
    [
        EndToEnd(),
        pytest.param(DML(peer_method=InfoPro()), marks=pytest.mark.slow),
        pytest.param(DHM(), marks=pytest.mark.slow),
    ],
    ids=["end_to_end", "dml", "dhm"],
)
def test_the_last_segment_learns_from_them(method: Any, tmp_path: Path) -> None:
    recipe = recipe_of(method)
    result = engine.train(recipe, IN_PROCESS, tmp_path / "run")
    run = engine.load(result.run_dir)
    last = {name for network in run.networks.values() for name in network.learners[-1:]}
    losses = {record.learner for record in run.metrics() if record.name == "loss/triplet"}
    assert losses == last
    plain = dataclasses.replace(recipe, task=Retrieval())
    other = engine.train(plain, IN_PROCESS, tmp_path / "plain")
    smoothed = dataclasses.replace(recipe, task=Retrieval(label_smoothing=0.1))
    third = engine.train(smoothed, IN_PROCESS, tmp_path / "smoothed")
    assert len({each.weights_sha256 for each in (result, other, third)}) == 3


@pytest.mark.parametrize("method", [CSKD(), DSN(loss="squared_hinge"), DHM(branch_learners=True)], ids=lambda m: m.kind)
def test_methods_with_a_loss_of_their_own_refuse_them(method: Any) -> None:
    with pytest.raises(RecipeError, match=rf"task.label_smoothing=0.1: method.kind={method.kind} has a label loss of"):
        method_of(recipe_of(method))
    assert method_of(recipe_of(method, Retrieval())) is not None


def test_parts_of_a_batch_cannot_be_compared() -> None:
    recipe = recipe_of(EndToEnd())
    facts = open_source(recipe.data, 0).facts
    with pytest.raises(PlanError, match="triplet loss compares all images of a batch.*task.triplet_weight=0"):
        check_replicable(recipe, facts, engine.Plan(replicas=2))
