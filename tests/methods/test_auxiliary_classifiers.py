"""Do the auxiliary classifiers that a backbone brings along take part in the training, and in nothing else?"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import engine
from engine.data import open_source
from engine.methods import method_of

WORDS = (
    "data.name=synthetic",
    "data.num_classes=5",
    "data.image_size=32",
    "data.synthetic_images=8",
    "data.batch_size=4",
    "backbone.name=inception_v1",
    "backbone.widths=null",
    "backbone.auxiliary_heads=true",
    "epochs=1",
    "plan.executor=process",
)
HEADS = {"cross_entropy_after_inception4a", "cross_entropy_after_inception4d"}


def changed(*words: str) -> tuple[engine.Recipe, engine.Plan]:
    return engine.apply_overrides(engine.load_recipe("end_to_end_digits"), engine.Plan(), [*WORDS, *words])


@pytest.mark.slow
def test_they_train_with_the_network_and_are_not_exported(tmp_path: Path) -> None:
    recipe, plan = changed()
    result = engine.train(recipe, plan, tmp_path / "run")
    run = engine.load(result.run_dir)
    terms = {r.name.removeprefix("loss/") for r in run.metrics() if r.split == "train" and r.name.startswith("loss/")}
    assert terms == {"cross_entropy", "total", *HEADS}
    total, parts = (
        sum(weight * r.value for r in run.metrics() for name, weight in wanted.items() if r.name == f"loss/{name}")
        for wanted in ({"total": 1.0}, {"cross_entropy": 1.0} | dict.fromkeys(HEADS, 0.4))
    )
    assert total == pytest.approx(parts, rel=1e-5)
    (learner,) = method_of(recipe).team(recipe, run.facts).learners
    assert sum(parameter.numel() for parameter in run.network().parameters()) == learner.parameters
    assert learner.auxiliary_parameters > 4_000_000


@pytest.mark.slow
def test_each_belongs_to_the_segment_with_its_block() -> None:
    recipe, _ = changed("method.kind=greedy", "method.num_segments=2", "method.cuts=inception4a")
    source = open_source(recipe.data, recipe.seed)
    method = method_of(recipe)
    built = [
        method.build_learner(recipe, source.facts, 2, name, torch.device("cpu"))
        for name in method.team(recipe, source.facts).names
    ]
    found = [set(learner.objective.terms) & HEADS for learner in built]  # type: ignore[union-attr]
    assert found == [{"cross_entropy_after_inception4a"}, {"cross_entropy_after_inception4d"}]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("method.kind=label_smoothing",), "method.kind=label_smoothing"),
        (("method.kind=ps_kd",), "method.kind=ps_kd"),
        (("method.kind=distillation", "method.teacher=nowhere"), "method.kind=distillation"),
        (("method.kind=dsl", "method.branch_learners=true"), "method.branch_learners=true"),
    ],
)
def test_methods_that_would_leave_them_out_refuse_them(words: tuple[str, ...], named: str) -> None:
    recipe, _ = changed(*words)
    source = open_source(recipe.data, recipe.seed)
    with pytest.raises(engine.RecipeError, match=f"backbone.auxiliary_heads=true, but {named}"):
        method_of(recipe).team(recipe, source.facts)
