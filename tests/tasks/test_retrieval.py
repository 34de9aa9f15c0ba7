"""Do networks that learn to classify identities find others by their features, with every way to train and to run?"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import engine
from engine.data import open_source
from engine.errors import RecipeError
from engine.methods import method_of
from engine.recipes import DML, Backbone, Data, EndToEnd, InfoPro, OwnTask, Peer, Recipe, Retrieval, load_recipe
from engine.tasks import task_of
from engine.tasks.retrieval_score import RetrievalScore

RAY_CPUS = 2

IN_PROCESS = engine.Plan(executor="process")
SCORES = {
    "mean_average_precision",
    "mean_average_precision_trapezoid",
    "mean_inverse_negative_penalty",
    *("rank1", "rank5", "rank10", "queries", "queries_without_match", "images"),
}


def market(root: Path, identities: int = 8) -> Path:
    """Write pictures whose identity is a colour, and whose camera is a shade of grey below."""
    random = np.random.default_rng(0)

    def draw(folder: str, identity: int, camera: int, frame: int) -> None:
        picture = random.integers(0, 30, (16, 8, 3), dtype=np.uint8)
        picture[:8] += np.array([identity * 53 % 200, identity * 97 % 200, identity * 151 % 200], dtype=np.uint8)
        picture[8:] += np.uint8(30 * camera)
        (root / folder).mkdir(parents=True, exist_ok=True)
        name = f"{identity:04d}_c{camera}s1_{frame:06d}_00.jpg"
        Image.fromarray(picture).save(root / folder / name, quality=95)

    for identity in range(1, identities + 1):
        for camera in (1, 2, 3):
            for frame in range(2):
                if identity % 2:
                    draw("bounding_box_train", identity, camera, frame)
                else:
                    draw("query" if frame == 0 and camera < 3 else "bounding_box_test", identity, camera, frame)
    draw("bounding_box_test", 0, 1, 9)
    return root


def recipe_for(root: Path, method: Any, **changes: Any) -> Recipe:
    recipe = Recipe(
        name="people",
        method=method,
        backbone=Backbone(name="resnet8", widths=(4, 8, 8)),
        data=Data(name="market1501", root=str(root), batch_size=10, evaluation_batch_size=7, image_size=(16, 8)),
        task=Retrieval(),
        epochs=2,
    )
    return dataclasses.replace(recipe, **changes)


@pytest.mark.parametrize(
    "name",
    [
        "dml_omniglot_tiny",
        pytest.param("infopro_omniglot_tiny", marks=pytest.mark.slow),
        pytest.param("dhm_omniglot_tiny", marks=pytest.mark.slow),
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


@pytest.mark.slow
def test_in_process_on_ray_and_resumed_are_equal(tmp_path: Path, local_ray: None) -> None:
    """Two peers of two segments each: every message that retrieval has, in one team."""
    recipe = recipe_for(market(tmp_path / "people"), DML(peer_method=InfoPro()))
    alone = engine.train(recipe, IN_PROCESS, tmp_path / "process")
    on_ray = engine.train(recipe, engine.Plan(executor="ray"), tmp_path / "ray")
    engine.train(recipe, IN_PROCESS, tmp_path / "resumed", until_step=4)
    resumed = engine.train(recipe, IN_PROCESS, tmp_path / "resumed")
    assert alone.weights_sha256 == on_ray.weights_sha256 == resumed.weights_sha256
    assert alone.metrics == on_ray.metrics == resumed.metrics
    assert "ensemble/test/mean_average_precision" in alone.metrics
