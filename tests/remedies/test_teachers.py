"""Does what a refusal of a teacher says lead to a network that teaches?"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch

import engine
from engine.data import open_source
from engine.methods import method_of
from engine.recipes import Recipe, apply_overrides, with_absolute_paths
from engine.training import export_network, load
from tests.conftest import make_label_maps, make_tiny_recipe

FILE = """
from torch import nn



def own(num_classes, image_shape):
    body = nn.Sequential(nn.Conv2d(image_shape[0], 4, 3), nn.ReLU())
    return nn.Sequential(body, nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes)))


def dense(num_classes, image_shape, stride):
    body = nn.Sequential(nn.Conv2d(3, 4, 3, stride=stride, padding=1), nn.BatchNorm2d(4), nn.ReLU())
    return nn.Sequential(body, nn.Conv2d(4, num_classes, 1))

"""
METHOD = """
from engine.methods.end_to_end import METHOD
from engine.recipes import MethodSettings
from engine.recipes.settings import settings


@settings
class Whole(MethodSettings):
    pass
"""
MAPS = (
    "task.kind=segmentation data.name=label_maps data.root=FOLDER/maps data.train_limit=null data.test_limit=null "
    "data.batch_size=2 data.evaluation_batch_size=2 data.augmentation.crop_padding=0 backbone.widths=null "
    "backbone.name=FOLDER/own.py:dense"
)
# What each teacher is trained with, beside end to end.
TAUGHT = {
    "plain": "",
    "cohort": "method.kind=dml",
    "retrieval": "task.kind=retrieval",
    "own_network": "backbone.name=FOLDER/own.py:own backbone.widths=null",
    "own_method": "method.kind=FOLDER/method.py:Whole",
    "few_classes": "data.name=synthetic data.num_classes=3 data.image_size=8 data.train_limit=44 data.test_limit=null",
    "other_means": "data.mean=0.25 data.std=0.125",
    "fine": f'{MAPS} backbone.options={{"stride":2}}',
    "coarse": f'{MAPS} backbone.options={{"stride":4}}',
}
TEACHER = "method.kind=distillation method.teacher"
SEGMENTING = f'{MAPS} backbone.options={{"stride":2}} method.teacher_backbone=FOLDER/own.py:dense {TEACHER}'
PLAIN = "method.teacher=FOLDER/plain"
# The words of a student, and what remedies in prose mean.
CASES: list[tuple[str, list[tuple[str, str]]]] = [
    (
        "method.kind=distillation",
        [("give its run folder", PLAIN), (r"or the (\.safetensors) file that export made", f"{PLAIN}{{0}}")],
    ),
    (
        f"{TEACHER}=FOLDER/own.py",
        [("give what (train) or export wrote", PLAIN), ("or (export) wrote", f"{PLAIN}.safetensors")],
    ),
    (f"{TEACHER}=FOLDER/cohort", [("has (peer0), (peer1); give one of these", "method.teacher_network={1}")]),
    (
        f"{TEACHER}=FOLDER/cohort method.teacher_network=peer7",
        [("has (peer0), (peer1); give one of these", "method.teacher_network={0}")],
    ),
    (
        f"{TEACHER}=FOLDER/without_metadata.safetensors",
        [
            ("give a file that `local-learning export` wrote", f"{PLAIN}.safetensors"),
            ("or a run folder", PLAIN),
        ],
    ),
    (
        f"{TEACHER}=FOLDER/retrieval.safetensors task.kind=retrieval",
        [("give the teacher's run folder as method.teacher", "method.teacher=FOLDER/retrieval")],
    ),
    (f"{TEACHER}=FOLDER/retrieval.safetensors", [("give a teacher of the same task", PLAIN)]),
    (f"{TEACHER}=FOLDER/retrieval", [("give a teacher of the same task", f"{PLAIN}.safetensors")]),
    (f"{TEACHER}=FOLDER/few_classes", [("for classes 3, .* give a teacher that was trained on such images", PLAIN)]),
    (f"{TEACHER}=FOLDER/other_means", [("give a teacher that was trained on such images", PLAIN)]),
    (f"{TEACHER}=FOLDER/other_means.safetensors", []),
    (f"{TEACHER}=FOLDER/own_network", []),
    (f"{TEACHER}=FOLDER/own_network.safetensors", []),
    (f"method.teacher_backbone=resnet14 {TEACHER}=FOLDER/plain", []),
    (f"method.teacher_backbone=resnet14 {TEACHER}=FOLDER/plain.safetensors", []),
    (
        f"method.teacher_backbone=FOLDER/own.py {TEACHER}=FOLDER/own_network",
        [("expected path/to/file.py:(function)", "method.teacher_backbone=FOLDER/own.py:own")],
    ),
    (
        f"{TEACHER}=FOLDER/own_method",
        [
            (
                "export the network, and give the (.safetensors) file as method.teacher",
                "method.teacher=FOLDER/own_method{0}",
            )
        ],
    ),
    (
        f"{SEGMENTING}=FOLDER/coarse",
        [("give a teacher with the same backbone.output_stride", "method.teacher=FOLDER/fine")],
    ),
]


def recipe_of(words: str, folder: Path) -> Recipe:
    """Return the recipe of a student, or of a teacher."""
    start = make_tiny_recipe(method={"kind": "end_to_end"}, epochs=1)
    given = words.replace("FOLDER", str(folder)).split()
    return with_absolute_paths(apply_overrides(start, engine.Plan(), given)[0])


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out curves.png, which takes longer than the training."""
    monkeypatch.setattr("engine.training.by_products.plot_curves", lambda *_: None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Code of one's own, and the teachers that were needed so far: a run folder, and the file that was exported."""
    made = tmp_path_factory.mktemp("teachers")
    (made / "own.py").write_text(FILE)
    (made / "method.py").write_text(METHOD)
    make_label_maps(made / "maps", {"train": 4, "test": 2})
    safetensors.torch.save_file({"weight": torch.zeros(1)}, made / "without_metadata.safetensors")
    return made


@pytest.fixture
def teach(folder: Path) -> Callable[[list[str]], None]:
    """A function: see a student with these words accepted, or refused; teachers that they name are trained before."""

    def run(given: list[str]) -> None:
        words = " ".join(given)
        named = re.search(r"method\.teacher=FOLDER/(\w+)", words)
        if named is not None and named[1] in TAUGHT and not (folder / named[1]).exists():
            recipe = recipe_of(TAUGHT[named[1]], folder)
            engine.train(recipe, engine.Plan(executor="process"), folder / named[1], until_step=1)
            network = "peer0" if named[1] == "cohort" else None
            export_network(load(folder / named[1]), folder / f"{named[1]}.safetensors", network)
        recipe = recipe_of(words, folder)
        source = open_source(recipe.data, recipe.seed)
        try:
            method_of(recipe).team(recipe, source.facts)
        finally:
            source.close()

    return run


@pytest.mark.parametrize(("words", "prose"), [pytest.param(*row, id=row[0]) for row in CASES])
def test_a_teacher_is_found(
    words: str, prose: list[tuple[str, str]], follow: Callable[..., None], teach: Callable[[list[str]], None]
) -> None:
    follow(teach, words.split(), prose)
