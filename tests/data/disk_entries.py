"""What may lie on a disk where a data set is expected: names, texts, and entries of every kind."""

from __future__ import annotations

import io
import os
from pathlib import Path

from hypothesis import strategies as st
from PIL import Image


def encoded(level: int) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (6, 6), (level, level, level)).save(content, format="PNG")
    return content.getvalue()


PICTURE = encoded(3)
NAMES = st.sampled_from(
    ["n1", "n2", "a.png", "b.jpg", "images", "train", "val", "test", "wnids.txt", "words.txt", "val_annotations.txt"]
    + ["x", ".hidden", "é", "e\u0301", os.fsdecode(b"\xe9"), "\x1b[31m", "a\nb", "train.parquet", "test.parquet"]
)
TEXTS = st.one_of(
    st.binary(max_size=60),
    st.lists(
        st.sampled_from(["n1", "n2", "a.png", "\t", "\n", "é", "e\u0301", "\r\n", "\ufeff", "\0"]), max_size=30
    ).map(lambda parts: "".join(parts).encode()),
)


def lay_out(root: Path, path: tuple[str, ...], kind: str, content: bytes) -> None:
    place = root.joinpath(*path)
    # Two entries of one name: a pipe would be waited for, and a link followed out of the folder.
    if os.path.lexists(place) or any(parent.is_symlink() for parent in place.parents):
        return
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        if kind == "picture":
            place.write_bytes(PICTURE)
        elif kind == "text":
            place.write_bytes(content)
        elif kind == "folder":
            place.mkdir()
        elif kind == "pipe":
            os.mkfifo(place)
        elif kind == "sparse":
            with place.open("wb") as file:
                file.truncate(20 << 30)
        else:
            place.symlink_to({"gone": "gone", "up": "..", "itself": place.name}[kind])
    except OSError:
        pass  # a file in the place of a folder


KINDS = st.sampled_from(["picture"] * 4 + ["text", "text", "folder", "pipe", "sparse", "gone", "up", "itself"])
ENTRIES = st.lists(st.tuples(st.lists(NAMES, min_size=1, max_size=4).map(tuple), KINDS, TEXTS), max_size=6)
