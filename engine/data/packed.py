"""How are pictures in Parquet shards read by position, when they are too many to keep decoded?

Shards can only be read as a stream, so their encoded pictures are copied once into NAME.pictures, one after the
other, with their beginnings in NAME.offsets.npy, int64 [N + 1], and the labels in NAME.labels.npy.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from engine.data.cache import Entry, check_room
from engine.data.parts import Found, Loaded, Picture, PixelPart, Progress


def pack(found: Found, loaded: Loaded, folder: Path, progress: Progress) -> dict[str, Any]:
    """Write the encoded pictures of all splits into an empty folder and return the manifest. Raises DataError."""
    check_room(folder, sum(os.path.getsize(path) for path in found.files))
    manifest: dict[str, Any] = {"class_names": list(loaded.class_names), "splits": {}}
    for split, part in loaded.parts.items():
        assert not isinstance(part, PixelPart)
        offsets = np.zeros(len(part.labels) + 1, dtype=np.int64)
        with (folder / f"{split}.pictures").open("wb") as file:
            for position, picture in enumerate(part.pictures()):
                content = Path(picture.where).read_bytes() if picture.content is None else picture.content
                offsets[position + 1] = offsets[position] + file.write(content)
                progress(f"collecting the {split} images", (position + 1) / len(part.labels))
        np.save(folder / f"{split}.offsets.npy", offsets)
        np.save(folder / f"{split}.labels.npy", part.labels)
        manifest["splits"][split] = {"pictures": len(part.labels)}
    return manifest


def open_packed(entry: Entry, split: str) -> tuple[np.ndarray, Callable[[int], Picture]]:
    """Return the labels of a split, and what reads the picture at one position."""
    offsets = np.load(entry.folder / f"{split}.offsets.npy", mmap_mode="r", allow_pickle=False)
    labels = np.load(entry.folder / f"{split}.labels.npy", allow_pickle=False)
    content = np.memmap(entry.folder / f"{split}.pictures", dtype=np.uint8, mode="r")

    def picture(position: int) -> Picture:
        encoded = content[offsets[position] : offsets[position + 1]].tobytes()
        return Picture(f"{split} row {position} of the Parquet shards", encoded)

    return labels, picture
