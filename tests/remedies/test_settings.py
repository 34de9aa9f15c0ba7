"""Does what a refusal of a field, or of the images, says lead to a training?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from engine.errors import InputError

Words = list[str]
Prose = list[tuple[str, str]]

# What is close to a wrong name or value.
MEANT = r"did you mean '([\w.]+)'"
CASES: list[tuple[str, Prose]] = [
    ("optimizer.momentum=0", []),
    ("schedule.kind=step schedule.milestones=4,3", []),
    ("data.augmentation.crop_padding=4 data.augmentation.random_resized_crop=true", []),
    ("data.augmentation.crop_padding=9", [("smaller padding", "data.augmentation.crop_padding=2")]),
    ("data.mean=0.5", [("give both", "data.mean=0.5 data.std=1"), ("or neither", "data.mean=null")]),
    ("data.mean=0.5,0.5 data.std=1,1", [("one value per channel", "data.mean=0.5 data.std=1")]),
    ("data.mean=0.5 data.std=0", [("must be positive", "data.std=1")]),
    ("data.name=synthetic", []),
    (
        "data.name=synthetic data.num_classes=100",
        [("give at least that many", "data.train_limit=100 data.test_limit=100")],
    ),
    (
        "data.train_limit=null data.labelled_fraction=0.5 data.labelled_indices=INDICES",
        [
            ("set one of them to null", "data.labelled_indices=null"),
            ("set one of them to null", "data.labelled_fraction=null"),
        ],
    ),
    (
        "data.train_limit=null data.unlabelled=drop",
        [
            ("give labelled_fraction", "data.labelled_fraction=0.5"),
            ("or labelled_indices", "data.labelled_indices=INDICES"),
        ],
    ),
    ("data.train_limit=null data.labelled_indices=/nowhere.txt", [("a text file", "data.labelled_indices=INDICES")]),
    ("data.batch_size=43", [("another data.batch_size", "data.batch_size=22")]),
    ("data.batch_size=1", [("another data.batch_size", "data.batch_size=2")]),
    ("data.batch_size=4000", [(r"there are (\d+)", "data.batch_size={0}")]),
    ("data.batch_size=30 data.labelled_fraction=0.5 data.unlabelled=drop", [(r"leaves (\d+)", "data.batch_size={0}")]),
    (
        "data.train_limit=null data.classes_per_batch=4 data.labelled_fraction=0.5",
        [("set (data.unlabelled=drop)", "{0}"), ("leave classes_per_batch", "data.classes_per_batch=null")],
    ),
    (
        "data.train_limit=null data.batch_size=40 data.classes_per_batch=20",
        [(r"of (\d+) classes: give at most that", "data.classes_per_batch={0}")],
    ),
    ("data.num_classes=7", []),
    ("data.label_column=fine", []),
    ("data.download=true", []),
    ("data.root=/nowhere", []),
    ("data.resize_size=40 data.name=synthetic data.num_classes=10 data.image_size=32", []),
    ("data.resize_size=40 data.image_size=[32,24]", []),
    ("data.resize_size=40", [("give both", "data.image_size=32")]),
    ("data.resize_size=40 data.image_size=48", [(r"data\.image_size=(\d+)", "data.resize_size={0}")]),
    ("data.validation_fraction=0.99", [(r"of (\d+) training .* expected 1 to (\d+)", "data.validation_fraction=0.9")]),
    ("data.train_limit=4", [(r"the (\d+) classes", "data.train_limit={0} data.batch_size=5")]),
    (
        "data.train_limit=100000",
        [(r"has (\d+) train", "data.train_limit={0}"), ("leave it out", "data.train_limit=null")],
    ),
    ("data.test_limit=100000", [(r"has (1),(297) test", "data.test_limit={0}{1}")]),
    ("backbone.stem=deep", []),
    ("method=dgl", []),
    ("method.num_segment=3", [(MEANT, "{0}=3 method.num_segment")]),
    ("num_segments=3", [(MEANT, "{0}=3 num_segments")]),
    ("optimizer.lr=0.1", [(MEANT, "{0}=0.1 optimizer.lr")]),
    ("method.kind=infopr", [(MEANT, "method.kind={0}")]),
    ("method.cuts=balanced_layer", [(MEANT, "method.cuts={0}")]),
    ("method.kind=dsn method.loss=hinge", [(r"or '(\w+)'", "method.loss={0}")]),
    ("epochs=0", [(r"greater than or equal to (\d)", "epochs={0}")]),
    ("plan.windw=2", [(MEANT, "{0}=2 plan.windw")]),
]
ROWS = [pytest.param(words.split(), prose, id=words) for words, prose in CASES]


@pytest.fixture
def indices(tmp_path: Path) -> str:
    """A file of the places of every second training image."""
    path = tmp_path / "indices.txt"
    path.write_text("".join(f"{place}\n" for place in range(0, 500, 2)))
    return str(path)


def placed(words: Words, prose: Prose, indices: str) -> tuple[Words, Prose]:
    """Put the file's path where INDICES stands."""
    inside = [word.replace("INDICES", indices) for word in words]
    return inside, [(pattern, meant.replace("INDICES", indices)) for pattern, meant in prose]


@pytest.mark.parametrize(("words", "prose"), ROWS)
def test_it_is_accepted(
    words: Words, prose: Prose, indices: str, follow: Callable[..., None], start: Callable[..., None]
) -> None:
    follow(start, *placed(words, prose, indices))


def test_what_a_message_prints_is_written_in_full(start: Callable[..., None]) -> None:
    with pytest.raises(InputError) as refused:
        start(
            ["method.kind=dml", "method.exchange=weights", "method.schedule=codistillation", "method.feature_weight=1"]
        )
    printed = "method.peer_method.kind=end_to_end and method.feature_weight=0, or method.exchange=predictions"
    assert printed in str(refused.value)
