"""Does every method that trains classifiers train networks for retrieval, from its first step on?"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

import engine
from engine.data import open_source
from engine.methods import method_of, networks_sha256
from engine.recipes import METHODS, Backbone, Recipe, load_recipe
from engine.runtimes import ProcessRuntime

# Every method once, and those of the papers on retrieval in their forms; distillation has a test of its own here.
CASES: list[tuple[str, dict[str, Any]]] = [
    *((kind, {}) for kind in METHODS if kind != "distillation"),
    *(("dml", more) for more in ({"peers": 4}, {"peers": "resnet8,mobilenet_v1_025"}, {"schedule": "sequential"})),
    ("dml", {"weight": 0, "distance_weight": 1}),
    *(("dml", {"peer_method": {"kind": kind}}) for kind in ("infopro", "dsl", "dhm")),
    *((kind, {"num_segments": 4}) for kind in ("greedy", "infopro")),
    ("dhm", {"branch_learners": True}),
]


def named(case: Any) -> str:
    return case if isinstance(case, str) else "-".join(f"{key}={value}" for key, value in case.items())


def recipe_of(kind: str, settings: dict[str, Any]) -> Recipe:
    recipe = load_recipe("dml_omniglot_tiny")
    method = TypeAdapter(METHODS[kind]).validate_python({"kind": kind, **settings})
    # What is more than a method's defaults is tried with a neck.
    backbone = Backbone(name="resnet14", widths=(4, 8, 8), neck="batch_norm" if settings else None)
    data = dataclasses.replace(recipe.data, batch_size=8)
    return dataclasses.replace(recipe, method=method, backbone=backbone, data=data)


@pytest.mark.parametrize(("kind", "settings"), CASES, ids=named)
def test_every_method_of_classification_trains_and_is_scored(kind: str, settings: dict[str, Any]) -> None:
    recipe = recipe_of(kind, settings)
    source = open_source(recipe.data, recipe.seed, paired_images=recipe.method.paired_images)
    team = method_of(recipe).team(recipe, source.facts)
    runtime = ProcessRuntime(recipe, source.facts, team, source.steps_per_epoch())
    weights = []
    for step in range(2):
        runtime.submit(team.program(step), source.batch(0, step))
        weights.append(networks_sha256(team.networks, source.facts, runtime.ask("state").result()))
    assert weights[0] != weights[1]
    for batch in source.evaluation_batches("test"):
        runtime.submit(team.evaluation, batch)
    scores: dict[str, dict[str, float]] = {}
    for each in runtime.ask("score").result().values():
        scores |= each
    networks = [*team.networks, *(["ensemble"] if len(team.networks) > 1 else [])]
    assert sorted(scores) == sorted(networks)
    for found in scores.values():
        assert 0.0 < found["mean_average_precision"] <= 1.0
        assert math.isfinite(found["mean_inverse_negative_penalty"])


def test_a_frozen_teacher_teaches(tmp_path: Path) -> None:
    teacher = recipe_of("end_to_end", {})
    run = engine.train(teacher, engine.Plan(executor="process"), tmp_path / "teacher", until_step=2)
    test_every_method_of_classification_trains_and_is_scored("distillation", {"teacher": str(run.run_dir)})
