"""Does what a refusal of folders and pictures says lead to a training on all that is left?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Remedy = tuple[str, str, int]
"""What the message says, a command of the shell or words that do it ("{0}" is its first group), training images."""

LABELS = "data.labelled_indices={root}/labels.txt"
# Words, what a shell does to the folder before, and the remedies. Pictures are 8 x 8; train/ has 4 of cat, 4 of dog.
FOLDERS: list[tuple[str, str, list[Remedy]]] = [
    ("", "mv train training", [("rename it", "mv training train", 8)]),
    ("", "mkdir deep; mv train val deep", [(r"set (data.root=\S+)", "{0}", 8)]),
    (
        "",
        "mkdir a b; cp -r train val a; mv train val b",
        [("set data.root to one of them", "data.root={root}/a", 8)],
    ),
    ("", "rm -r val", [("expected (val)/.* with the same classes", "mkdir {0}; cp -r train/cat train/dog {0}", 8)]),
    ("", "cp -r val valid", [("expected one of them", "rm -r valid", 8)]),
    (
        "",
        "mkdir train/Cat; mv train/cat/0.png train/Cat",
        [
            ("merge", "mv train/Cat/0.png train/cat; rmdir train/Cat", 8),
            ("or rename", "mv train/Cat train/lion; cp -r train/lion val", 8),
        ],
    ),
    (
        "",
        "mkdir train/empty val/empty",
        [
            ("fill it", "cp train/cat/0.png train/empty; cp train/cat/0.png val/empty", 9),
            ("remove the class from every split", "rm -r train/empty val/empty", 8),
        ],
    ),
    (
        "",
        "rm val/dog/*; cp -r train/dog train/owl; cp -r train/owl val",
        [
            ("fill it", "cp train/dog/dog_0.png val/dog", 12),
            ("remove the class from every split", "rm -r train/dog val/dog", 8),
        ],
    ),
    (
        "",
        "mkdir train/dog/test; mv train/dog/dog_0.png train/dog/test",
        [
            ("rename what is no split", "mv train/dog/test train/dog/more", 8),
            (r"expected ROOT/train/CLASS", "mkdir test; mv train/dog/test test/dog; cp -r val/cat test", 7),
        ],
    ),
    (
        "",
        "mv train/cat/* train; rmdir train/cat",
        [("at least two classes", "mkdir train/cat; mv train/?.png train/cat", 8)],
    ),
    (
        "",
        "mv train/*/* train; rmdir train/cat train/dog",
        [
            (
                "train/CLASS/PICTURE",
                "mkdir train/cat train/dog; mv train/?.png train/cat; mv train/dog_* train/dog",
                8,
            )
        ],
    ),
    (
        "",
        "mv train old; mkdir -p train/train train/val; cp -r old/* train/train; cp -r val/* train/val",
        [("ROOT/train/CLASS/PICTURE", "mv train x; mv x/train train", 8)],
    ),
    (
        "",
        "cp -r train/dog train/owl",
        [
            ("both need the same folders", "cp -r train/owl val", 12),
            ("both need the same folders", "rm -r train/owl", 8),
        ],
    ),
    ("", "mv val/*/* val; rmdir val/cat val/dog", [(r"Expected (val)/CLASS/PICTURE", "cp -r train/* {0}", 8)]),
    (
        "",
        "mv val test; mkdir test/images; mv test/*/*.png test/images; rmdir test/cat test/dog",
        [
            (
                "expected (test)/CLASS",
                "mkdir test/cat test/dog; mv test/images/?.png test/cat; mv test/images/* test/dog; rmdir test/images",
                8,
            )
        ],
    ),
    (
        "",
        "ln -s gone.png train/cat/link.png",
        [("remove the links", "rm train/cat/link.png", 8), ("bring back", "cp train/cat/0.png train/cat/gone.png", 10)],
    ),
    ("", "ln -s ../cat train/cat/again", [("remove the link", "rm train/cat/again", 8)]),
    ("", "mkfifo train/cat/pipe.png", [("remove it", "rm train/cat/pipe.png", 8)]),
    (
        "",
        "echo damaged > train/cat/0.png; echo damaged > train/dog/dog_1.png",
        [
            ("For each: replace", "cp val/cat/0.png train/cat/0.png; cp val/cat/0.png train/dog/dog_1.png", 8),
            ("or remove it", "rm train/cat/0.png train/dog/dog_1.png", 6),
        ],
    ),
    (
        "",
        "cp deep.png train/cat/0.png; cp deep.png train/cat/1.png",
        [("convert it first", "cp val/cat/0.png train/cat/0.png; cp val/cat/0.png train/cat/1.png", 8)],
    ),
    ("", "cp large.png train/cat/0.png", [("when sizes vary, (data.image_size) is required", "{0}=8", 8)]),
    ("", "for one in val/*/*; do cp large.png $one; done", [("set (data.image_size)", "{0}=8", 8)]),
    (
        "data.image_size=8 LOCAL_LEARNING_PICTURE_PIXELS=100",
        "cp large.png train/cat/0.png",
        [
            (r"takes (LOCAL\w+)=(\d+); set this environment variable so high", "{0}={1}", 8),
            ("make the picture smaller", "cp val/cat/0.png train/cat", 8),
        ],
    ),
    (
        "data.image_size=8 LOCAL_LEARNING_PICTURE_PIXELS=100",
        "cp large.png train/dog; cp larger.png train/dog",
        [(r"takes (LOCAL\w+)=144; .*=(\d+)\. For each: set this environment variable so high", "{0}={1}", 10)],
    ),
    (
        "data.image_size=8 LOCAL_LEARNING_PICTURE_PIXELS=300",
        "cp large.webp train/cat",
        [(r"takes (LOCAL\w+)=(\d+); set this environment variable so high", "{0}={1}", 9)],
    ),
    ("LOCAL_LEARNING_PICTURE_PIXELS=many", "true", [(r"(LOCAL\w+)=many: .* such as (\d+)", "{0}={1}", 8)]),
    (
        "",
        "mv val/* .; rm -r train val",
        [("expected train/CLASS/PICTURE", "mkdir train val; cp -r cat dog train; mv cat dog val", 4)],
    ),
    (LABELS, "true", [("expected a text file with one training index a line", "printf '0\\n4\\n' > labels.txt", 8)]),
    (LABELS, "touch labels.txt", [("expected one training index a line", "printf '0\\n4\\n' > labels.txt", 8)]),
    (
        LABELS,
        "printf '0\\n4\\nsix\\n' > labels.txt",
        [(r"line (\d+): .* expected one", "sed -i '{0}s/.*/6/' labels.txt", 8)],
    ),
    (
        LABELS,
        "printf '0\\n80\\n' > labels.txt",
        [(r"line (\d+): .* expected 0 to (\d+)", "sed -i '{0}s/.*/{1}/' labels.txt", 8)],
    ),
    (LABELS, "printf '0\\n4\\n0\\n' > labels.txt", [(r"line (\d+): .* remove one", "sed -i '{0}d' labels.txt", 8)]),
    (
        f"{LABELS} data.train_limit=2 data.batch_size=2",
        "seq 0 7 > labels.txt",
        [("or change .*(data.train_limit)", "{0}=8", 8)],
    ),
    (
        f"{LABELS} data.unlabelled=drop data.batch_size=4",
        "seq 0 2 > labels.txt",
        [("a batch size of at most", "data.batch_size=3", 3), ("label more images", "seq 0 3 > labels.txt", 4)],
    ),
]
ANNOTATIONS = "val/val_annotations.txt"
# As Tiny ImageNet is published: classes n1 and n2, their words, and a list of the validation pictures.
TINY: list[tuple[str, list[Remedy]]] = [
    ("rm val/images/0.png", [(r"names \S+/(val/images/0.png), which is missing", "cp train/n1/images/0.png {0}", 8)]),
    (
        f"head -n 1 {ANNOTATIONS} >> {ANNOTATIONS}",
        [(r"line (\d+) .* remove one of the lines", f"sed -i '{{0}}d' {ANNOTATIONS}", 8)],
    ),
    (
        f"echo 1.png > {ANNOTATIONS}",
        [("expected FILE<tab>CLASS", f"printf '0.png\\tn1\\n1.png\\tn2\\n' > {ANNOTATIONS}", 8)],
    ),
    ("printf 'n1\\tzebra\\n' >> words.txt", [(r"line (\d+) .* remove one of the lines", "sed -i '{0}d' words.txt", 8)]),
    (
        "echo n3 >> wnids.txt",
        [
            (r"missing: (n3); .*correct the list", "sed -i /{0}/d wnids.txt", 8),
            (
                "missing: (n3); bring back the folders",
                "cp -r train/n1 train/{0}; cp train/n1/images/0.png val/images/2.png; "
                f"printf '2.png\\tn3\\n' >> {ANNOTATIONS}",
                12,
            ),
        ],
    ),
]


def picture(path: Path, side: int = 8, depth: int = 8) -> None:
    """Write a picture of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(len(path.name)).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(noise if depth == 8 else noise[..., 0].astype(np.uint16)).save(path)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of two classes, with 4 training and 2 validation pictures each, and a few pictures beside it."""
    root = tmp_path_factory.mktemp("sets") / "plain"
    for split, number in (("train", 4), ("val", 2)):
        for name in range(number):
            picture(root / split / "cat" / f"{name}.png")
            picture(root / split / "dog" / f"dog_{name}.png")
    for spare, side, depth in (("large.png", 12, 8), ("larger.png", 20, 8), ("large.webp", 16, 8), ("deep.png", 8, 16)):
        picture(root / spare, side, depth)
    return root


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set as Tiny ImageNet is published, with 4 training pictures and one validation picture of each class."""
    root = tmp_path_factory.mktemp("sets") / "tiny"
    for name in range(8):
        picture(root / f"train/n{1 + name % 2}/images/{name}.png")
    for name in range(2):
        picture(root / f"val/images/{name}.png")
    (root / ANNOTATIONS).write_text("0.png\tn1\t0\n1.png\tn2\t0\n")
    (root / "wnids.txt").write_text("n1\nn2\n")
    (root / "words.txt").write_text("n1\thorse\nn2\tcow\n")
    return root


@pytest.mark.parametrize(
    ("words", "before", "remedies"), [pytest.param(*row, id=f"{row[0]} {row[1]}".strip()) for row in FOLDERS]
)
def test_folders_of_pictures(
    words: str, before: str, remedies: list[Remedy], plain: Path, repair: Callable[..., None]
) -> None:
    repair(plain, words, before, remedies)


@pytest.mark.parametrize(("before", "remedies"), [pytest.param(*row, id=row[0]) for row in TINY])
def test_tiny_imagenet(before: str, remedies: list[Remedy], tiny: Path, repair: Callable[..., None]) -> None:
    repair(tiny, "", before, remedies)
