"""Do networks that learn to classify identities find others by their features, and are these written and exported?"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import safetensors
import torch
from PIL import Image

import engine
from engine.data import open_source
from engine.data.appearances import FURTHER, GALLERY, QUERY, Appearances, packed
from engine.errors import RecipeError, RunError
from engine.methods import method_of
from engine.methods.pretrained import open_pretrained
from engine.recipes import (
    DML,
    Backbone,
    Classification,
    Distillation,
    EndToEnd,
    InfoPro,
    OwnTask,
    Peer,
    Retrieval,
    load_recipe,
)
from engine.tasks import Ranking, rankings, task_of
from engine.tasks.retrieval_score import RetrievalScore
from engine.training import export_network
from tests.tasks.small_market import market, recipe_for

IN_PROCESS = engine.Plan(executor="process")
MEANS = {
    *("mean_average_precision", "mean_average_precision_trapezoid", "mean_inverse_negative_penalty"),
    *("rank1", "rank5", "rank10"),
}
SCORES = {*MEANS, "queries", "queries_without_match", "images"}

NETWORKS = ("peer0", "peer1", "ensemble")


@pytest.mark.parametrize(
    "name",
    [
        "dml_omniglot_tiny",
        pytest.param("infopro_omniglot_tiny", marks=pytest.mark.slow),
        pytest.param("dhm_omniglot_tiny", marks=pytest.mark.slow),
        "end_to_end_market1501_resnet50_tiny",
        pytest.param("dml_market1501_mobilenet_tiny", marks=pytest.mark.slow),
    ],
)
def test_shipped_recipes_train_and_are_scored_by_their_features(name: str, tmp_path: Path) -> None:
    result = engine.train(load_recipe(name), IN_PROCESS, tmp_path / "run")
    peers = ("peer0/", "peer1/", "ensemble/") if name.startswith("dml") else ("",)
    assert set(result.metrics) == {f"{peer}test/{score}" for peer in peers for score in SCORES}
    assert result.headline == "mean_average_precision"
    assert 0.0 < result.test_score <= 1.0
    assert engine.evaluate(engine.load(result.run_dir)) == result.metrics


def test_what_is_scored_enters_the_classifier(tmp_path: Path) -> None:
    recipe = recipe_for(market(tmp_path / "people"), EndToEnd(), epochs=1)
    result = engine.train(recipe, IN_PROCESS, tmp_path / "run")
    network = engine.load(result.run_dir).network()
    source = open_source(recipe.data, recipe.seed)
    mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in (source.facts.mean, source.facts.std))
    score = RetrievalScore()
    with torch.no_grad():
        for batch in source.evaluation_batches("test"):
            features = (torch.from_numpy(batch.images).float().div(255) - mean) / std
            for block in network[:-1]:
                features = block(features)
            score.update(features.mean(dim=(2, 3)), torch.from_numpy(batch.labels))
    expected = {f"test/{name}": value for name, value in score.result().items()}
    assert result.metrics == pytest.approx(expected)
    assert (result.metrics["test/queries"], result.metrics["test/images"]) == (8, 25)


def test_a_teacher_with_other_losses_of_the_task_teaches_and_an_extractor_does_not(tmp_path: Path) -> None:
    task = Retrieval(label_smoothing=0.1)
    lone = recipe_for(market(tmp_path / "people"), EndToEnd(), epochs=1, task=task)
    teacher = engine.load(engine.train(lone, IN_PROCESS, tmp_path / "teacher").run_dir)
    task, method = Retrieval(triplet_weight=0.5), Distillation(teacher=str(teacher.path))
    recipe = dataclasses.replace(lone, task=task, seed=1, method=method)
    result = engine.train(recipe, IN_PROCESS, tmp_path / "student")
    assert result.headline == "mean_average_precision"
    records = [each for each in engine.load(result.run_dir).metrics() if each.split == "train"]
    losses = [each.value for each in records if each.name == "loss/mimicry"]
    assert losses and all(loss > 0 for loss in losses)
    assert {each.learner for each in records if each.name == "loss/triplet"} == {"student"}
    classes = dataclasses.replace(recipe, task=Classification())
    words = r"was trained for task\.kind=retrieval, but the task here is task\.kind=classification; give a teacher"
    with pytest.raises(RecipeError, match=words):
        open_pretrained(classes, teacher.facts)
    export_network(teacher, tmp_path / "features.safetensors")
    given = dataclasses.replace(recipe, method=Distillation(teacher=str(tmp_path / "features.safetensors")))
    words = r"^method\.teacher=.*features\.safetensors: holds a network without its classifier.* give .*run folder"
    with pytest.raises(RecipeError, match=words):
        engine.train(given, IN_PROCESS, tmp_path / "other")


def test_evaluation_messages_have_the_size_of_features(tmp_path: Path) -> None:
    method = DML(peers=(Peer(), Peer(backbone=Backbone(name="resnet8", widths=(4, 8, 12)))), peer_method=InfoPro())
    recipe = recipe_for(market(tmp_path / "people"), method)
    source = open_source(recipe.data, recipe.seed)
    messages = method_of(recipe).team(recipe, source.facts).evaluation.messages
    shapes = {name: message.parts[0][0] for name, message in messages.items() if name.endswith("_predictions")}
    assert sorted(shapes.values()) == [(7, 8), (7, 12)]


def test_classes_of_any_set_can_be_looked_for_and_unknown_identities_not_classified(tmp_path: Path) -> None:
    digits = load_recipe("end_to_end_digits")
    facts = open_source(digits.data, 0).facts
    assert isinstance(task_of(dataclasses.replace(digits, task=Retrieval()), facts).score(), RetrievalScore)
    people = recipe_for(market(tmp_path / "people"), EndToEnd())
    recipe, _ = engine.apply_overrides(people, IN_PROCESS, ["task.kind=classification"])
    with pytest.raises(RecipeError, match=r"market1501, which has other identities .* set task.kind=retrieval"):
        engine.train(recipe, IN_PROCESS, tmp_path / "run")
    assert OwnTask().learned_as == OwnTask().kind


def test_a_network_without_a_linear_layer_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "network.py"
    file.write_text(
        "from torch import nn\n"
        "def network(num_classes, image_shape):\n"
        "    last = nn.Sequential(nn.Conv2d(4, num_classes, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())\n"
        "    return nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), last)\n"
    )
    recipe = recipe_for(market(tmp_path / "people"), EndToEnd(), backbone=Backbone(name=f"{file}:network"))
    with pytest.raises(RecipeError, match="has no linear layer, but task.kind=retrieval compares the features"):
        engine.train(recipe, IN_PROCESS, tmp_path / "run")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> engine.Run:
    folder = tmp_path_factory.mktemp("cohort")
    recipe = recipe_for(market(folder / "people", boxes=True), DML(), epochs=1)
    return engine.load(engine.train(recipe, IN_PROCESS, folder / "run").run_dir)


def test_features_are_written_and_score_what_was_scored(run: engine.Run, tmp_path: Path) -> None:
    metrics = engine.evaluate(run, save_features=tmp_path / "features.parquet")
    rows = pyarrow.parquet.read_table(tmp_path / "features.parquet").to_pylist()
    # Two boxes for each of 8 queries.
    assert len(rows) == 2 * (25 + 16)
    own = [row for row in rows if row["network"] == "peer1"]
    assert [row["position"] for row in own] == list(range(41))
    assert {row["role"] for row in own} == {"query", "gallery", "further"}
    assert (own[0]["split"], own[0]["identity"], own[0]["camera"]) == ("test", 2, 1)
    roles = {"query": QUERY, "gallery": GALLERY, "further": FURTHER}
    known = Appearances(
        np.array([row["identity"] for row in own]),
        np.array([row["camera"] for row in own]),
        np.array([roles[row["role"]] for row in own]),
    )
    score = RetrievalScore()
    score.update(torch.tensor([row["features"] for row in own]), torch.from_numpy(packed(known)))
    found = {f"peer1/test/{name}": value for name, value in score.result().items() if not name.startswith("multi")}
    assert found.items() <= metrics.items()
    # What is averaged has its length, which the file has not.
    multi_query = {name for name in metrics if "/multi_query_" in name}
    assert multi_query == {f"{name}/test/multi_query_{each}" for name in NETWORKS for each in MEANS}
    assert all(0.0 < metrics[name] <= 1.0 for name in multi_query if "rank" not in name)


def test_what_is_found_is_drawn(run: engine.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ranked: list[int] = []

    def counting(*given: Any, **named: Any) -> Iterator[Ranking]:
        for ranking in rankings(*given, **named):
            ranked.append(ranking.query)
            yield ranking

    monkeypatch.setattr("engine.training.features.rankings", counting)
    engine.evaluate(run, draw_queries=tmp_path / "found.png")
    # Of 8 queries, those that are shown.
    assert len(set(ranked)) == len(ranked) == 6
    with Image.open(tmp_path / "found.png") as picture:
        colours = {
            (round(r, -1), round(g, -1), round(b, -1)) for r, g, b in picture.convert("RGB").get_flattened_data()
        }
    # Frames of right and wrong pictures.
    assert {(0, 110, 180), (180, 0, 30)} <= colours


def test_what_cannot_be_written_is_refused_first(run: engine.Run, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"--save-features=.*a.csv: ends with '.csv'; give a name with .parquet"):
        engine.evaluate(run, save_features=tmp_path / "a.csv")
    with pytest.raises(RunError, match=r"--draw-queries=.*: there is no folder .*nowhere; make it first"):
        engine.evaluate(run, draw_queries=tmp_path / "nowhere" / "a.png")
    digits, _ = engine.apply_overrides(load_recipe("end_to_end_digits"), IN_PROCESS, ["data.train_limit=100"])
    digits = dataclasses.replace(digits, epochs=1)
    classified = engine.load(engine.train(digits, IN_PROCESS, tmp_path / "run", until_step=1).run_dir)
    with pytest.raises(RunError, match="task.kind=classification compares no features"):
        engine.evaluate(classified, save_features=tmp_path / "a.parquet")


@pytest.mark.parametrize("suffix", ["safetensors", pytest.param("onnx", marks=pytest.mark.slow)])
def test_the_network_is_exported_without_its_classifier(suffix: str, run: engine.Run, tmp_path: Path) -> None:
    if suffix == "onnx":
        pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    target = tmp_path / f"extractor.{suffix}"
    report = export_network(run, target, "peer0")
    whole = run.network("peer0").state_dict()
    assert report["tensors"] == len(whole) - 2
    if suffix == "safetensors":
        assert report["max_difference"] == 0
        with safetensors.safe_open(target, "pt") as file:
            names = list(file.keys())
            assert not [name for name in names if name.startswith("fc.")]
            assert file.metadata()["output"].startswith("features, float32 [B, D]")


@pytest.mark.parametrize("suffix", ["safetensors", pytest.param("onnx", marks=pytest.mark.slow)])
def test_a_network_with_a_neck_is_scored_and_exported_behind_it(suffix: str, tmp_path: Path) -> None:
    if suffix == "onnx":
        pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    necked = Backbone(name="resnet8", widths=(4, 8, 8), neck="batch_norm")
    recipe = recipe_for(market(tmp_path / "people"), EndToEnd(), epochs=1, backbone=necked)
    run = engine.load(engine.train(recipe, IN_PROCESS, tmp_path / "run").run_dir)
    report = export_network(run, tmp_path / f"extractor.{suffix}")
    assert report["tensors"] == len(run.network().state_dict()) - 1
    source = open_source(recipe.data, recipe.seed)
    images = torch.from_numpy(next(iter(source.evaluation_batches("test"))).images[:4]).float().div(255)
    mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in (source.facts.mean, source.facts.std))
    engine.evaluate(run, save_features=tmp_path / "features.parquet")
    rows = pyarrow.parquet.read_table(tmp_path / "features.parquet").to_pylist()
    *body, last = run.network()
    with torch.no_grad():
        features = torch.nn.Sequential(*body, last.pool, last.flatten, last.neck)((images - mean) / std)
    expected = torch.nn.functional.normalize(features)
    torch.testing.assert_close(torch.tensor([row["features"] for row in rows[:4]]), expected)
