"""Do the settings of methods answer what other rooms ask of them?"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from pydantic import TypeAdapter

from engine.errors import RecipeError
from engine.methods.cohort import members_of
from engine.recipes import (
    DML,
    METHODS,
    Backbone,
    Distillation,
    MethodSettings,
    Peer,
    Plan,
    apply_overrides,
    load_recipe,
    without_files,
)

QUESTIONS = {name for name, value in vars(MethodSettings).items() if isinstance(value, property)} - {"kind"}
LEARNED = {"classification", "segmentation"}


def made(kind: str, **fields: Any) -> MethodSettings:
    settings: MethodSettings = TypeAdapter(METHODS[kind]).validate_python({"kind": kind, **fields})
    return settings


@pytest.mark.parametrize("kind", METHODS)
def test_every_method_says_what_it_learns_and_trains(kind: str) -> None:
    settings = made(kind)
    assert settings.kind == kind
    # Whether it is true is asked in tests/methods/test_tasks.py.
    assert settings.takes_tasks is None or {"classification"} <= {*settings.takes_tasks} <= LEARNED
    assert settings.inside.with_inside(settings.inside) == settings.inside
    networks = settings.networks(Backbone(name="resnet32"))
    assert networks == (Backbone(name="resnet32"),) * len(networks) != ()


def test_these_learn_more_than_classes_and_only_a_cohort_has_several_networks() -> None:
    assert {kind for kind in METHODS if METHODS[kind].takes_tasks is None} >= {
        *("dgl", "dml", "end_to_end", "greedy", "infopro")
    }
    assert METHODS["distillation"].takes_tasks == ("classification", "segmentation")
    assert len(made("dml").networks(Backbone(name="resnet32"))) == 2


@pytest.mark.parametrize("kind", METHODS)
def test_a_question_is_no_field_but_where_users_choose(kind: str) -> None:
    dumped = TypeAdapter(METHODS[kind]).dump_python(made(kind))
    chosen = {"recalibration_images", "num_segments", "cuts", "store_learners"}
    assert set(dumped) & QUESTIONS <= chosen


@pytest.mark.parametrize(
    ("kind", "fields", "remedy"),
    [
        ("infopro", {"head": "contrastive"}, "method.head=softmax"),
        ("infopro", {"reconstruction_share": 0.5}, "method.reconstruction_share=1"),
        ("greedy", {"branches": {"kind": "dsl"}}, "method.branches=null"),
        ("dml", {"peer_method": {"kind": "infopro", "head": "contrastive"}}, "method.peer_method.head=softmax"),
        ("dml", {"schedule": "codistillation", "exchange": "weights"}, "method.exchange=predictions"),
        ("dml", {}, "method.on_divergence=stop"),
        ("predsim", {}, None),
        ("dml", {"peer_method": {"kind": "predsim"}}, None),
        ("gkt", {}, None),
        ("dhm", {}, None),
    ],
)
def test_what_stands_against_replicas_is_stated_with_its_remedy(
    kind: str, fields: dict[str, Any], remedy: str | None
) -> None:
    obstacle = made(kind, **fields).obstacle_to_replicas()
    assert obstacle is not None
    assert obstacle.remedy == remedy


@pytest.mark.parametrize("kind", ["end_to_end", "greedy", "dgl", "infopro"])
def test_parts_of_a_batch_can_be_trained_on_apart_by_these(kind: str) -> None:
    assert made(kind).obstacle_to_replicas() is None
    assert made("dml", peer_method={"kind": kind}, on_divergence="stop").obstacle_to_replicas() is None


def test_files_that_a_method_names_are_left_out() -> None:
    weights = Backbone(name="resnet32", weights="w.safetensors")
    assert DML(peers=(Peer(backbone=weights, seed=1), Peer(seed=1))).without_weights() == DML(
        peers=(Peer(backbone=Backbone(name="resnet32")), Peer())
    )
    assert made("mkf", knowledge_folder="somewhere").without_folder() == made("mkf")


def test_peers_that_files_tell_apart_are_still_told_apart_without_them() -> None:
    recipe = apply_overrides(load_recipe("dml_digits"), Plan(), ["seed=0"])[0]
    assert isinstance(recipe.method, DML)
    own, loaded = recipe.backbone, dataclasses.replace(recipe.backbone, weights="w.safetensors")
    for backbone, peers in [
        (own, (Peer(backbone=loaded, seed=1), Peer(seed=0))),
        (loaded, (Peer(seed=5), Peer(backbone=own, seed=5))),
        (loaded, (Peer(), Peer(backbone=own, seed=0))),
    ]:
        given = dataclasses.replace(recipe, backbone=backbone, method=dataclasses.replace(recipe.method, peers=peers))
        assert len(members_of(without_files(given))) == 2


def test_a_cohort_says_how_its_peers_learn() -> None:
    recipe = apply_overrides(load_recipe("dml_digits"), Plan(), ["method.peer_method.kind=infopro"])[0]
    method = recipe.method
    assert (method.placement, method.inside_field, method.inside.num_segments) == ("PACK", "method.peer_method", 2)
    assert load_recipe("dml_digits").method.placement == "SPREAD"
    assert method.with_inside(made("end_to_end")) == load_recipe("dml_digits").method
    with pytest.raises(RecipeError, match=r"DML: peer_method.kind: found 'gkt'; there is dgl, "):
        method.with_inside(made("gkt"))


@pytest.mark.parametrize("name", ["resnet50", "net.py", "net.py:", "net:function", ""])
def test_code_of_a_teacher_is_a_function_in_a_file_and_no_plain_name(name: str) -> None:
    words = ["method.kind=distillation", "method.teacher=run", f"method.teacher_backbone={name}"]
    with pytest.raises(RecipeError) as refused:
        apply_overrides(load_recipe("end_to_end_digits"), Plan(), words)
    said = str(refused.value)
    assert said.startswith(f"method.teacher_backbone: found {name!r}, expected path/to/file.py:function")
    # Of what is meant as a file the function is missing.
    assert said.endswith("leave it out") == (".py" not in name)


def test_code_of_a_teacher_may_be_named_relative_to_the_current_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    method = made("distillation", teacher="run", teacher_backbone="net.py:function")
    assert method == Distillation(teacher="run", teacher_backbone="net.py:function")
    assert method.with_absolute_paths() == Distillation(teacher="/run", teacher_backbone="/net.py:function")
