"""Does what a refusal of label maps, tables of classes or Cityscapes says lead to a training on all that is left?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import make_label_maps

Remedy = tuple[str, str, int]
"""What the message says, a command of the shell or words that do it ("{0}" is its first group), training images."""

FIRST = "train/000.png"
WHOLE = f"cp .whole/labels/{FIRST} labels/{FIRST}"
TABLE = "rm classes.txt; printf 'value,name\\n0,sky\\n1,road\\n{}\\n' > classes.csv"


def table(line: str) -> str:
    """Return the command that writes a table of values and names whose last line is this one."""
    return TABLE.replace("{}", line)


# What a shell does to 4 training and 2 validation pictures of 24 x 32 pixels with the classes sky, road and car.
TABLES: list[tuple[str, list[Remedy]]] = [
    (table("2,car").removeprefix("rm classes.txt; "), [("keep one", f"rm {name}", 4) for name in ("*.csv", "*.txt")]),
    (
        "rm classes.txt",
        [
            (r"give (\S+), a name a line", "printf 'sky\\nroad\\ncar\\n' > {0}", 4),
            (r"or (\S+) with the columns (\S+),", "printf '{1}\\n0,sky\\n1,road\\n2,car\\n' > {0}", 4),
            (r"or (data\.class_names)$", "{0}=sky,road,car", 4),
        ],
    ),
    (
        f"{table('2,car')}; sed -i 1d classes.csv",
        [(r"line (\d+): .* expected the columns (\S+)", "sed -i '{0}i {1}' classes.csv", 4)],
    ),
    (
        table("256,car"),
        [
            (r"line (\d+): .* expected a value from 0 to 255 and the name", "sed -i '{0}s/.*/2,car/' classes.csv", 4),
            (r"line (\d+): .* or nothing behind the comma", "sed -i '{0}s/.*/2,/' classes.csv", 4),
        ],
    ),
    (
        table("2,car\\n2,bus"),
        [(r"line (\d+): .* remove one of them", f"sed -i '{line}d' classes.csv", 4) for line in ("{0}", "4")],
    ),
    (
        table("2,car\\n255,frame"),
        [
            (r"line (\d+): .* leave the name out", "sed -i '{0}s/frame//' classes.csv", 4),
            (
                r"line (\d+): .* write the maps with another value",
                "cp -r .spare/three/* labels; sed -i '{0}s/255/3/' classes.csv",
                4,
            ),
        ],
    ),
    ("printf 'sky\\n' > classes.txt", [("found 1 classes, expected 2", "printf 'road\\ncar\\n' >> classes.txt", 4)]),
    (
        "printf 'sky\\n\\ncar\\n' > classes.txt",
        [(r"class (\d+) has no name; expected one", 'sed -i "$(({0} + 1))s/^$/road/" classes.txt', 4)],
    ),
    (
        "printf 'sky\\nroad\\nRoad\\n' > classes.txt",
        [
            (r"(\w+) and (\w+) look like one class; rename", f"sed -i s/{name}/car/ classes.txt", 4)
            for name in ("{0}", "{1}")
        ],
    ),
]
NAMED: list[tuple[str, str, list[Remedy]]] = [
    (
        "data.class_names=a,b,c",
        "true",
        [
            (r"leave (data\.class_names) out", "{0}=null", 4),
            (r"but (\S+) names .* or remove the file", "rm {0}", 4),
        ],
    ),
    (
        "data.class_names=sky,road,Road",
        "rm classes.txt",
        [(r"^named by (\S+): .* rename one", "{0}=sky,road,car", 4)],
    ),
]
PAIRS: list[tuple[str, list[Remedy]]] = [
    ("mv images pictures", [(r"expected (images)/train/PICTURE", "mv pictures {0}", 4)]),
    ("mkdir deep; mv images labels classes.txt deep", [(r"Correct (data\.root)", "{0}={root}/deep", 4)]),
    (
        "cp -r images/val images/valid; cp -r labels/val labels/valid",
        [(r"holds (\w+) and (\w+), expected one", f"rm -r images/{name} labels/{name}", 4) for name in ("{0}", "{1}")],
    ),
    (
        "rm -r images/val labels/val",
        [
            (rf"expected .*({name})/", "for kind in images labels; do cp -r $kind/train $kind/{0}; done", 4)
            for name in ("val", "valid", "test")
        ],
    ),
    (
        "rm -r labels/val",
        [(r"has no (\S+) beside it: expected a label map for each", "cp -r .whole/labels/val {0}", 4)],
    ),
    (
        f"rm labels/{FIRST}",
        [
            ("add the maps", WHOLE, 4),
            (r"of the same name: (\S+); .* or remove the pictures", "rm {0}", 3),
        ],
    ),
    (
        f"rm images/{FIRST}",
        [
            ("add the pictures", f"cp .whole/images/{FIRST} images/{FIRST}", 4),
            (r"of the same name: (\S+); .* or remove the maps", "rm {0}", 3),
        ],
    ),
    (
        "cp images/train/000.png images/train/000.bmp",
        [(r"^(\S+) and (\S+) have the same name: .* remove one", f"rm {name}", 4) for name in ("{0}", "{1}")],
    ),
    (
        "rm images/train/* labels/train/*",
        [("holds no pictures, expected at least one", "cp -r .whole/images .whole/labels .", 4)],
    ),
]
MAPS: list[tuple[str, list[Remedy]]] = [
    ("cp .spare/map.jpg labels/train/000.png", [("write it as PNG from the original labels", WHOLE, 4)]),
    ("cp images/train/000.png labels/train", [("translate its colours", WHOLE, 4)]),
    ("cp .spare/one_bit.png labels/train/000.png", [("write it with 8 bits, from the original labels", WHOLE, 4)]),
    ("cp .spare/deep.png labels/train/000.png", [("convert it first", WHOLE, 4)]),
    *(
        (
            f"head -c {number} .whole/labels/{FIRST} > labels/{FIRST}",
            [
                ("replace it", WHOLE, 4),
                (r"^(\S+) .* or remove it with its picture", f"rm {{0}} images/{FIRST}", 3),
            ],
        )
        for number in (20, 60)
    ),
    (
        f"head -c 90 .whole/images/{FIRST} > images/{FIRST}",
        [
            ("replace it", f"cp .whole/images/{FIRST} images/{FIRST}", 4),
            (r"^(\S+) .* or remove it with its label map", f"rm {{0}} labels/{FIRST}", 3),
        ],
    ),
    (
        f"echo x > labels/{FIRST}; echo x > labels/val/000.png",
        [
            ("For each: replace it", f"{WHOLE}; cp .whole/labels/val/000.png labels/val", 4),
            (
                r"cannot be used: (\S+), (\S+) .* or remove it with its picture",
                f"rm {{0}} {{1}} images/{FIRST} images/val/000.png",
                3,
            ),
        ],
    ),
    (
        "cp .spare/nine.png labels/train/000.png",
        [
            (r"table of classes: 9 \(\d+ pixels\); .* correct the file", WHOLE, 4),
            (r"or the table$", "for value in 3 4 5 6 7 8 9; do echo class $value >> classes.txt; done", 4),
        ],
    ),
    ("cp .spare/small.png labels/train/000.png", [("give a label map for each pixel of the picture", WHOLE, 4)]),
    (
        "cp .spare/large.png images/train/000.png; cp .spare/large_map.png labels/train/000.png",
        [
            (r"set (data\.augmentation\.crop), or", "{0}=[16,16]", 4),
            (r"or (data\.image_size) for all pictures", "{0}=[16,24]", 4),
        ],
    ),
]
LABELLED: list[tuple[str, str, list[Remedy]]] = [
    ("data.labelled_fraction=0.5", "true", [(r"set (data\.unlabelled=drop)", "{0}", 2)]),
    (
        "data.labelled_indices={root}/list.txt",
        "printf '0\\n2\\n3\\n' > list.txt",
        [(r"set (data\.unlabelled=drop)", "{0}", 3)],
    ),
]
CITY = "train/city/000"
CITYSCAPES: list[tuple[str, list[Remedy]]] = [
    (
        "mv gtFine other",
        [(r"expected leftImg8bit/.* with (gtFine)/SPLIT", "mv other {0}", 4)],
    ),
    ("mkdir deep; mv gtFine leftImg8bit deep", [(r"Correct (data\.root)", "{0}={root}/deep", 4)]),
    ("rm -r gtFine/val", [(r"^(\S+) is missing: .* fetch the set again", "cp -r .whole/gtFine/val {0}", 4)]),
    (
        f"rm gtFine/{CITY}_gtFine_labelIds.png",
        [
            ("add the maps", f"cp .whole/gtFine/{CITY}_gtFine_labelIds.png gtFine/train/city", 4),
            (r"of the same name: (\S+); .* or remove the pictures", "rm {0}", 3),
        ],
    ),
    (
        f"rm leftImg8bit/{CITY}_leftImg8bit.png",
        [
            ("add the pictures", f"cp .whole/leftImg8bit/{CITY}_leftImg8bit.png leftImg8bit/train/city", 4),
            (r"of the same name: (\S+); .* or remove the maps", "rm {0}", 3),
        ],
    ),
    (
        f"echo x > leftImg8bit/{CITY}_leftImg8bit.png",
        [(r"^(\S+) .* or remove it with its label map", f"rm {{0}} gtFine/{CITY}_*", 3)],
    ),
]
# Its pictures and maps get one name, and a table of their own.
AS_LABEL_MAPS = (
    "mkdir images labels; for split in train val; do mkdir images/$split labels/$split; for one in 000 001 002 003; do "
    "if [ -f leftImg8bit/$split/city/${one}_leftImg8bit.png ]; then "
    "cp leftImg8bit/$split/city/${one}_leftImg8bit.png images/$split/$one.png; "
    "cp gtFine/$split/city/${one}_gtFine_labelIds.png labels/$split/$one.png; fi; done; done; "
    "printf 'value,name\\n7,road\\n23,sky\\n26,car\\n0,\\n' > classes.csv"
)


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures with label maps, a copy of all in ".whole", and maps that cannot be used in ".spare"."""
    root = tmp_path_factory.mktemp("sets") / "maps"
    make_label_maps(root, {"train": 4, "val": 2})
    make_label_maps(root / ".whole", {"train": 4, "val": 2})
    make_label_maps(root / ".spare" / "three", {"train": 4, "val": 2}, table=False)
    for path in (root / ".spare" / "three").glob("labels/*/*.png"):
        labels = np.asarray(Image.open(path))
        place = root / ".spare" / "three" / path.parent.name / path.name
        place.parent.mkdir(exist_ok=True)
        Image.fromarray(np.where(labels == 255, 3, labels).astype(np.uint8)).save(place)
    spare, labels = root / ".spare", np.asarray(Image.open(root / "labels" / FIRST))
    Image.fromarray(labels).save(spare / "map.jpg")
    Image.fromarray(labels > 0).save(spare / "one_bit.png")
    Image.fromarray(labels.astype(np.uint16)).save(spare / "deep.png")
    Image.fromarray(np.where(labels == 0, 9, labels).astype(np.uint8)).save(spare / "nine.png")
    Image.fromarray(labels[:12, :16]).save(spare / "small.png")
    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(spare / "large.png")
    Image.fromarray(np.zeros((30, 40), np.uint8)).save(spare / "large_map.png")
    return root


@pytest.fixture(scope="module")
def cityscapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small set in the layout of Cityscapes, and a copy of all in ".whole"."""
    root = tmp_path_factory.mktemp("sets") / "cityscapes"
    made = make_label_maps(tmp_path_factory.mktemp("made"), {"train": 4, "val": 2})
    identifiers = np.zeros(256, np.uint8)
    identifiers[[0, 1, 2]] = 23, 7, 26
    for whole in (root, root / ".whole"):
        for path in made.glob("images/*/*.png"):
            split, name = path.parent.name, path.stem
            for kind in ("leftImg8bit", "gtFine"):
                (whole / kind / split / "city").mkdir(parents=True, exist_ok=True)
            (whole / f"leftImg8bit/{split}/city/{name}_leftImg8bit.png").write_bytes(path.read_bytes())
            labels = np.asarray(Image.open(made / "labels" / split / path.name))
            Image.fromarray(identifiers[labels]).save(whole / f"gtFine/{split}/city/{name}_gtFine_labelIds.png")
    return root


@pytest.mark.parametrize(("before", "remedies"), [pytest.param(*row, id=row[0]) for row in (*TABLES, *PAIRS, *MAPS)])
def test_label_maps(before: str, remedies: list[Remedy], maps: Path, repair: Callable[..., None]) -> None:
    repair(maps, "data.name=label_maps data.augmentation.crop_padding=0", before, remedies)


@pytest.mark.parametrize(
    ("words", "before", "remedies"), [pytest.param(*row, id=row[0]) for row in (*NAMED, *LABELLED)]
)
def test_fields_of_label_maps(
    words: str, before: str, remedies: list[Remedy], maps: Path, repair: Callable[..., None]
) -> None:
    repair(maps, f"data.name=label_maps {words}", before, remedies)


@pytest.mark.parametrize(("before", "remedies"), [pytest.param(*row, id=row[0]) for row in CITYSCAPES])
def test_cityscapes(before: str, remedies: list[Remedy], cityscapes: Path, repair: Callable[..., None]) -> None:
    repair(cityscapes, "data.name=cityscapes", before, remedies, strict_counts=False)


def test_cityscapes_of_another_size(
    cityscapes: Path, repair: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The published set is 11 GB: a smaller one stands for it."""
    monkeypatch.setattr("engine.data.readers.cityscapes.PUBLISHED", {"train": 4, "test": 2})
    one = "train/city/000_"
    again = f"cp .whole/leftImg8bit/{one}* leftImg8bit/train/city; cp .whole/gtFine/{one}* gtFine/train/city"
    own = "is read with (data.name=label_maps), from images/SPLIT and labels/SPLIT"
    before = f"rm leftImg8bit/{one}* gtFine/{one}*; {AS_LABEL_MAPS}"
    repair(cityscapes, "data.name=cityscapes", before, [("fetch the set again", again, 4), (own, "{0}", 3)])
