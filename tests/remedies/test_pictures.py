"""Does what a refusal of single pictures, of limits or of the cache says lead to a training on all that is left?"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image, features

from engine.data import open_source
from engine.errors import DataError
from engine.recipes import Data

Remedy = tuple[str, str, int]
"""What the message says, a command of the shell or words that do it ("{0}" is its first group), training images."""

FIRST = "train/cat/0.png"
AGAIN = f"cp .whole.png {FIRST}"
LIMIT = "data.image_size=8 LOCAL_LEARNING_PICTURE_PIXELS=100"
# Words, and what a shell does to 4 training and 2 validation pictures of cats and of dogs, 8 x 8 pixels each.
PICTURES: list[tuple[str, str, list[Remedy]]] = [
    (
        "",
        f"head -c 60 .whole.png > {FIRST}",
        [("; replace", AGAIN, 8), (r"^(\S+) .* or remove it", "rm {0}", 7)],
    ),
    (
        LIMIT,
        f"head -c 1100000 /dev/zero >> {FIRST}",
        [
            (r"^(\S+) .* has [\d,]+ bytes; .* make it readable", "truncate -s 9999 {0}", 8),
            ("or replace", AGAIN, 8),
            (r"^(\S+) .* or remove it", "rm {0}", 7),
        ],
    ),
    (
        "data.image_size=8",
        f"head -c 60 .whole.png > {FIRST}; cp .deep.png train/dog/0.png",
        [
            (r"For each: replace .* convert it first", f"{AGAIN}; cp .whole.png train/dog/0.png", 8),
            ("For each: .* or remove it", f"rm {FIRST} train/dog/0.png", 6),
        ],
    ),
    (
        "data.validation_fraction=0.5",
        "cp -r val test",
        [(r"^(data\.validation_fraction)=.* set it to (0)", "{0}={1}", 8)],
    ),
    (
        "data.root=file://{root}",
        "rm val/dog/*",
        [
            (
                r"both need .* is a copy of data\.root=file://(\S+): mend it there",
                "cp {0}/.whole.png {0}/val/dog/0.png",
                8,
            )
        ],
    ),
    (
        "data.labelled_indices={root}/list.txt data.train_limit=4",
        "printf '0\\n1\\n' > list.txt",
        [
            (r"line (\d+): image 0 .* remove the line", "sed -i {0}d list.txt", 4),
            (r"or change .* (data\.train_limit) or", "{0}=8", 8),
            (r"or change .* or (data\.subset_seed)", "{0}=1", 4),
        ],
    ),
    (
        "data.labelled_indices={root}/list.txt data.validation_fraction=0.5",
        "seq 0 7 > list.txt",
        [(r"or change (data\.validation_fraction),", "{0}=0", 8)],
    ),
    ("data.root=null", "true", [(r"give it as (data\.root)=DIR", "{0}={root}", 8)]),
    (
        "LOCAL_LEARNING_PICTURE_PIXELS=0",
        "true",
        [(r"^(\w+)=0: expected a number of pixels, such as (\d+)", "{0}={1}", 8)],
    ),
]
# The same of a set as Tiny ImageNet is published, with two validation pictures of each class.
LISTED: list[tuple[str, list[Remedy]]] = [
    (
        "rm val/images/0.png",
        [
            (r"names (\S+), which is missing: bring it back", "cp .whole.png {0}", 8),
            (r"line (\d+) names .* or remove the line", "sed -i {0}d val/val_annotations.txt", 8),
        ],
    ),
    (
        "echo x > val/images/0.png",
        [
            ("; replace it", "cp .whole.png val/images/0.png", 8),
            (
                r"^(\S+) .* or remove it with its line in (\S+)$",
                "rm {0}; sed -i /^0.png/d val/{1}",
                8,
            ),
        ],
    ),
    (
        "cp .whole.png \"val/images/$(printf '\\303\\251').png\"; "
        "cp .whole.png \"val/images/$(printf 'e\\314\\201').png\"",
        [(r"^(\S+) holds two pictures .* rename one", "mv \"{0}/$(printf 'e\\314\\201').png\" {0}/e.png", 8)],
    ),
]
# The same of shards that name their pictures: rows of `train.parquet` and `test.parquet`.
NAMED: list[tuple[str, list[Remedy]]] = [
    (
        f"echo x > {FIRST}",
        [
            ("; replace it", AGAIN, 8),
            (r"^(\S+) .* or remove it with its row", "rm {0}; cp .short.parquet train.parquet", 7),
        ],
    ),
]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of two classes, and beside them spare pictures and shards that name the pictures."""
    root = tmp_path_factory.mktemp("sets") / "pictures"
    noise = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    rows: dict[str, list[tuple[str, str]]] = {"train": [], "val": []}
    for split, number in (("train", 4), ("val", 2)):
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True)
            for place in range(number):
                Image.fromarray(noise[place : place + 8, :8]).save(root / split / name / f"{place}.png")
                rows[split].append((f"{split}/{name}/{place}.png", name))
    Image.fromarray(noise[:8, :8]).save(root / ".whole.png")
    Image.fromarray(noise[:8, :8, 0].astype(np.uint16)).save(root / ".deep.png")
    Image.fromarray(noise).save(root / ".large.png")
    for path, named in ((".train", rows["train"]), (".test", rows["val"]), (".short", rows["train"][1:])):
        table = {
            "image": pyarrow.array(
                [{"path": name} for name, _ in named], pyarrow.struct([("bytes", pyarrow.binary()), ("path", "string")])
            ),
            "label": [label for _, label in named],
        }
        pyarrow.parquet.write_table(pyarrow.table(table), root / f"{path}.parquet")
    return root


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set as Tiny ImageNet is published."""
    root = tmp_path_factory.mktemp("sets") / "listed"
    for number in range(12):
        folder = root / (f"train/n{number % 2}/images" if number < 8 else "val/images")
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (20 * number, 0, 0)).save(folder / f"{number % 8}.png")
    Image.new("RGB", (8, 8)).save(root / ".whole.png")
    (root / "val/val_annotations.txt").write_text("".join(f"{number}.png\tn{number % 2}\n" for number in range(4)))
    return root


@pytest.mark.parametrize(
    ("words", "before", "remedies"), [pytest.param(*row, id=f"{row[0]} {row[1]}".strip()) for row in PICTURES]
)
def test_pictures(words: str, before: str, remedies: list[Remedy], pictures: Path, repair: Callable[..., None]) -> None:
    repair(pictures, words, before, remedies)


@pytest.mark.parametrize(("before", "remedies"), [pytest.param(*row, id=row[0]) for row in LISTED])
def test_pictures_that_a_list_names(
    before: str, remedies: list[Remedy], listed: Path, repair: Callable[..., None]
) -> None:
    repair(listed, "", before, remedies)


@pytest.mark.parametrize(("before", "remedies"), [pytest.param(*row, id=row[0]) for row in NAMED])
def test_pictures_that_shards_name(
    before: str, remedies: list[Remedy], pictures: Path, repair: Callable[..., None]
) -> None:
    before = f"mv .train.parquet train.parquet; mv .test.parquet test.parquet; {before}"
    repair(pictures, "data.name=parquet", before, remedies)


@pytest.mark.skipif(not features.check("jpg_2000"), reason="the image library reads no JPEG 2000")
def test_pictures_that_are_decoded_apart(
    pictures: Path, repair: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tmp_path / "whole.jp2"
    Image.open(pictures / ".whole.png").save(whole)
    remedies = [("; replace", f"cp {whole} {FIRST}", 8), (r"^(\S+) .* or remove it", "rm {0}", 7)]
    repair(pictures, "", f"head -c 150 {whole} > {FIRST}", remedies)
    for number in range(len(remedies)):
        os.rename(tmp_path / f"{number}", tmp_path / f"apart{number}")
    monkeypatch.setattr("engine.data.pictures.decoding.confined_formats", lambda: frozenset())
    repair(pictures, "", f"cp {whole} {FIRST}", [("convert it to PNG first", AGAIN, 8)])


def test_a_picture_that_the_image_library_refuses(
    pictures: Path, repair: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    remedies = [
        (r"takes (LOCAL\w+)=(\d+); set this environment variable so high", "{0}={1}", 8),
        ("or make the picture smaller", AGAIN, 8),
    ]
    repair(pictures, LIMIT, f"cp .large.png {FIRST}", remedies)


def test_a_split_that_is_not_there(pictures: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LOCAL_LEARNING_CACHE", str(tmp_path))
    data: dict[str, Any] = {"name": "folder", "root": str(pictures), "batch_size": 2}
    source = open_source(Data(**data), 0)
    with pytest.raises(DataError, match="validation images are held out by data.validation_fraction"):
        next(source.evaluation_batches("validation"))
    source.close()
    source = open_source(Data(**data, validation_fraction=0.5), 0)
    assert next(source.evaluation_batches("validation")).images.shape == (4, 3, 8, 8)
    source.close()


@pytest.fixture
def plain_open(pictures: Path) -> Callable[[], int]:
    """A function: open the set, and return how many training images it has."""

    def run() -> int:
        source = open_source(Data(name="folder", root=str(pictures), batch_size=2), 0)
        source.close()
        return source.facts.sizes["train"]

    return run


def test_no_home_folder_for_the_cache(
    plain_open: Callable[[], int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LOCAL_LEARNING_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    # As for a user without a line in /etc/passwd.
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    with pytest.raises(DataError, match="no home folder for the cache; set LOCAL_LEARNING_CACHE to a folder"):
        plain_open()
    monkeypatch.setenv("LOCAL_LEARNING_CACHE", str(tmp_path / "cache"))
    assert plain_open() == 8


def test_a_disk_that_fills_up_while_images_are_kept(
    plain_open: Callable[[], int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = np.save

    def full(path: Any, *arguments: Any) -> None:
        if "small" in str(path):
            raise OSError(errno.ENOSPC, "No space left on device")
        save(path, *arguments)

    monkeypatch.setenv("LOCAL_LEARNING_CACHE", str(tmp_path / "small"))
    with monkeypatch.context() as disk:
        disk.setattr(np, "save", full)
        with pytest.raises(DataError, match="make room, or set LOCAL_LEARNING_CACHE to a folder on another disk"):
            plain_open()
        disk.setenv("LOCAL_LEARNING_CACHE", str(tmp_path / "other"))
        assert plain_open() == 8
    assert plain_open() == 8
