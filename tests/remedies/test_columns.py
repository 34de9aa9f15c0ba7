"""Does what a refusal of shards that contradict one another says lead to a training on all images?"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

FIRST, SECOND = "train-00000-of-00002.parquet", "train-00001-of-00002.parquet"
AGAIN = f"cp .whole.parquet {SECOND}"
# What is put into the place of the second of two training shards, and what the message says before it is as it was.
CASES: list[tuple[str, str]] = [
    ("fractions", "holds double; expected whole numbers, text, truth values or categories, as there"),
    ("no_picture", "has no column image, which holds the pictures in .*; write both files with one"),
    ("two_labels", "holds two columns called label; expected each name once"),
    ("outside", "has label 7, expected 0 to 1 .*; correct it, or fetch it again"),
    ("no_names", "class names in its `huggingface` metadata are none; expected a name for each class"),
    ("damaged", "the file is damaged; fetch it again"),
    ("damaged_label", "is damaged, or not what its name says .*; fetch it again"),
]


def png(number: int) -> bytes:
    """Return an encoded picture of noise."""
    content = io.BytesIO()
    noise = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(noise).save(content, "PNG")
    return content.getvalue()


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shards of 4 training images, one of 4 test images, and hidden ones to put into their places."""
    root = tmp_path_factory.mktemp("sets") / "shards"
    root.mkdir()

    def table(label: list[Any], names: list[str] | None = None) -> pyarrow.Table:
        pictures = [{"bytes": png(number), "path": None} for number in range(4)]
        features = {"label": {"_type": "ClassLabel", "names": names}}
        metadata = {"huggingface": json.dumps({"info": {"features": features}})}
        return pyarrow.table({"image": pictures, "label": label}).replace_schema_metadata(metadata)

    whole = table([0, 1, 0, 1], ["cat", "dog"])
    made = {
        "whole": whole,
        "fractions": table([0.5, 1.0, 0.5, 1.0]),
        "no_picture": whole.drop(["image"]),
        "two_labels": whole.append_column("label", whole["label"]),
        "outside": table([0, 1, 7, 1], ["cat", "dog"]),
        "as_text": table(["cat", "dog", "cat", "dog"]),
        "alike": table(["cat", "dog", "Cat", "dog"]),
        "differing": table(["cat", "dog", "lynx", "dog"]),
        "no_names": table([0, 1, 0, 1], []),
    }
    for name, content in made.items():
        pyarrow.parquet.write_table(content, root / f".{name}.parquet")
    for name in (FIRST, SECOND, "test.parquet"):
        pyarrow.parquet.write_table(whole, root / name)
    # The pages of the pictures come first.
    pyarrow.parquet.write_table(
        whole, root / ".damaged.parquet", compression="gzip", use_dictionary=False, write_statistics=False
    )
    stored = (root / ".damaged.parquet").read_bytes()
    label = pyarrow.parquet.ParquetFile(root / ".damaged.parquet").metadata.row_group(0).column(2)
    assert label.path_in_schema == "label"
    end = label.data_page_offset + label.total_compressed_size
    for name, start in (("damaged", 80), ("damaged_label", end - 12)):
        (root / f".{name}.parquet").write_bytes(stored[:start] + b"\xff" * 10 + stored[start + 10 :])
    pyarrow.parquet.write_table(whole.slice(0, 0), root / ".nothing.parquet")
    return root


@pytest.mark.parametrize(("name", "says"), [pytest.param(*row, id=row[0]) for row in CASES])
def test_shards(name: str, says: str, shards: Path, repair: Callable[..., None]) -> None:
    repair(shards, "data.name=parquet", f"cp .{name}.parquet {SECOND}", [(says, AGAIN, 8)])


def test_a_shard_without_rows(shards: Path, repair: Callable[..., None]) -> None:
    before = "cp test.parquet validation.parquet; cp .nothing.parquet test.parquet"
    remedies = [("give it some", "cp .whole.parquet test.parquet", 8), ("leave its files out", "rm test.parquet", 8)]
    repair(shards, "data.name=parquet", before, remedies)


def test_names_that_look_alike(shards: Path, repair: Callable[..., None]) -> None:
    before = "for one in *.parquet; do cp .alike.parquet $one; done"
    remedies = [
        ("write them alike", "for one in *.parquet; do cp .as_text.parquet $one; done", 8),
        ("or give them names that differ in more", "for one in *.parquet; do cp .differing.parquet $one; done", 8),
    ]
    repair(shards, "data.name=parquet", before, remedies)


def test_a_link_to_a_shard_that_is_not_there(shards: Path, repair: Callable[..., None]) -> None:
    before = f"rm {SECOND}; ln -s elsewhere.file {SECOND}"
    repair(shards, "data.name=parquet", before, [("bring back the file", "cp .whole.parquet elsewhere.file", 8)])


def test_a_folder_of_parts(shards: Path, repair: Callable[..., None]) -> None:
    before = "mkdir train.parquet; mv train-*.parquet train.parquet"
    remedy = "mv {0}/train-00000-of-00002.parquet {1}/{2}; mv {0}/*.parquet {1}; mv {0} .."
    says = r"^(\S+) is a folder, .* move the parts in it to (\S+), named like (\S+), and the folder elsewhere"
    repair(shards, "data.name=parquet", before, [(says, remedy, 8)])
