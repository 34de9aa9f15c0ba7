"""Can a cohort be said in few words, and does each mistake in it get its name?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import engine
from engine.recipes import (
    DML,
    SGD,
    Backbone,
    Distillation,
    InfoPro,
    Peer,
    Recipe,
    load_recipe,
    recipe_from_dict,
    recipe_to_dict,
    with_absolute_paths,
)


def changed(*words: str) -> Recipe:
    return engine.apply_overrides(load_recipe("dml_digits"), engine.Plan(), words)[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3", (Peer(), Peer(), Peer())),
        ("1", (Peer(),)),
        ("resnet8,resnet14", (Peer(backbone=Backbone(name="resnet8")), Peer(backbone=Backbone(name="resnet14")))),
        ('["resnet8", {}]', (Peer(backbone=Backbone(name="resnet8")), Peer())),
        (
            '[{"seed": 4}, {"backbone": {"name": "wrn_10_1", "dropout": 0.3}, "optimizer": {"kind": "sgd"}}]',
            (Peer(seed=4), Peer(backbone=Backbone(name="wrn_10_1", dropout=0.3), optimizer=SGD())),
        ),
    ],
)
def test_a_cohort_in_one_word(text: str, expected: tuple[Peer, ...]) -> None:
    recipe = changed(f"method.peers={text}")
    assert recipe.method.peers == expected
    assert recipe_from_dict(json.loads(json.dumps(recipe_to_dict(recipe)))) == recipe


def test_what_a_peer_does_inside_is_chosen_by_its_kind() -> None:
    recipe = changed("method.peer_method.num_segments=3", "method.peer_method.kind=infopro")
    assert recipe.method.peer_method == InfoPro(num_segments=3)
    # The order of the words does not matter for a change of both kinds either.
    base = load_recipe("end_to_end_digits")
    words = ["method.peer_method.num_segments=3", "method.peer_method.kind=infopro", "method.kind=dml"]
    assert engine.apply_overrides(base, engine.Plan(), words)[0].method == DML(peer_method=InfoPro(num_segments=3))


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("method.peers=0", "method.peers: found 0"),
        ("method.peers=1000000", "method.peers: found 1,000,000 peers, expected at most 64"),
        ('method.peers=[{"sed": 3}]', "method.peers.0.sed: there is no such field; did you mean 'seed'?"),
        (
            'method.peers=[{}, {"optimizer": {"kind": "sgd", "learning_rat": 3}}]',
            "method.peers.1.optimizer.learning_rat: there is no such field; did you mean 'learning_rate'?",
        ),
        ("method.peer_method.kind=infopr", "method.peer_method.kind: found 'infopr'; did you mean 'infopro'?"),
        ("method.peer_method.num_segments=2", "method.peer_method.num_segments: there is no such field"),
        ("method.schedule=sequental", "did you mean 'sequential'?"),
        ("method.exchange_interval=5", "set method.schedule=codistillation"),
        ("method.local_weight=1", "local_weight is for peers that are cut into segments"),
        ("method.temperature=0", "method.temperature: found 0"),
        ("method.weight=-1", "method.weight: found -1"),
    ],
)
def test_a_mistake_is_named(word: str, said: str) -> None:
    with pytest.raises(engine.RecipeError) as caught:
        changed(word)
    assert said in str(caught.value)


def test_weights_are_exchanged_by_whole_peers_only() -> None:
    with pytest.raises(engine.RecipeError, match="exchange=weights is for whole peers"):
        changed("method.schedule=codistillation", "method.exchange=weights", "method.peer_method.kind=infopro")


def test_only_the_kind_of_a_cohort_has_a_method_inside() -> None:
    with pytest.raises(engine.RecipeError, match=r"method.peer_method.kind: there is no such field"):
        engine.apply_overrides(load_recipe("infopro_digits"), engine.Plan(), ["method.peer_method.kind=greedy"])


def test_paths_inside_a_method_become_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    base = load_recipe("dml_digits")
    own = Peer(backbone=Backbone(name="mine.py:make", weights="start.safetensors"))
    recipe = engine.Recipe(name="r", method=DML(peers=(own, Peer())), backbone=base.backbone, data=base.data)
    (found, plain) = with_absolute_paths(recipe).method.peers
    assert (found.backbone.name, found.backbone.weights) == (
        f"{tmp_path}/mine.py:make",
        f"{tmp_path}/start.safetensors",
    )
    assert plain == Peer()
    taught = engine.Recipe(name="r", method=Distillation(teacher="run"), backbone=base.backbone, data=base.data)
    assert with_absolute_paths(taught).method.teacher == f"{tmp_path}/run"
    assert with_absolute_paths(load_recipe("distillation_cifar100_resnet32")).method.teacher is None
