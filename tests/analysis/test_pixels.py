"""Are predictions of label maps analysed by their labelled pixels, whatever the sizes of the images?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import engine
from engine.analysis import ANALYSES, Settings, analyse, pixels, write_report
from engine.analysis.pixels import drawn_pixels
from engine.errors import InputError, RunError
from engine.recipes import DML, SGD, Augmentation, Backbone, Constant, Data, Peer, Plan, Recipe, Segmentation
from tests.analysis.html_page import Page
from tests.conftest import make_label_maps

NETWORK = f"{Path(__file__).parents[1] / 'tasks' / 'dense_task.py'}:network"
IGNORED = 255
OF_PIXELS = [name for name, analysis in ANALYSES.items() if analysis.of_pixels]


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two peers on label maps of two sizes."""
    folder = tmp_path_factory.mktemp("maps")
    root = make_label_maps(folder / "set", {"train": 6, "test": 4})
    wide = make_label_maps(folder / "wide", {"test": 4}, size=(40, 64), seed=1)
    for kind in ("images", "labels"):
        (wide / kind / "test" / "001.png").replace(root / kind / "test" / "001.png")
    data = Data(
        name="label_maps",
        root=str(root),
        batch_size=3,
        evaluation_batch_size=2,
        augmentation=Augmentation(crop=(16, 24)),
    )
    recipe = Recipe(
        name="maps",
        method=DML(peers=(Peer(), Peer())),
        task=Segmentation(),
        backbone=Backbone(name=NETWORK),
        data=data,
        optimizer=SGD(learning_rate=0.1),
        schedule=Constant(),
        epochs=3,
    )
    return engine.train(recipe, Plan(executor="process"), folder / "run").run_dir


def test_all_pixels_give_the_accuracy_of_the_evaluation(maps: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels, "PIXELS", 10**6)
    (finding,) = analyse([maps], ["posterior"], Settings(seed=1))
    scores = engine.evaluate(engine.load(maps))
    for row in finding.rows:
        assert row["accuracy"] == pytest.approx(scores[f"{row['network']}/test/pixel_accuracy"], abs=1e-9)


def test_some_pixels_of_each_image_are_looked_at(maps: Path) -> None:
    told: list[str] = []
    findings = analyse([maps], OF_PIXELS, Settings(), tell=told.append)
    assert [finding.analysis for finding in findings] == OF_PIXELS == ["posterior", "topmass", "similarity"]
    assert findings[0].caption == "run after step 6; 4 images of test, drawn with seed 0; 100 labelled pixels of each"
    (row,) = findings[2].rows
    assert 0 < row["agreement"] <= 1 and row["kl"] > 0 and np.isnan(row["cka"])
    assert analyse([maps], OF_PIXELS, Settings()) == findings
    page = Page(write_report([maps]).read_text())
    page.check()
    assert "test mean IoU" in page.texts("th") and "mean iou" in page.texts("th")
    assert {"Entropy and calibration of the posterior", "Mass of the likeliest classes"} <= set(page.texts("h4"))


def test_pixels_are_drawn_among_those_with_a_label() -> None:
    labels = np.full((20, 30), IGNORED, np.uint8)
    labels[5:15] = 1
    drawn = drawn_pixels(labels, seed=0, place=3)
    assert len(set(drawn)) == 100 and (labels.ravel()[drawn] == 1).all() and list(drawn) == sorted(drawn)
    assert np.array_equal(drawn, drawn_pixels(labels, seed=0, place=3))
    assert not np.array_equal(drawn, drawn_pixels(labels, seed=0, place=4))
    assert not np.array_equal(drawn, drawn_pixels(labels, seed=1, place=3))
    labels[:, 1:] = IGNORED
    assert list(drawn_pixels(labels, seed=0, place=3)) == list(range(150, 450, 30))


def test_images_without_a_labelled_pixel_are_refused(maps: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels, "drawn_pixels", lambda labels, seed, place: np.empty(0, int))
    with pytest.raises(RunError, match="--split test: no pixel of the 2 images .* has a label; give more --images"):
        analyse([maps], ["posterior"], Settings(images=2))


@pytest.mark.parametrize("name", sorted(set(ANALYSES) - set(OF_PIXELS) - {"fractions"}))
def test_what_needs_one_class_for_an_image_is_refused(maps: Path, name: str) -> None:
    with pytest.raises(
        InputError, match=f"--of {name} has no meaning for {maps}: task.kind=segmentation gives no class"
    ):
        analyse([maps], ["posterior", name], Settings())
