"""Does every combination of method, network and fields either train or end with an error that says why?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from engine.data import open_source
from engine.errors import EngineError, InputError
from engine.methods import method_of
from engine.recipes import METHODS, Plan, Recipe, apply_overrides
from engine.recipes.problems import field_names
from engine.recipes.recipe import recipe_to_dict
from engine.runtimes import open_runtime
from engine.training.preview import check_batches

# Names of fields, and what they may hold that is worth trying beside any number or word.
CHOICES: dict[str, list[str]] = {
    "cuts": ["published", "balanced_layers", "balanced_memory", "layer1_0", "layer1_0,layer2_0", "stem,layer3_1", "0"],
    "forks": ["layer1_1", "stem,layer2_1", "classifier"],
    "head": ["softmax", "contrastive"],
    "peers": ["1", "3", "resnet8,resnet14", '[{"seed":1},{"optimizer":{"kind":"adam","learning_rate":0.1}}]'],
    "schedule": ["sequential", "codistillation"],
    "exchange": ["weights"],
    "sampling": ["inherited", "ordered", "uniform", "independent"],
    "fraction": ["keep", "none", "linear", "exact"],
    "style": ["mixup", "cutmix", "compound"],
    "directions": ["sampled", "bernoulli", "to_main", "top_down"],
    "stage_choices": ["1,1,1", "2,1,2", "9"],
    "knowledge_folder": ["/nowhere", "/dev/null"],
    "teacher": ["/nowhere", "/dev/null"],
    "shape": ["linear", "rich"],
    "mixing_partners": ["second_batch"],
    "divergence": ["reverse_kl", "jeffreys", "jensen_shannon"],
    "target": ["mean_of_probabilities", "peers"],
}
ANY = [
    "0",
    "1",
    "2",
    "3",
    "7",
    "-1",
    "0.5",
    "1e9",
    "1e-9",
    "99",
    "true",
    "false",
    "null",
    "nan",
    "inf",
    "",
    "[]",
    "{}",
    "x",
]
BACKBONES = ["resnet8", "resnet14", "wrn_10_1", "densenet_7_4", "mobilenet_v1_025", "shufflenet_v2_x0_5", "resnet9"]
OTHERS = [
    "data.labelled_fraction=0.5",
    "data.unlabelled=drop",
    "data.batch_size=2",
    "data.batch_size=7",
    "data.batch_size=44",
    "data.image_size=16",
    "data.augmentation.flip=false",
    "numerics.precision=bfloat16",
    "numerics.precision=float16",
    "numerics.device=cuda",
    "optimizer.kind=adam",
    "schedule.kind=cosine",
    "epochs=1",
    "backbone.dropout=0.5",
    "backbone.auxiliary_heads=true",
    "backbone.shortcut=identity",
    "backbone.stem=cifar",
    "plan.replicas=2",
]


@st.composite
def words(draw: st.DrawFn, recipe: Recipe) -> list[str]:
    """Draw what follows `train RECIPE`: a method, a network, and some fields of the method."""
    kind = draw(st.sampled_from(sorted(METHODS)))
    chosen = {"method.kind": kind, "backbone.widths": "null", "backbone.name": draw(st.sampled_from(BACKBONES))}
    values: dict[str, Any] = {**recipe_to_dict(recipe), "method": {"kind": kind}}
    for part, kinds in (
        ("branches", ["dsn", "dsl", "dhm"]),
        ("peer_method", ["greedy", "infopro", "predsim", "dgl", "dhm", "dsn"]),
    ):
        if f"method.{part}" in field_names(Recipe, values) and draw(st.booleans()):
            inner = draw(st.sampled_from(kinds))
            chosen[f"method.{part}.kind"] = inner
            values["method"][part] = {"kind": inner}
    names = [name for name in field_names(Recipe, values) if name.startswith("method.") and not name.endswith("kind")]
    for name in draw(st.lists(st.sampled_from(names), max_size=3, unique=True)) if names else []:
        chosen[name] = draw(st.sampled_from([*CHOICES.get(name.rpartition(".")[2], []), *ANY]))
    for word in draw(st.lists(st.sampled_from(OTHERS), max_size=2, unique=True)):
        name, _, value = word.partition("=")
        chosen.setdefault(name, value)
    return [f"{name}={value}" for name, value in chosen.items()]


def one_step(recipe: Recipe, given_words: list[str]) -> None:
    """Take one step of the training that a command line asks for."""
    recipe, plan = apply_overrides(recipe, Plan(executor="process"), given_words)
    source = open_source(recipe.data, recipe.seed, paired_images=recipe.method.paired_images)
    try:
        team = method_of(recipe).team(recipe, source.facts)
        check_batches(recipe, source.facts)
        runtime = open_runtime(recipe, source.facts, team, source.steps_per_epoch(), plan)
        try:
            runtime.submit(team.program(0), source.batch(0, 0))
            runtime.finish()
        finally:
            runtime.close()
    finally:
        source.close()


def outcome(recipe: Recipe, given_words: list[str]) -> str:
    """Return how a step ended; the message of an error that only a bug can have."""
    try:
        one_step(recipe, given_words)
    except InputError as error:
        return "refused" if str(error).strip() else "refused without a word"
    except EngineError as error:
        # A loss that is not finite is the learner's own trouble; anything else that it met is a bug.
        return "diverged" if "is inf" in str(error) or "is nan" in str(error) else str(error)
    return "trained"


@pytest.mark.slow
def test_nothing_but_errors_that_say_why(tiny_recipe: Callable[..., Recipe]) -> None:
    recipe = tiny_recipe(epochs=1)
    ended: list[str] = []

    @seed(20)
    @settings(max_examples=80, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(words(recipe))
    def check(given_words: list[str]) -> None:
        how = outcome(recipe, given_words)
        ended.append(how)
        assert how in ("trained", "refused", "diverged"), f"{given_words}: {how}"

    check()
    assert min(ended.count("trained"), ended.count("refused")) > 20
