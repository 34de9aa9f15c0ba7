"""Does what a refusal of a task, of an objective or of what is scored says lead to a training, or to scores?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from engine.data import open_source
from engine.data.appearances import GALLERY, QUERY, Appearances, packed
from engine.errors import InputError
from engine.objectives import Objective
from engine.recipes import Plan, Recipe, apply_overrides
from engine.tasks import task_of
from engine.tasks.classification_score import ClassificationScore
from engine.tasks.retrieval_score import RetrievalScore
from engine.tasks.segmentation_score import SegmentationScore
from tests.conftest import make_label_maps

Words = list[str]
Prose = list[tuple[str, str]]

TOY = Path(__file__).parents[1] / "tasks" / "toy_task.py"
WHOLE = "task.kind=FILE:Regression"
OWN: list[tuple[str, Prose]] = [
    (
        "task.kind=FILE:Failing method.kind=greedy",
        [("correct the file", WHOLE), (r"or (task\.options)", '{0}={{"scale":2}}')],
    ),
    ("task.kind=FILE:SquaredError method.kind=greedy", [("expected a subclass of engine.tasks.Task", WHOLE)]),
    ("task.kind=FILE:Unfinished method.kind=greedy", [(r"define final_term, local_term, .*headline$", WHOLE)]),
    (
        "task.kind=FILE:Regression method.kind=end_to_end backbone.name=inception_v1 backbone.widths=null "
        "backbone.auxiliary_heads=true",
        [],
    ),
]
FILE = """
class Failing(Regression):
    def __init__(self, settings, facts):
        super().__init__(settings, facts)
        self.scale = settings.options["scale"]


class Unfinished(Task):
    outputs = 1
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of tasks of the user's own."""
    path = tmp_path / "tasks.py"
    path.write_text(TOY.read_text() + FILE)
    return path


@pytest.mark.parametrize(("words", "prose"), [pytest.param(*row, id=row[0]) for row in OWN])
def test_tasks_of_ones_own(
    words: str, prose: Prose, file: Path, follow: Callable[..., None], start: Callable[..., None]
) -> None:
    inside = [(pattern, meant.replace("FILE", str(file))) for pattern, meant in prose]
    follow(start, words.replace("FILE", str(file)).split(), inside)


@pytest.fixture
def take(tiny_recipe: Callable[..., Recipe]) -> Callable[[Words], None]:
    """A function: open the data of the tiny recipe with these words, and make its task."""

    def run(words: Words) -> None:
        limits = {"train_limit": None, "test_limit": None, "batch_size": 2}
        recipe, _ = apply_overrides(tiny_recipe(data=limits), Plan(), words)
        source = open_source(recipe.data, 0, paired_images=recipe.method.paired_images)
        try:
            task_of(recipe, source.facts)
        finally:
            source.close()

    return run


@pytest.fixture
def label_maps(tmp_path: Path) -> Words:
    """Words for pictures with label maps."""
    root = make_label_maps(tmp_path / "maps", {"train": 2, "val": 1})
    return ["data.name=label_maps", f"data.root={root}"]


def test_a_task_for_label_maps(label_maps: Words, follow: Callable[..., None], take: Callable[..., None]) -> None:
    follow(take, label_maps)


def test_a_task_for_identities(tmp_path: Path, follow: Callable[..., None], take: Callable[..., None]) -> None:
    names = {"bounding_box_train": "0002_c1_1 0003_c1_1", "query": "0001_c1_1", "bounding_box_test": "0001_c2_1"}
    for folder, pictures in names.items():
        (tmp_path / "set" / folder).mkdir(parents=True)
        for name in pictures.split():
            Image.new("RGB", (8, 8)).save(tmp_path / "set" / folder / f"{name}.jpg")
    follow(take, ["data.name=market1501", f"data.root={tmp_path / 'set'}"])


def test_pairs_of_one_class(label_maps: Words, follow: Callable[..., None], take: Callable[..., None]) -> None:
    words = [*label_maps, "task.kind=segmentation", "method.kind=cs_kd"]
    follow(take, words, [("choose another method", "method.kind=end_to_end")])


CITY = torch.zeros(1, 2, 4, 4)
PAIR = torch.eye(2)


def seen(*cameras: int) -> Any:
    """Return the packed labels of a query and a picture of the gallery of one identity, by these cameras."""
    import numpy as np

    roles = np.array([QUERY, GALLERY])
    return torch.from_numpy(packed(Appearances(np.zeros(2, np.int64), np.array(cameras), roles)))


# A score, what it is given first, what is said then, and what does as that says.
SCORES: list[tuple[str, Callable[[], Any], tuple[Any, ...] | None, str, tuple[Any, ...]]] = [
    (
        "no image",
        lambda: ClassificationScore(2),
        None,
        "give it at least one image",
        (torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64)),
    ),
    (
        "a class too many",
        lambda: ClassificationScore(2),
        (torch.zeros(1, 2), torch.full((1,), 2)),
        "0 to 1: correct the data set's labels",
        (torch.zeros(1, 2), torch.ones(1, dtype=torch.int64)),
    ),
    ("no picture", RetrievalScore, None, "give it at least one image", (PAIR, seen(1, 2))),
    (
        "nothing right",
        RetrievalScore,
        (PAIR, seen(1, 1)),
        "give pictures of the queries' identities, by other cameras",
        (PAIR, seen(1, 2)),
    ),
    (
        "no labelled pixel",
        lambda: SegmentationScore(("sky", "road")),
        (CITY, torch.full((1, 4, 4), 255, dtype=torch.uint8)),
        "give the split label maps that hold classes",
        (CITY, torch.zeros(1, 4, 4, dtype=torch.uint8)),
    ),
    (
        "a value too many",
        lambda: SegmentationScore(("sky", "road")),
        (CITY, torch.full((1, 4, 4), 2, dtype=torch.uint8)),
        "correct the label maps or the table of classes",
        (CITY, torch.zeros(1, 4, 4, dtype=torch.uint8)),
    ),
]


@pytest.mark.parametrize(("make", "given", "says", "better"), [pytest.param(*row[1:], id=row[0]) for row in SCORES])
def test_scores(make: Callable[[], Any], given: tuple[Any, ...] | None, says: str, better: tuple[Any, ...]) -> None:
    def scored(images: tuple[Any, ...] | None) -> dict[str, float]:
        score = make()
        if images is not None:
            score.update(*images)
        found: dict[str, float] = score.result()
        return found

    with pytest.raises(InputError, match=says):
        scored(given)
    assert scored(better)["images"] >= 1


def test_an_objective_of_nothing() -> None:
    term = nn.Module()
    with pytest.raises(InputError, match=r"found: loss=0\), .* give at least one of its terms a positive weight"):
        Objective({"loss": term}, {"loss": 0})  # type: ignore[dict-item]
    assert Objective({"loss": term}, {"loss": 0.5}).weights == {"loss": 0.5}  # type: ignore[dict-item]


def test_a_task_for_classes(label_maps: Words, follow: Callable[..., None], take: Callable[..., None]) -> None:
    prose = [("or a data set that fits the task", "{} {}".format(*label_maps))]
    follow(take, ["task.kind=segmentation"], prose)
