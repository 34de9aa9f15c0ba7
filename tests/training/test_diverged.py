"""Does a peer whose loss is not finite leave its cohort, so that the others finish as if it had never come back?"""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from pydantic import TypeAdapter
from torch import Tensor

import engine
from engine import backbones
from engine.data import open_source
from engine.methods import weights_sha256
from engine.recipes import DML, Augmentation, Recipe
from engine.tracking import read_metrics
from engine.training import evaluate
from engine.training.diverged import DivergedLearners

RAY_CPUS = 2

Make = Callable[..., Recipe]
Interrupt = Callable[[int], None]
Executor = Literal["process", "ray"]

# Its weights are finite after the first step, and its loss in the second is not.
WILD: dict[str, Any] = {"optimizer": {"kind": "sgd", "learning_rate": 1e30}}
GRID: dict[str, Any] = {"peer_method": {"kind": "greedy", "num_segments": 2}, "local_weight": 0.5}
STALE: dict[str, Any] = {"schedule": "codistillation", "exchange": "weights"}
# 8 steps, 4 in an epoch: reports after steps 3, 4, 6 and 8.
IN_PROCESS = engine.Plan(executor="process", report_every_steps=3)
REASON = r"loss term '\w+' is (nan|inf) in epoch 1, step 2 \(batch of 12 images, indices \d+, .*"


@pytest.fixture
def make(tiny_recipe: Make) -> Make:
    """A function: peers and other fields of the method, which it makes a small recipe of."""

    def make(*peers: dict[str, Any], **fields: Any) -> Recipe:
        method: Any = TypeAdapter(DML).validate_python({"kind": "dml", "peers": peers, **fields})
        backbone = engine.Backbone(name="resnet8", widths=(4, 4, 4))
        return tiny_recipe(method=method, backbone=backbone)

    return make


def contents(result: engine.Result) -> tuple[dict[str, Tensor], str]:
    """Return all tensors of a run, and all else that follows from its recipe as text, in which NaN equals NaN."""
    checkpoint = engine.load(result.run_dir).checkpoint
    states = checkpoint.states
    tensors = {f"{learner} {name}": value for learner in states for name, value in states[learner].tensors.items()}
    extra = {learner: state.extra for learner, state in states.items()}
    rest = [checkpoint.step, checkpoint.values, extra, result.metrics, result.diverged, result.weights_sha256]
    return tensors, json.dumps(rest, sort_keys=True)


def assert_same(one: engine.Result, other: engine.Result) -> None:
    (tensors, rest), (other_tensors, other_rest) = contents(one), contents(other)
    assert rest == other_rest
    assert tensors.keys() == other_tensors.keys()
    for name, value in tensors.items():
        assert torch.equal(value.nan_to_num(nan=1e20), other_tensors[name].nan_to_num(nan=1e20)), name


@pytest.mark.parametrize(
    ("peers", "fields"),
    [
        (({}, WILD), {}),
        ((WILD, {}), {"feature_weight": 0.1}),
        (({}, WILD, {}), {"target": "mean_probabilities"}),
        ((WILD, {}, {}), {"schedule": "sequential"}),
        (({}, {}, WILD), {"schedule": "codistillation", "exchange_interval": 3}),
        (({}, WILD), {**STALE, "exchange_interval": 2}),
    ],
    ids=["two", "features", "three", "sequential", "predictions", "weights"],
)
def test_the_others_finish(
    peers: tuple[dict[str, Any], ...], fields: dict[str, Any], tmp_path: Path, make: Make
) -> None:
    gone = f"peer{peers.index(WILD)}"
    others = [f"peer{place}" for place in range(len(peers)) if f"peer{place}" != gone]
    result = engine.train(make(*peers, **fields), IN_PROCESS, tmp_path)
    assert (result.status, result.steps) == ("finished", 8)

    assert list(result.diverged) == [gone]
    reason = result.diverged[gone]
    assert re.fullmatch(REASON, reason)
    assert json.loads((tmp_path / "summary.json").read_text())["diverged"] == {gone: reason}
    assert (tmp_path / "log.txt").read_text().count(f"{gone} has left the cohort: {reason}") == 1

    states = engine.load(tmp_path).checkpoint.states
    assert {name: state.extra["steps"] for name, state in states.items()} == {gone: 1, **dict.fromkeys(others, 8)}
    for name in others:
        own = {key: value for key, value in states[name].tensors.items() if not key.startswith("frozen.")}
        assert all(bool(value.isfinite().all()) for value in own.values()), name
    trained = [record for record in read_metrics(tmp_path) if record.split == "train"]
    assert {record.step for record in trained if record.learner == gone} == {3}
    for name in others:
        losses = [record for record in trained if record.learner == name and record.name.startswith("loss/")]
        assert {record.step for record in losses} == {3, 4, 6, 8}
        assert all(math.isfinite(record.value) for record in losses)

    together = {name: value for name, value in result.metrics.items() if name.startswith("ensemble/")}
    assert all(math.isfinite(value) for value in together.values())
    if len(others) == 1:
        scores = ("accuracy", "top5_accuracy", "loss", "expected_calibration_error", "images")
        alone = {f"ensemble/test/{name}": result.metrics[f"{others[0]}/test/{name}"] for name in scores}
        assert together == pytest.approx(alone)
    accuracies = [result.metrics[f"{name}/test/accuracy"] for name in others]
    assert result.test_score == statistics.fmean(accuracies)
    assert json.dumps(evaluate(engine.load(tmp_path)), sort_keys=True) == json.dumps(result.metrics, sort_keys=True)


@pytest.mark.parametrize("fields", [{}, STALE], ids=["predictions", "weights"])
@pytest.mark.parametrize("peers", [({}, WILD), ({}, WILD, {})], ids=["labels_alone", "the_other_peer"])
def test_from_then_on_they_learn_from_what_is_left(
    peers: tuple[dict[str, Any], ...], fields: dict[str, Any], tmp_path: Path, make: Make, tiny_recipe: Make
) -> None:
    """A loop by hand: in the first step all teach, later those that are left, which may be nobody."""
    recipe = make(*peers, **fields)
    recipe = tiny_recipe(method=recipe.method, backbone=recipe.backbone, data={"augmentation": Augmentation()})
    result = engine.train(recipe, IN_PROCESS, tmp_path)

    networks = [backbones.build(recipe.backbone, 10, (1, 8, 8), recipe.seed, place) for place in range(len(peers))]
    staying = [place for place, peer in enumerate(peers) if peer is not WILD]
    optimizers = {
        place: torch.optim.SGD(
            networks[place].parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-4, fused=True
        )
        for place in staying
    }
    source = open_source(recipe.data, recipe.seed)
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (source.facts.mean, source.facts.std))
    for step in range(8):
        batch = source.batch(*divmod(step, 4))
        images, labels = (torch.from_numpy(batch.images).float() / 255 - mean) / std, torch.from_numpy(batch.labels)
        present = range(len(peers)) if step == 0 else staying
        logits = {place: networks[place](images) for place in present}
        for place in staying:
            loss = F.cross_entropy(logits[place], labels)
            student = F.log_softmax(logits[place], dim=1)
            each = [
                F.kl_div(student, F.log_softmax(own.detach(), dim=1), log_target=True, reduction="batchmean")
                for other, own in logits.items()
                if other != place
            ]
            if each:
                loss = loss + torch.stack(each).sum() / len(each)
            optimizers[place].zero_grad()
            loss.backward()
            optimizers[place].step()
    source.close()
    for place in staying:
        assert weights_sha256(networks[place].state_dict()) == result.weights_sha256.split("-")[place]


def test_in_a_grid_the_segments_after_it_leave_too(tmp_path: Path, make: Make) -> None:
    result = engine.train(make({}, WILD, **GRID), IN_PROCESS, tmp_path)
    assert result.status == "finished"
    first, second = result.diverged["peer1_segment0"], result.diverged["peer1_segment1"]
    assert set(result.diverged) == {"peer1_segment0", "peer1_segment1"}
    assert "is nan in epoch 1, step 2" in first or "is inf in epoch 1, step 2" in first
    assert second.startswith("the features that it takes are not finite in epoch 1, step ")
    states = engine.load(tmp_path).checkpoint.states
    for name in ("peer0_segment0", "peer0_segment1"):
        assert states[name].extra["steps"] == 8
        assert all(bool(value.isfinite().all()) for value in states[name].tensors.values())
    assert math.isfinite(result.metrics["ensemble/test/loss"])
    assert result.metrics["ensemble/test/loss"] == pytest.approx(result.metrics["peer0/test/loss"])


def test_the_run_stops_where_the_recipe_says_so(tmp_path: Path, make: Make) -> None:
    for peers in (({}, WILD), (WILD,)):
        with pytest.raises(engine.LearnerError, match=f"learner peer{len(peers) - 1}: loss term") as caught:
            engine.train(make(*peers, on_divergence="stop"), IN_PROCESS, tmp_path / str(len(peers)))
        assert caught.value.learner == f"peer{len(peers) - 1}"


def test_a_peer_without_others_stops_the_run(tmp_path: Path, make: Make) -> None:
    with pytest.raises(engine.LearnerError, match="learner peer0: loss term"):
        engine.train(make(WILD), IN_PROCESS, tmp_path)


@pytest.mark.parametrize("fields", [{}, GRID], ids=["whole", "cut"])
def test_a_cohort_of_which_nobody_is_left_stops_the_run(fields: dict[str, Any], tmp_path: Path, make: Make) -> None:
    for _ in range(2):
        # The second time it goes on from a checkpoint in which all have left.
        with pytest.raises(engine.LearnerError, match="every peer has left the cohort"):
            engine.train(make(WILD, WILD, **fields), IN_PROCESS, tmp_path)
    assert "has left the cohort: loss term" in (tmp_path / "log.txt").read_text()
    assert not (tmp_path / "summary.json").exists()


@pytest.mark.parametrize(
    ("peers", "fields", "stops"),
    [
        # In the step in which it leaves, which no report has told of, and later.
        (({}, WILD), {}, (2, 5)),
        (({}, WILD, {}), {**STALE, "exchange_interval": 3}, (4, 7)),
        ((WILD, {}), GRID, (1, 3)),
    ],
    ids=["two", "weights", "grid"],
)
def test_an_interrupted_run_equals_the_straight_run(
    peers: tuple[dict[str, Any], ...],
    fields: dict[str, Any],
    stops: tuple[int, ...],
    tmp_path: Path,
    make: Make,
    interrupt_at: Interrupt,
) -> None:
    recipe = make(*peers, **fields)
    straight = engine.train(recipe, IN_PROCESS, tmp_path / "straight")
    for stop in stops:
        interrupt_at(stop)
        result = engine.train(recipe, IN_PROCESS, tmp_path / "stopped")
        assert (result.status, result.steps) == ("interrupted", stop)
    interrupt_at(0)
    assert_same(straight, engine.train(recipe, IN_PROCESS, tmp_path / "stopped"))


def test_every_summary_names_who_has_diverged(tmp_path: Path, make: Make, interrupt_at: Interrupt) -> None:
    interrupt_at(2)
    stopped = engine.train(make({}, WILD), IN_PROCESS, tmp_path)
    assert list(stopped.diverged) == ["peer1"]
    interrupt_at(0)
    finished = engine.train(make({}, WILD), IN_PROCESS, tmp_path)
    (tmp_path / "summary.json").unlink()
    concluded = engine.train(make({}, WILD), IN_PROCESS, tmp_path)
    assert stopped.diverged == finished.diverged == concluded.diverged
    assert finished.test_score == concluded.test_score == finished.metrics["peer0/test/accuracy"]


def test_one_that_returns_as_it_was_before_is_forgotten() -> None:
    said: list[str] = []
    networks: Any = [SimpleNamespace(learners=("peer0",)), SimpleNamespace(learners=("peer1",))]
    diverged = DivergedLearners(networks, said.append)
    diverged.note({"peer0": None, "peer1": "its loss is nan"})
    # It is away, and answers nothing.
    diverged.note({"peer0": None})
    assert diverged.reasons == {"peer1": "its loss is nan"}
    diverged.note({"peer0": None, "peer1": None})
    assert diverged.reasons == {}
    diverged.note({"peer0": "its loss is inf", "peer1": None})
    assert diverged.reasons == {"peer0": "its loss is inf"}
    assert said == ["peer1 has left the cohort: its loss is nan", "peer0 has left the cohort: its loss is inf"]


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize(
    ("peers", "fields"),
    [(({}, WILD, {}), {"schedule": "sequential"}), (({}, WILD), STALE), (({}, WILD), GRID)],
    ids=["sequential", "weights", "grid"],
)
def test_on_ray_the_same_leave(
    peers: tuple[dict[str, Any], ...], fields: dict[str, Any], tmp_path: Path, make: Make
) -> None:
    results = []
    executors: tuple[Executor, ...] = ("process", "ray")
    for executor in executors:
        plan = engine.Plan(executor=executor, report_every_steps=3)
        results.append(engine.train(make(*peers, **fields), plan, tmp_path / executor))
    assert results[0].diverged
    assert_same(*results)


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("on_divergence", ["leave", "stop"])
def test_on_ray_the_same_is_said(on_divergence: str, tmp_path: Path, make: Make) -> None:
    peers = ({}, WILD) if on_divergence == "stop" else (WILD, WILD)
    said = []
    executors: tuple[Executor, ...] = ("process", "ray")
    for executor in executors:
        with pytest.raises(engine.LearnerError) as caught:
            engine.train(make(*peers, on_divergence=on_divergence), engine.Plan(executor=executor), tmp_path / executor)
        said.append(str(caught.value))
    assert said[0] == said[1]
