"""Are runs with branches resumed bit for bit, recorded head by head, and deployed without branches?"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

import engine
from engine.backbones import branch_plans, build, build_branch, load_plain_state
from engine.errors import LearnerError, RecipeError
from engine.recipes import DHM, DML, DSL, DSN, Augmentation, Backbone, InfoPro, Recipe
from engine.tracking import read_metrics
from engine.training import evaluate, export_network

TinyRecipe = Callable[..., Recipe]
Interrupt = Callable[[int], None]
SameRun = Callable[[Path, Path], None]

METHODS: dict[str, Any] = {
    "dsn": DSN(decay="stop", stop_at=0.5, measure_gradients_every=2),
    "dhm": DHM(directions="sampled", measure_gradients_every=2),
    "dhm_apart": DHM(directions="sampled", branch_learners=True),
    "infopro": InfoPro(branches=DHM()),
    "dml": DML(peer_method=DSL()),
}
IN_PROCESS = engine.Plan(executor="process", report_every_steps=3, checkpoint_every_steps=2, keep_checkpoints=9)


@pytest.fixture
def recipe_of(tiny_recipe: TinyRecipe) -> Callable[..., Recipe]:
    """A function: the method, and the recipe of 12 steps that trains with it."""
    return lambda method, **changes: tiny_recipe(
        method=method, epochs=3, backbone=Backbone(name="resnet8", widths=(4, 6, 8)), **changes
    )


def _records(folder: Path) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for record in read_metrics(folder):
        if record.split == "train":
            found.setdefault(record.name, []).append(record.value)
    return found


@pytest.mark.parametrize(
    "name", [name if name in ("dhm", "dhm_apart") else pytest.param(name, marks=pytest.mark.slow) for name in METHODS]
)
def test_an_interrupted_run_equals_the_straight_run(
    name: str, tmp_path: Path, recipe_of: Callable[..., Recipe], interrupt_at: Interrupt, assert_same_run: SameRun
) -> None:
    recipe = recipe_of(METHODS[name])
    straight = engine.train(recipe, IN_PROCESS, tmp_path / "straight")
    for stop in (1, 7):
        interrupt_at(stop)
        assert engine.train(recipe, IN_PROCESS, tmp_path / "stopped").status == "interrupted"
    interrupt_at(0)
    result = engine.train(recipe, IN_PROCESS, tmp_path / "stopped")
    assert (result.status, result.weights_sha256) == ("finished", straight.weights_sha256)
    assert_same_run(tmp_path / "straight", tmp_path / "stopped")


def test_every_head_and_direction_is_recorded(tmp_path: Path, recipe_of: Callable[..., Recipe]) -> None:
    engine.train(recipe_of(DHM(directions="sampled", measure_gradients_every=1)), IN_PROCESS, tmp_path / "run")
    records = _records(tmp_path / "run")
    heads = ("main", "near_top", "deep")
    for head in heads:
        assert all(0 <= value <= 1 for value in records[f"branches/accuracy/{head}"])
        for teacher in heads:
            assert (f"branches/mimicry/{head}<-{teacher}" in records) == (teacher != head)
    assert all(math.isfinite(value) for value in records["branches/cross_entropy/deep"])
    assert all(1 / 6 <= value <= 1 for value in records["branches/directions_kept"])
    for pair in ("main~near_top", "main~deep", "near_top~deep"):
        for which in ("label", "total"):
            assert all(-1 <= value <= 1 for value in records[f"branches/gradient_cosine/{which}/{pair}"])


@pytest.mark.parametrize("apart", [False, True])
def test_an_exported_network_is_the_plain_backbone(
    apart: bool, tmp_path: Path, recipe_of: Callable[..., Recipe]
) -> None:
    recipe = recipe_of(DHM(branch_learners=apart))
    engine.train(recipe, IN_PROCESS, tmp_path / "run")
    run = engine.load(tmp_path / "run")
    export_network(run, tmp_path / "network.safetensors")
    plain = build(recipe.backbone, 10, (1, 8, 8), seed=9)
    load_plain_state(plain, recipe.backbone.name, safetensors.torch.load_file(tmp_path / "network.safetensors"))
    images = torch.rand(5, 1, 8, 8)
    assert plain.eval()(images).equal(run.network()(images))
    assert evaluate(run)
    result = engine.train(recipe, IN_PROCESS, tmp_path / "run")
    branches = sum(
        parameter.numel()
        for plan in branch_plans(recipe.backbone.name, plain, (1, 8, 8), 2)
        for parameter in build_branch(plan, recipe.backbone.name, plain, 10, (1, 8, 8)).parameters()
    )
    assert result.deployed_parameters is not None
    assert result.deployed_parameters == sum(parameter.numel() for parameter in plain.parameters())
    assert result.trained_parameters == result.deployed_parameters + branches


def test_a_branch_whose_loss_is_not_finite_is_named(tmp_path: Path, recipe_of: Callable[..., Recipe]) -> None:
    recipe = recipe_of(DHM(branch_learners=True, label_weight=1e38))
    with pytest.raises(LearnerError, match="near_top|deep"):
        engine.train(recipe, IN_PROCESS, tmp_path / "run")


@pytest.mark.parametrize(
    ("method", "changes", "message"),
    [
        (DHM(num_branches=5), {}, "method.num_branches"),
        (DSN(forks=("layer1_9",)), {}, "method.forks.*layer1_9.*layer1_0"),
        (DHM(branch_learners=True), {"numerics": {"precision": "float16"}}, "bfloat16"),
    ],
)
def test_what_cannot_be_is_refused(
    method: Any, changes: dict[str, Any], message: str, tmp_path: Path, recipe_of: Callable[..., Recipe]
) -> None:
    with pytest.raises(RecipeError, match=message):
        engine.train(recipe_of(method, **changes), IN_PROCESS, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_three_heads_learn_by_heart_and_mimicry_brings_them_together(tmp_path: Path, tiny_recipe: TinyRecipe) -> None:
    kept = {}
    for name, method in (("dsl", DHM(weight=1e-6)), ("dhm", DHM())):
        recipe = tiny_recipe(
            method=method,
            epochs=30,
            backbone=Backbone(name="resnet8", widths=(8, 12, 16)),
            data={"train_limit": 256, "batch_size": 32, "augmentation": Augmentation()},
        )
        engine.train(recipe, IN_PROCESS, tmp_path / name)
        records = _records(tmp_path / name)
        for head in ("main", "near_top", "deep"):
            assert records[f"branches/accuracy/{head}"][-1] == 1.0, (name, head)
        divergences = [values[-1] for record, values in records.items() if record.startswith("branches/mimicry/")]
        assert len(divergences) == 6
        kept[name] = sum(divergences) / 6
    assert kept["dhm"] < kept["dsl"]
