"""Are lists of labelled images read and refused in words, and do the fields about labels mean what they say?"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.data import Batch, Source, open_source
from engine.errors import DataError, RecipeError
from engine.recipes import (
    Backbone,
    EndToEnd,
    Plan,
    Recipe,
    apply_overrides,
    recipe_identity,
    recipe_to_dict,
    with_absolute_paths,
)
from engine.recipes.data import Data


def digits(**fields: Any) -> Source:
    return open_source(Data(name="digits", **({"batch_size": 64} | fields)), seed=0)


def write(path: Path, *indices: int) -> str:
    path.write_text("".join(f"{index}\n" for index in indices))
    return str(path)


def test_what_a_source_lists_can_be_read_back(tmp_path: Path) -> None:
    drawn = digits(labelled_fraction=0.1, train_limit=300)
    indices = drawn.labelled_indices()
    read = digits(labelled_indices=write(tmp_path / "kept.txt", *indices), train_limit=300)
    assert read.facts == drawn.facts
    for step in range(drawn.steps_per_epoch()):
        one, other = read.batch(0, step), drawn.batch(0, step)
        for field in dataclasses.fields(Batch):
            np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name))
    indices[:] = 0
    np.testing.assert_array_equal(read.labelled_indices(), drawn.labelled_indices())


def test_a_list_in_any_order_with_empty_lines_and_line_ends_of_other_systems(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(b"\xef\xbb\xbf30\r\n\r\n 7 \r\n499")
    assert digits(labelled_indices=str(path)).labelled_indices().tolist() == [7, 30, 499]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"1\n2\nthree\n", r"list.txt, line 3: found 'three', expected one training index, .* from 0 to 499, and"),
        (b"1\n2 3\n", r"list.txt, line 2: found '2 3', expected one training index"),
        (b"1.0\n", r"list.txt, line 1: found '1.0', expected one training index"),
        (b"1_0\n", r"list.txt, line 1: found '1_0', expected one training index"),
        (b"\n" + b"9" * 5000, r"list.txt, line 2: found '9{40}', expected one training index"),
        (b"\xff\x00\n", r"list.txt, line 1: found '.*', expected one training index"),
        (b"0\n500\n", r"list.txt, line 2: found index 500, expected 0 to 499: the whole training set has 500 images"),
        (b"-1\n", r"list.txt, line 1: found index -1, expected 0 to 499"),
        (b"4\n5\n\n4\n", r"list.txt, line 4: image 4 is in line 1 too: remove one"),
        (b"", r"list.txt holds no index: expected one training index a line, at least one"),
        (b"\n \n", r"list.txt holds no index"),
    ],
)
def test_wrong_lists(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"^data.labelled_indices={tmp_path}/{words}"):
        digits(labelled_indices=str(path))


@pytest.mark.parametrize("fields", [{"validation_fraction": 0.2}, {"train_limit": 400}])
def test_an_image_that_is_not_trained_on_cannot_be_listed(fields: dict[str, Any], tmp_path: Path) -> None:
    used = np.concatenate([batch.indices for batch in digits(**fields).evaluation_batches("train")])
    outside = np.setdiff1d(np.arange(500), used)[0]
    listed = write(tmp_path / "list.txt", used[0], outside)
    with pytest.raises(
        DataError,
        match=rf"line 2: image {outside} is not among the 400 training images in use: remove the line, or change "
        r"data.validation_fraction, data.train_limit or data.subset_seed",
    ):
        digits(labelled_indices=listed, **fields)


def test_a_missing_list(tmp_path: Path) -> None:
    with pytest.raises(
        DataError,
        match=rf"^data.labelled_indices={tmp_path}/none.txt: there is no such file; expected a text file",
    ):
        digits(labelled_indices=str(tmp_path / "none.txt"))
    with pytest.raises(DataError, match=r"is no regular file"):
        digits(labelled_indices=str(tmp_path))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"labelled_fraction": 0.5, "labelled_indices": "a.txt"}, "labelled_fraction=0.5 and labelled_indices=a.txt"),
        ({"unlabelled": "drop"}, "unlabelled=drop leaves nothing out.*give labelled_fraction or labelled_indices"),
        ({"labelled_fraction": 0.0}, "greater than 0"),
        ({"labelled_fraction": 1.01}, "less than or equal to 1"),
        ({"unlabelled": "maybe"}, "'use' or 'drop'"),
    ],
)
def test_fields_that_contradict_each_other(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        Data(name="digits", **fields)


def start() -> Recipe:
    data = Data(name="digits", batch_size=64)
    return Recipe(name="start", method=EndToEnd(), backbone=Backbone(name="resnet14"), data=data)


def changed(*words: str) -> Recipe:
    return apply_overrides(start(), Plan(), words)[0]


def test_overrides_on_the_command_line() -> None:
    data = changed("data.labelled_fraction=0.1", "data.unlabelled=drop").data
    assert (data.labelled_fraction, data.labelled_indices, data.unlabelled) == (0.1, None, "drop")
    assert changed("data.labelled_fraction=1").data.labelled_fraction == 1.0
    assert changed("data.labelled_indices=1.10").data.labelled_indices == "1.10"
    with pytest.raises(RecipeError, match=r"^data: data.unlabelled=drop leaves nothing out"):
        changed("data.unlabelled=drop")
    with pytest.raises(RecipeError, match=r"^data.unlabelled: found 'droop'.*did you mean 'drop'"):
        changed("data.labelled_fraction=0.1", "data.unlabelled=droop")


def test_paths_become_absolute_and_everything_belongs_to_the_identity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert with_absolute_paths(start()).data.labelled_indices is None
    for given_path, absolute in (("kept.txt", str(tmp_path / "kept.txt")), ("~/kept.txt", "/home/somebody/kept.txt")):
        assert with_absolute_paths(changed(f"data.labelled_indices={given_path}")).data.labelled_indices == absolute
    different = [
        start(),
        changed("data.labelled_fraction=0.1"),
        changed("data.labelled_fraction=0.1", "data.unlabelled=drop"),
        changed("data.labelled_fraction=0.2"),
        changed("data.labelled_indices=/a.txt"),
        changed("data.labelled_indices=/b.txt"),
    ]
    assert len({recipe_identity(recipe) for recipe in different}) == len(different)
    assert recipe_to_dict(different[2])["data"]["unlabelled"] == "drop"


def test_a_list_of_more_bytes_than_its_images_need_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "kept.txt"
    images = len(digits().labelled_indices())
    limit = (1 << 20) + 64 * images
    file.write_text("0\n1\n2\n")
    os.truncate(file, limit + 1)
    with pytest.raises(
        DataError,
        match=rf"^data.labelled_indices={file}: has {limit + 1:,} bytes; expected at most {limit:,}; .*a line",
    ):
        digits(labelled_indices=str(file), unlabelled="drop", batch_size=2)
