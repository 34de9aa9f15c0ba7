"""Does a network learn label maps in segments, alone, among peers and from a teacher, the same everywhere?"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import engine
from engine.cli.main import main
from engine.data import open_source
from engine.errors import RecipeError
from engine.methods import method_of
from engine.recipes import (
    CSKD,
    DGL,
    DHM,
    DML,
    ST,
    Augmentation,
    Backbone,
    Classification,
    Data,
    Distillation,
    EndToEnd,
    Greedy,
    InfoPro,
    Peer,
    PredSim,
    Recipe,
    Segmentation,
)
from engine.tasks import task_of
from engine.tracking.label_map_pictures import palette_of
from engine.training import draw_predictions, export_network
from tests.tasks.label_map_recipes import TINY, recipe_of

pytestmark = pytest.mark.usefixtures("own_cache")

LabelMapSet = Callable[..., Path]


@pytest.mark.parametrize("method", [EndToEnd(), Greedy(), DGL(), InfoPro()], ids=lambda method: method.kind)
def test_segments_learn_label_maps(method: Any, label_map_set: LabelMapSet, tmp_path: Path) -> None:
    root = label_map_set(tmp_path / "set", {"train": 14, "val": 5})
    result = engine.train(recipe_of(root, method), engine.Plan(executor="process"), tmp_path / "run")
    assert result.headline == "mean_iou"
    assert result.metrics["test/images"] == 5
    # The three colours differ; whoever always says road has a third of its share of the pixels.
    assert result.metrics["test/mean_iou"] > 0.4
    assert {"test/iou_of_sky", "test/iou_of_road", "test/pixel_accuracy", "test/mean_class_accuracy"} <= set(
        result.metrics
    )
    run = engine.load(result.run_dir)
    assert engine.evaluate(run) == result.metrics
    accuracies = [record.value for record in run.metrics() if record.name == "accuracy"]
    assert all(0 < value <= 1 for value in accuracies)


def test_ensembles_of_peers_are_scored(label_map_set: LabelMapSet, tmp_path: Path) -> None:
    root = label_map_set(tmp_path / "set", {"train": 14, "val": 5})
    recipe = recipe_of(root, DML(peers=(Peer(), Peer())), epochs=2)
    result = engine.train(recipe, engine.Plan(executor="process"), tmp_path / "run")
    assert {"peer0/test/mean_iou", "peer1/test/mean_iou", "ensemble/test/mean_iou"} <= set(result.metrics)
    losses = [record.value for record in engine.load(result.run_dir).metrics() if record.name == "loss/mimicry"]
    assert all(value > 0 for value in losses)
    # Predictions are exchanged at the positions of the logits, those of a local head at the segment's own.
    source = open_source(recipe.data, 0)
    team = method_of(recipe).team(recipe, source.facts)
    assert team.training[0].messages["peer0_predictions"].parts == (((4, 3, 8, 12), "float32"),)
    source.close()


def test_sizes_are_those_of_the_crop(label_map_set: LabelMapSet, tmp_path: Path) -> None:
    root = label_map_set(tmp_path / "set", {"train": 14, "val": 5})
    recipe = recipe_of(root, InfoPro())
    source = open_source(recipe.data, 0)
    team = method_of(recipe).team(recipe, source.facts)
    assert team.training[0].messages["batch"].parts == (
        ((4, 3, 16, 24), "uint8"),
        ((4, 16, 24), "uint8"),
        ((4,), "int64"),
    )
    source.close()


def test_the_auxiliary_head_is_part_of_the_segment_whose_features_it_reads(
    label_map_set: LabelMapSet, tmp_path: Path
) -> None:
    root = label_map_set(tmp_path / "set", {"train": 14, "val": 5})
    backbone = Backbone(name="fcn_resnet18", auxiliary_heads=True, output_stride=8)
    recipe = recipe_of(root, InfoPro(cuts=("layer3_0",)), backbone=backbone)
    source = open_source(recipe.data, 0)
    first, last = method_of(recipe).team(recipe, source.facts).learners
    assert first.blocks[-1] == "layer3_0"
    # A 3x3 convolution from 256 to 64 channels with batch norm, and a classifier of 3 classes with bias.
    assert last.auxiliary_parameters == 256 * 64 * 9 + 2 * 64 + 64 * 3 + 3
    source.close()


def test_peers_that_predict_at_other_positions_are_refused_before_the_training(
    label_map_set: LabelMapSet, tmp_path: Path
) -> None:
    root = label_map_set(tmp_path / "set", {"train": 8, "val": 2})
    peers = (Peer(), Peer(backbone=Backbone(name="fcn_resnet18", output_stride=8)))
    source = open_source(recipe_of(root, EndToEnd()).data, 0)
    message = r"method\.weight=1\.0 compares .* peer0 predicts \(3, 8, 12\) and peer1 \(3, 2, 3\): give .*output_stride"
    by_weights = DML(peers=peers, schedule="codistillation", exchange_interval=2, exchange="weights")
    for method in (DML(peers=peers), by_weights):
        recipe = recipe_of(root, method)
        with pytest.raises(RecipeError, match=message):
            method_of(recipe).team(recipe, source.facts)
    # Those that hear nothing of one another may predict where they like.
    recipe = recipe_of(root, DML(peers=peers, weight=0.0))
    assert len(method_of(recipe).team(recipe, source.facts).learners) == 2
    source.close()


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (PredSim(), r"task\.kind=segmentation: method\.kind=predsim takes only classification"),
        (ST(), r"task\.kind=segmentation: method\.kind=st takes only classification"),
        (CSKD(), r"task\.kind=segmentation: method\.kind=cs_kd takes only classification"),
        (DHM(), r"task\.kind=segmentation: method\.kind=dhm takes only classification"),
        (InfoPro(head="contrastive"), r"method\.head=contrastive needs the class of each image, which task\.kind="),
        (Greedy(head="contrastive"), r"method\.head=contrastive needs the class of each image, which task\.kind="),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_what_has_no_meaning_for_label_maps_is_refused_by_name(
    method: Any, message: str, label_map_set: LabelMapSet, tmp_path: Path
) -> None:
    root = label_map_set(tmp_path / "set", {"train": 8, "val": 2})
    recipe = recipe_of(root, method)
    source = open_source(recipe.data, 0)
    with pytest.raises(RecipeError, match=message):
        method_of(recipe).team(recipe, source.facts)
    source.close()


def test_tasks_and_sets_that_do_not_go_together_are_refused(
    label_map_set: LabelMapSet, tmp_path: Path, tiny_recipe: Callable[..., Recipe]
) -> None:
    root = label_map_set(tmp_path / "set", {"train": 8, "val": 2})
    recipe = recipe_of(root, EndToEnd())
    source = open_source(recipe.data, 0)
    with pytest.raises(RecipeError, match=r"task\.kind=classification does not take .* has label maps"):
        task_of(dataclasses.replace(recipe, task=Classification()), source.facts)
    digits = tiny_recipe(data={"name": "digits"}, task=recipe.task)
    with pytest.raises(RecipeError, match=r"task\.kind=segmentation does not take .* has one class for each image"):
        task_of(digits, source.facts)
    classifier = recipe_of(root, EndToEnd(), backbone=Backbone(name="resnet8"))
    with pytest.raises(RecipeError, match=r"the last block gives \(3,\) for each image, but task\.kind=segmentation"):
        method_of(classifier).team(classifier, source.facts)
    source.close()


def test_a_teacher_is_compared_with_at_each_position(label_map_set: LabelMapSet, tmp_path: Path) -> None:
    root = label_map_set(tmp_path / "set", {"train": 14, "val": 5})
    plan = engine.Plan(executor="process")
    # Of the same task, whatever it was divided by and however it was scored.
    task = Segmentation(final_mean="all", evaluation_scales=(0.5, 1.0))
    teacher = engine.train(recipe_of(root, EndToEnd(), task=task), plan, tmp_path / "teacher")
    recipe = recipe_of(root, Distillation(teacher=str(teacher.run_dir)), epochs=3, seed=1)
    result = engine.train(recipe, plan, tmp_path / "student")
    assert result.metrics["test/mean_iou"] > 0.4
    losses = [each.value for each in engine.load(result.run_dir).metrics() if each.name == "loss/mimicry"]
    assert losses[0] > losses[-1] > 0
    other = recipe_of(root, recipe.method, backbone=Backbone(name="fcn_resnet18"))
    named = recipe_of(root, Distillation(teacher=str(teacher.run_dir), teacher_backbone=TINY), backbone=other.backbone)
    source = open_source(named.data, 0)
    with pytest.raises(RecipeError, match=r"gives predictions of shape \(3, 8, 12\) .* the student gives \(3, 2, 3\)"):
        method_of(named).team(named, source.facts)
    source.close()


def test_a_batch_of_one_image_is_refused_before_the_training(label_map_set: LabelMapSet, tmp_path: Path) -> None:
    root = label_map_set(tmp_path / "set", {"train": 9, "val": 2})
    recipe = recipe_of(root, EndToEnd(), backbone=Backbone(name="deeplabv3_resnet18"))
    source = open_source(recipe.data, 0)
    with pytest.raises(RecipeError, match=r"of 9 training images in batches of 4 the last holds one: change .*limit=8"):
        method_of(recipe).team(recipe, source.facts)
    source.close()


def test_images_labels_and_predictions_are_drawn_side_by_side(
    label_map_set: LabelMapSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = label_map_set(tmp_path / "set", {"train": 14, "val": 6})
    plan = engine.Plan(executor="process")
    runs = [engine.train(recipe_of(root, Greedy()), plan, tmp_path / name).run_dir for name in ("one", "other")]
    target = tmp_path / "maps.png"
    assert main(["evaluate", str(runs[0]), "--beside", str(runs[1]), "--draw-maps", str(target)]) == 0
    assert f"label maps: {target}" in capsys.readouterr().out
    drawn, palette = np.asarray(Image.open(target)), palette_of(("sky", "road", "car"))
    images = [np.asarray(Image.open(root / f"images/val/{place:03}.png")) for place in (0, 2, 3, 5)]
    labels = [np.asarray(Image.open(root / f"labels/val/{place:03}.png")) for place in (0, 2, 3, 5)]
    # Panels of at least 120 pixels with 4 between them, below a line of 14.
    for row, (image, label_map) in enumerate(zip(images, labels, strict=True)):
        upper = 18 + row * 28
        assert np.array_equal(drawn[upper : upper + 24, 4:36], image)
        assert np.array_equal(drawn[upper : upper + 24, 128:160], palette[label_map])
        # Two equal runs, and nothing but colours of classes.
        one, other = (drawn[upper : upper + 24, left : left + 32] for left in (252, 376))
        assert np.array_equal(one, other)
        assert {tuple(colour) for colour in one.reshape(-1, 3)} <= {tuple(colour) for colour in palette[:3]}
    assert main(["evaluate", str(runs[0]), "--draw-maps", str(tmp_path / "maps.jpg")]) != 0


def test_checkpoints_of_one_run_are_drawn_side_by_side(
    label_map_set: LabelMapSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = label_map_set(tmp_path / "set", {"train": 14, "val": 6})
    plan = engine.Plan(executor="process")
    run = engine.train(recipe_of(root, Greedy(), epochs=2), plan, tmp_path / "run").run_dir
    columns: list[str] = []
    monkeypatch.setattr("engine.training.predicted_maps.draw_label_maps", lambda *given: columns.extend(given[3]))
    places = sorted((run / "checkpoints").iterdir())
    draw_predictions([engine.load(place) for place in places], tmp_path / "maps.png")
    assert columns == [f"run step {int(place.name.removeprefix('step-'))}" for place in places]
    assert len(set(columns)) == 2


@pytest.mark.slow
def test_an_exported_network_takes_images_of_any_size(label_map_set: LabelMapSet, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    root = label_map_set(tmp_path / "set", {"train": 8, "val": 2}, size=(40, 56))
    changes = Augmentation(crop=(32, 48))
    data = Data(name="label_maps", root=str(root), batch_size=4, evaluation_batch_size=2, augmentation=changes)
    backbone = Backbone(name="deeplabv3_resnet18", output_stride=16)
    recipe = recipe_of(root, EndToEnd(), backbone=backbone, data=data, epochs=1)
    run = engine.load(engine.train(recipe, engine.Plan(executor="process"), tmp_path / "run").run_dir)
    assert export_network(run, tmp_path / "network.safetensors")["max_difference"] == 0
    assert export_network(run, tmp_path / "network.onnx")["checked_with"] == "onnxruntime"
    session = onnxruntime.InferenceSession(str(tmp_path / "network.onnx"), providers=["CPUExecutionProvider"])
    assert "to be enlarged bilinearly" in session.get_modelmeta().custom_metadata_map["output"]
    images = torch.randn(1, 3, 40, 56)
    (found,) = session.run(None, {"images": images.numpy()})
    with torch.no_grad():
        expected = run.network().eval()(images)
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-3, atol=1e-4)
