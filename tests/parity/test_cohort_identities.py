"""Which cohorts are the same training, bit for bit, and which are not?"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import engine
from engine import backbones
from engine.backbones import plain_state
from engine.cli.main import main
from engine.data import open_source
from engine.data.datasets import Opened, open_images
from engine.learners import Learner
from engine.methods import method_of

SMALL = (
    *("backbone.name=resnet8", "backbone.widths=4,4,4", "seed=3", "epochs=1"),
    *("data.train_limit=72", "data.test_limit=20", "data.batch_size=32"),
)
COHORT, THREE = "method.kind=dml", ("method.kind=dml", "method.peers=3")
STALE = (*THREE, "method.schedule=codistillation")
INFOPRO = ("method.peer_method.kind=infopro", "method.peer_method.num_segments=2")
GREEDY = ("method.peer_method.kind=greedy", "method.peer_method.num_segments=2")
DROPOUT = ("backbone.name=wrn_10_1", "backbone.widths=null", "backbone.dropout=0.3")
BFLOAT16 = ("numerics.precision=bfloat16", "numerics.channels_last=true")
OTHER = '{"kind":"adamw","learning_rate":0.001}'
FIVE, SEVEN = '{"seed":5}', '{"seed":7,"backbone":{"name":"resnet14","widths":[4,4,4]}}'

Train = Callable[..., engine.Result]


def _recipe(*words: str) -> engine.Recipe:
    recipe, plan = engine.apply_overrides(engine.load_recipe("end_to_end_digits"), engine.Plan(), SMALL)
    return engine.apply_overrides(recipe, plan, words)[0]


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Train:
    """Train with these words, or give the result of the test before that did."""
    results: dict[tuple[str, ...], engine.Result] = {}

    def trained(*words: str) -> engine.Result:
        if words not in results:
            plan = engine.Plan(executor="process")
            results[words] = engine.train(_recipe(*words), plan, tmp_path_factory.mktemp("runs") / "run")
        return results[words]

    return trained


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((COHORT, "method.peers=1"), ()),
        ((COHORT, "method.peers=1", *INFOPRO), ("method.kind=infopro", "method.num_segments=2")),
        ((COHORT, *INFOPRO[:1], "method.peer_method.num_segments=1"), (COHORT,)),
        ((*STALE,), THREE),
        ((*STALE, "method.exchange=weights"), THREE),
        ((COHORT, "method.schedule=codistillation", "method.exchange=weights", *DROPOUT), (COHORT, *DROPOUT)),
        ((COHORT, "method.schedule=codistillation", "method.exchange=weights", *BFLOAT16), (COHORT, *BFLOAT16)),
        ((*STALE, "method.exchange_interval=5"), (*THREE, "method.weight=0")),
        ((*STALE, "method.exchange_interval=5", "method.exchange=weights"), (*THREE, "method.weight=0")),
        ((*THREE, "method.weight=0", "method.schedule=sequential"), (*THREE, "method.weight=0")),
        ((COHORT, "method.reduction=sum"), (COHORT,)),
        ((COHORT, "method.target=mean_logits"), (COHORT,)),
        ((*THREE, "data.labelled_fraction=1"), THREE),
        ((*THREE, "data.labelled_fraction=1", "data.unlabelled=drop"), THREE),
    ],
    ids=[
        *("one_peer", "one_peer_cut", "uncut_peers", "every_step", "every_step_weights", "every_step_dropout"),
        "every_step_bfloat16",
        *("never", "never_weights", "independent_sequential", "sum_of_one", "mean_of_one", "all_labelled", "dropped"),
    ],
)
def test_the_same_training(one: tuple[str, ...], other: tuple[str, ...], train: Train) -> None:
    assert train(*one).weights_sha256 == train(*other).weights_sha256
    assert train(*one).metrics == train(*other).metrics


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (THREE, (*THREE, "method.weight=0")),
        (THREE, (*THREE, "method.schedule=sequential")),
        ((*STALE, "method.exchange_interval=2"), THREE),
        ((*STALE, "method.exchange_interval=2"), (*STALE, "method.exchange_interval=2", "method.exchange=weights")),
        ((*THREE, "method.reduction=sum"), THREE),
        ((COHORT, *GREEDY, "method.local_weight=1"), (COHORT, *GREEDY)),
        ((COHORT, "method.confidence_weight=0.1"), (COHORT,)),
        ((*THREE, "data.labelled_fraction=0.5"), THREE),
        ((*THREE, "data.labelled_fraction=0.5"), (*THREE, "data.labelled_fraction=0.5", "data.unlabelled=drop")),
    ],
)
def test_another_training(one: tuple[str, ...], other: tuple[str, ...], train: Train) -> None:
    assert train(*one).weights_sha256 != train(*other).weights_sha256


@pytest.mark.parametrize("inside", [(), GREEDY], ids=["whole", "cut"])
@pytest.mark.parametrize("schedule", ["simultaneous", "sequential"])
def test_with_weight_zero_each_peer_learns_as_if_it_were_alone(
    inside: tuple[str, ...], schedule: str, train: Train
) -> None:
    peers = ("{}", FIVE, SEVEN)
    together = train(
        COHORT, f"method.peers=[{','.join(peers)}]", "method.weight=0", f"method.schedule={schedule}", *inside
    )
    alone = [train(COHORT, f"method.peers=[{peer}]", *inside).weights_sha256 for peer in peers]
    assert together.weights_sha256.split("-") == alone
    assert len(set(alone)) == 3


def test_peers_that_change_places_change_weights_where_all_learn_at_once(train: Train) -> None:
    for schedule, same in (("simultaneous", True), ("sequential", False)):
        words = (COHORT, f"method.schedule={schedule}")
        one, other = (
            train(*words, f"method.peers=[{','.join(peers)}]").weights_sha256.split("-")
            for peers in ((FIVE, SEVEN), (SEVEN, FIVE))
        )
        assert (one == other[::-1]) == same


@pytest.mark.parametrize("peers", [(FIVE, FIVE), ("{}", '{"seed":3}'), ("{}", "{}", '{"seed":3}')])
def test_peers_that_would_never_differ_are_refused(
    peers: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (COHORT, f"method.peers=[{','.join(peers)}]")
    said = f"method.peers: peer 0 and peer {len(peers) - 1} have the same backbone, optimizer and seed"
    with pytest.raises(engine.RecipeError, match=said):
        engine.train(_recipe(*words), engine.Plan(executor="process"), tmp_path / "run")
    command = ("train", "end_to_end_digits", *SMALL[1:], *words, "--run-dir", str(tmp_path / "run"), "--on", "process")
    assert main(command) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "without", "refused"),
    [
        ((), None, True),
        ((), "classifier", False),
        (("method.weight=0", "method.schedule=sequential"), None, True),
        (("method.schedule=sequential",), None, False),
        (GREEDY, None, False),
        (DROPOUT, None, False),
        ((f'method.peers=[{{}},{{"optimizer":{OTHER}}}]',), None, False),
    ],
)
def test_peers_that_load_the_same_weights_are_refused_unless_something_tells_them_apart(
    words: tuple[str, ...], without: Literal["classifier"] | None, refused: bool, tmp_path: Path
) -> None:
    recipe = _recipe(COHORT, *words)
    source = open_source(recipe.data, recipe.seed)
    network = backbones.build(recipe.backbone, source.facts.num_classes, source.facts.image_shape, seed=1)
    save_file(plain_state(network, recipe.backbone.name), tmp_path / "weights.safetensors")
    file = str(tmp_path / "weights.safetensors")
    backbone = dataclasses.replace(recipe.backbone, weights=file, weights_without=without)
    loaded = dataclasses.replace(recipe, backbone=backbone)
    if refused:
        with pytest.raises(engine.RecipeError, match="peer 0 and peer 1 load all their weights from"):
            method_of(loaded).team(loaded, source.facts)
    else:
        assert len(method_of(loaded).team(loaded, source.facts).networks) == 2


def test_equal_peers_with_different_optimizers_are_accepted(train: Train) -> None:
    result = train(COHORT, f'method.peers=[{{"seed":5}},{{"seed":5,"optimizer":{OTHER}}}]')
    assert len(set(result.weights_sha256.split("-"))) == 2


def test_the_mean_of_probabilities_teaches_what_the_peers_teach_on_average(train: Train) -> None:
    """Equations 8 and 9 have the same gradient up to rounding; a mean of logits or a sum has another."""

    def weights(*words: str) -> torch.Tensor:
        states = engine.load(train(*THREE, *words).run_dir).checkpoint.states
        return torch.cat([state.tensors[name].flatten() for state in states.values() for name in sorted(state.tensors)])

    plain = weights()
    torch.testing.assert_close(weights("method.target=mean_probabilities"), plain, rtol=1e-3, atol=1e-5)
    for word in ("method.target=mean_logits", "method.reduction=sum"):
        assert (weights(word) - plain).abs().max() > 1e-3


def test_a_restated_prediction_is_that_of_the_same_forward_and_leaves_no_trace() -> None:
    """With dropout and batch norm in body and head, at each depth, as long as the weights are the same."""
    inside = ("method.peer_method.kind=dgl", "method.peer_method.num_segments=2", "method.local_weight=1")
    recipe = _recipe(COHORT, "method.schedule=sequential", *inside, *DROPOUT, "data.augmentation.crop_padding=1")
    source = open_source(recipe.data, recipe.seed)
    method = method_of(recipe)
    batch, messages = source.batch(0, 0), {}
    for name in ("peer0_segment0", "peer0_segment1"):
        learner = method.build_learner(recipe, source.facts, 4, name, torch.device("cpu"))
        assert isinstance(learner, Learner)
        assert any(isinstance(module, torch.nn.Dropout) for module in learner.body.modules())
        given = learner.forward(batch, messages)
        once = learner.ask_state().tensors
        (restated,) = learner.call("restate", batch, messages)
        assert restated.equal(given[-1])
        assert all(value.equal(once[key]) for key, value in learner.ask_state().tensors.items())
        (other,) = learner.call("restate", dataclasses.replace(batch, step=1), messages)
        assert not other.equal(given[-1])
        messages = {"features": given[0]}
    source.close()


def test_batches_without_any_label_teach_by_mimicry_alone(train: Train, tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("123\n")
    words = ("data.train_limit=null", "data.batch_size=128", f"data.labelled_indices={tmp_path / 'one.txt'}")
    result = train(*THREE, *words)
    assert result.diverged == {}
    for state in engine.load(result.run_dir).checkpoint.states.values():
        assert all(bool(value.isfinite().all()) for value in state.tensors.values())
    losses = [record for record in engine.load(result.run_dir).metrics() if record.name.startswith("loss/")]
    assert {record.name for record in losses} == {"loss/cross_entropy", "loss/mimicry", "loss/total"}
    assert all(np.isfinite(record.value) for record in losses)


def test_no_label_of_an_unlabelled_image_is_ever_used(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labelled = np.arange(0, 500, 7)
    (tmp_path / "some.txt").write_text("".join(f"{index}\n" for index in labelled))
    words = ("data.train_limit=null", "data.batch_size=128", f"data.labelled_indices={tmp_path / 'some.txt'}")
    arms = ((*THREE, *words), (*THREE, *words[:2]))
    honest = [train(*arm) for arm in arms]

    def poisoned(*arguments: Any) -> Opened:
        opened = open_images(*arguments)
        images = copy.copy(opened.images["train"])
        images.labels = (images.labels + 1) % 10
        images.labels[labelled] = opened.images["train"].labels[labelled]
        return dataclasses.replace(opened, images={**opened.images, "train": images})

    monkeypatch.setattr("engine.data.batches.open_images", poisoned)
    plan = engine.Plan(executor="process")
    some, every = (engine.train(_recipe(*arm), plan, tmp_path / str(place)) for place, arm in enumerate(arms))
    assert some.weights_sha256 == honest[0].weights_sha256
    assert some.metrics == honest[0].metrics
    # Where all images are labelled, the same poison is tasted.
    assert every.weights_sha256 != honest[1].weights_sha256
