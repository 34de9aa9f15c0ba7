"""Are names of folders, of pictures and in lists one text in every normal form and encoding, or refused in words?"""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.data.readers.folder import find_folder
from engine.errors import DataError
from tests.data.folder_sources import everything, left_out, open_folder


def names_of(root: Path) -> tuple[str, ...]:
    return open_folder(root).facts.class_names


def test_names_are_compared_in_one_normal_form(writers: Any, tmp_path: Path) -> None:
    for split, form in (("train", "NFD"), ("val", "NFC")):
        classes = {unicodedata.normalize(form, name): writers.images(2, 8) for name in ("Äpfel", "zebra")}
        writers.folder(tmp_path, split, classes)
    assert names_of(tmp_path) == ("zebra", unicodedata.normalize("NFC", "Äpfel"))
    (tmp_path / "train" / "äpfel").mkdir()
    with pytest.raises(DataError, match="look like one class in two folders"):
        open_folder(tmp_path)


def copied(writers: Any, root: Path, form: str) -> Path:
    """Write a set whose classes, folders and files come in another order where marks stand behind their letters."""
    for split in ("train", "val"):
        for seed, parts in enumerate(
            (
                ("Äpfel", "é.png"),
                ("Äpfel", "f.png"),
                ("Äpfel", "ö", "b.png"),
                ("Äpfel", "z", "a.png"),
                ("zebra", "ü.png"),
            )
        ):
            path = root / split / unicodedata.normalize(form, "/".join(parts))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(writers.png(writers.images(1, 8, seed)[0]))
    return root


def test_copies_in_another_normal_form_have_the_same_classes_and_the_same_order(writers: Any, tmp_path: Path) -> None:
    composed, decomposed = (open_folder(copied(writers, tmp_path / form, form)) for form in ("NFC", "NFD"))
    assert composed.facts.class_names == decomposed.facts.class_names == ("zebra", "Äpfel")
    for split in ("train", "test"):
        for found, other in zip(everything(composed, split), everything(decomposed, split), strict=True):
            np.testing.assert_array_equal(found, other)
    # As the bytes of composed names are ordered, which is what a set with such names has always had.
    expected = [writers.images(1, 8, seed)[0] for seed in (4, 1, 0, 3, 2)]
    np.testing.assert_array_equal(everything(composed, "train")[0], expected)


def test_names_that_are_no_utf8_are_text(writers: Any, tmp_path: Path) -> None:
    for split, name in (("train", os.fsdecode(b"caf\xe9")), ("val", "café")):
        try:
            writers.folder(tmp_path, split, {name: writers.images(2, 8), "dog": writers.images(2, 8)})
        except OSError:
            pytest.skip("this file system takes no such names")
        for path in (tmp_path / split / name).iterdir():
            path.rename(path.with_name(os.fsdecode(b"\xff\xfe") + path.name[-5:]))
    source = open_folder(tmp_path)
    assert source.facts.class_names == ("café", "dog")
    assert all(line.isprintable() for line in source.inventory.lines())
    assert source.facts.sizes == {"train": 4, "test": 4}


def write_tiny(writers: Any, root: Path) -> Path:
    writers.folder(
        root, "train", {name: writers.images(3, 8, seed) for seed, name in enumerate(("n1", "né"))}, "images"
    )
    (root / "val" / "images").mkdir(parents=True)
    for number, image in enumerate(writers.images(4, 8, 9)):
        (root / "val" / "images" / f"é{number}.png").write_bytes(writers.png(image))
    lines = [f"é{number}.png\t{('n1', 'né')[number % 2]}\t0\t0\t7\t7\n" for number in range(4)]
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    (root / "wnids.txt").write_text("né\nn1\n")
    (root / "words.txt").write_text("n1\tfish\nné\tcafé, bar\nn9\tother\n")
    return root


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_lists_in_every_encoding(writers: Any, tmp_path: Path, encoding: str, form: str, line_end: str) -> None:
    root = write_tiny(writers, tmp_path)
    for name in ("wnids.txt", "words.txt", "val/val_annotations.txt"):
        text = (root / name).read_text().replace("\n", line_end)
        text = unicodedata.normalize(form, text) if encoding != "latin-1" else text
        (root / name).write_bytes(text.encode(encoding))
    source = open_folder(root)
    assert source.facts.class_names == ("fish", "café, bar")
    np.testing.assert_array_equal(everything(source, "test")[1], [0, 0, 1, 1])
    np.testing.assert_array_equal(everything(source, "test")[0], writers.images(4, 8, 9)[[0, 2, 1, 3]])
    assert source.inventory.survey.names_from == "named by words.txt"


def test_lists_that_can_be_understood_in_two_ways(writers: Any, tmp_path: Path) -> None:
    root = write_tiny(writers, tmp_path)
    annotations = root / "val" / "val_annotations.txt"
    whole = annotations.read_text()
    annotations.write_text(whole + "é0.png\tné\t0\t0\t7\t7\n")
    with pytest.raises(DataError, match=r"val_annotations.txt line 5 names é0.png, as line 1 does"):
        open_folder(root)
    annotations.write_text(whole.partition("\n")[2])
    assert left_out(root)["pictures that val_annotations.txt does not name"] == 1
    annotations.write_text(whole)
    words = root / "words.txt"
    words.write_text(words.read_text() + "n1\tbird\n")
    with pytest.raises(DataError, match=r"words.txt line 4 calls n1 'bird', an earlier line 'fish'"):
        open_folder(root)
    words.write_text("n1\tfish\n")
    assert find_folder(root).survey.names_from == "named by words.txt (1 that it lacks by their folders)"


def test_a_huge_or_endless_list_is_refused(writers: Any, tmp_path: Path) -> None:
    root = write_tiny(writers, tmp_path / "tiny")
    with (root / "words.txt").open("r+b") as file:
        file.truncate(20 << 30)
    with pytest.raises(DataError, match=r"words.txt: has 21,474,836,480 bytes; expected at most"):
        open_folder(root)
    (root / "words.txt").unlink()
    os.mkfifo(root / "words.txt")
    assert open_folder(root).facts.class_names == ("n1", "né")
    assert left_out(root) == {"files and folders beside the splits": 1}
