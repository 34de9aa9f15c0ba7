"""Are label maps evaluated at several scales and mirrored as a loop does, and are such trainings told apart?"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import engine
from engine.cli.main import main
from engine.errors import RecipeError, RunError
from engine.recipes import EndToEnd, Greedy, Segmentation
from engine.tasks import ConfusionMatrix
from engine.training.folder import default_folder
from tests.tasks.label_map_recipes import recipe_of

pytestmark = pytest.mark.usefixtures("own_cache")

LabelMapSet = Callable[..., Path]


def test_scales_and_flip_average_probabilities_as_a_loop_does(label_map_set: LabelMapSet, tmp_path: Path) -> None:
    root = label_map_set(tmp_path / "set", {"train": 14, "val": 5})
    result = engine.train(recipe_of(root, Greedy(), epochs=3), engine.Plan(executor="process"), tmp_path / "run")
    run = engine.load(result.run_dir)
    network = run.network().eval()
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (run.facts.mean, run.facts.std))

    def by_hand(scales: tuple[float, ...], mirrors: tuple[bool, ...]) -> float:
        counts = np.zeros((3, 3))
        for path in sorted((root / "images/val").glob("*.png")):
            labels = np.asarray(Image.open(root / "labels/val" / path.name))
            total = torch.zeros(1, 3, *labels.shape)
            for scale in scales:
                picture = Image.open(path)
                picture = picture.resize((round(picture.width * scale), round(picture.height * scale)), 2)
                pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None] / 255
                for mirror in mirrors:
                    with torch.no_grad():
                        shown = (pixels.flip(3) if mirror else pixels).contiguous()
                        found = F.interpolate(network((shown - mean) / std), labels.shape, mode="bilinear").softmax(1)
                    total += found.flip(3) if mirror else found
            known = labels != 255
            np.add.at(counts, (labels[known], total.argmax(1)[0].numpy()[known]), 1)
        return float(np.mean(counts.diagonal() / (counts.sum(0) + counts.sum(1) - counts.diagonal())))

    assert engine.evaluate(run)["test/mean_iou"] == pytest.approx(by_hand((1.0,), (False,)), abs=2e-3)
    found = {}
    for scales, flip in (((0.5, 1.0, 1.75), False), ((1.0,), True), ((0.5, 1.5), True)):
        words = [f"task.evaluation_scales={list(scales)}", f"task.evaluation_flip={str(flip).lower()}"]
        scores = engine.evaluate(run, changes=words)
        assert scores["test/images"] == 5
        found[scales, flip] = scores["test/mean_iou"]
        # A tie of two classes may fall either way.
        assert scores["test/mean_iou"] == pytest.approx(by_hand(scales, (False, True) if flip else (False,)), abs=2e-3)
    assert len({*found.values(), result.metrics["test/mean_iou"]}) == 4
    with pytest.raises(
        RecipeError, match=r"task\.final_mean=all: an evaluation takes only fields that have no influence"
    ):
        engine.evaluate(run, changes=["task.final_mean=all"])


def test_what_is_drawn_is_what_is_scored(
    label_map_set: LabelMapSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # As many test images as a picture holds.
    root = label_map_set(tmp_path / "set", {"train": 8, "val": 4})
    run = engine.train(recipe_of(root, EndToEnd(), epochs=2), engine.Plan(executor="process"), tmp_path / "run").run_dir
    drawn: list[tuple[list[np.ndarray], dict[str, list[np.ndarray]]]] = []
    monkeypatch.setattr("engine.training.predicted_maps.draw_label_maps", lambda *given: drawn.append(given[2:4]))
    scores = []
    for words in ([], ["task.evaluation_scales=0.5,1.75", "task.evaluation_flip=true"]):
        assert main(["evaluate", str(run), *words, "--draw-maps", str(tmp_path / "maps.png")]) == 0
        labels, predicted = drawn[-1]
        matrix = ConfusionMatrix(("sky", "road", "car"))
        for found, known in zip(predicted["network"], labels, strict=True):
            matrix.update(torch.from_numpy(found)[None].long(), torch.from_numpy(known)[None])
        scores.append(engine.evaluate(engine.load(run), changes=words)["test/mean_iou"])
        # A tie of two classes may fall either way.
        assert matrix.result()["mean_iou"] == pytest.approx(scores[-1], abs=2e-3)
    assert abs(scores[0] - scores[1]) > 1e-2
    # Before anything is drawn.
    words = ["task.final_mean=all", "--draw-maps", str(tmp_path / "maps.png")]
    assert main(["evaluate", str(run), *words]) == 2
    assert "task.final_mean=all: an evaluation takes only fields" in capsys.readouterr().err
    assert len(drawn) == 2


def test_a_training_that_is_scored_in_another_way_is_another_run(label_map_set: LabelMapSet, tmp_path: Path) -> None:
    root = label_map_set(tmp_path / "set", {"train": 14, "val": 5})
    plan = engine.Plan(executor="process")
    recipe = recipe_of(root, EndToEnd(), epochs=1)
    scaled = dataclasses.replace(recipe, task=Segmentation(evaluation_scales=(0.5, 2.0), evaluation_flip=True))
    once = engine.train(recipe, plan, tmp_path / "once")
    words = (
        r"another recipe \(task.evaluation_scales was .* task.evaluation_flip was False and is now True\); give another"
    )
    with pytest.raises(RunError, match=words):
        engine.train(scaled, plan, tmp_path / "once")
    assert default_folder(scaled) != default_folder(recipe)
    other = engine.train(scaled, plan, tmp_path / "other")
    assert other.weights_sha256 == once.weights_sha256
    assert other.metrics["test/mean_iou"] != once.metrics["test/mean_iou"]
    changes = ["task.evaluation_scales=0.5,2", "task.evaluation_flip=true"]
    assert engine.evaluate(engine.load(once.run_dir), changes=changes) == other.metrics
    again = engine.evaluate(
        engine.load(other.run_dir), changes=["task.evaluation_scales=1", "task.evaluation_flip=false"]
    )
    assert again == once.metrics
