"""Pictures in Parquet shards by position, when they are too many to keep decoded.

Shards can only be read as a stream, so their encoded pictures are copied once into NAME.pictures, one after the
other, with their beginnings in NAME.offsets.npy, int64 [N + 1], their checksums (CRC-32) in NAME.checksums.npy,
uint32 [N], and the labels in NAME.labels.npy. NAME.pictures may have hundreds of gigabytes, so it is not read through
when it is opened: each picture is compared with its checksum whenever it is read.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from engine.data.cache import check_room
from engine.data.entries import CHECKED_WHEN_READ, MANIFEST, DamagedEntry, Entry
from engine.data.parts import EncodedPart, Found, Loaded, Picture, Progress
from engine.data.pictures.decoding import encoded
from engine.errors import DataError
from engine.reading import naming


def pack(found: Found, loaded: Loaded, folder: Path, progress: Progress) -> dict[str, Any]:
    """Write the encoded pictures of all splits into an empty folder and return the manifest. Raises DataError."""
    check_room(folder, sum(os.path.getsize(path) for path in found.files))
    manifest: dict[str, Any] = {"class_names": list(loaded.class_names), "splits": {}, CHECKED_WHEN_READ: []}
    for split, part in loaded.parts.items():
        assert isinstance(part, EncodedPart)
        number, position = len(part.labels), 0
        offsets = np.zeros(number + 1, dtype=np.int64)
        checksums = np.zeros(number, dtype=np.uint32)
        with (folder / f"{split}.pictures").open("wb") as file:
            for picture in part.pictures():
                if position == number:
                    raise DataError(f"the {split} split has {number:,} labels but more images; fetch the files again")
                content = encoded(picture)
                offsets[position + 1] = offsets[position] + file.write(content)
                checksums[position] = zlib.crc32(content)
                position += 1
                progress(f"collecting the {split} images", position / number)
        if position < number:
            raise DataError(f"the {split} split has {number:,} labels but {position:,} images; fetch the files again")
        np.save(folder / f"{split}.offsets.npy", offsets)
        np.save(folder / f"{split}.checksums.npy", checksums)
        np.save(folder / f"{split}.labels.npy", part.labels)
        manifest["splits"][split] = {"pictures": number}
        manifest[CHECKED_WHEN_READ].append(f"{split}.pictures")
    return manifest


def open_packed(entry: Entry, split: str) -> tuple[np.ndarray, Callable[[int], Picture]]:
    """Return the labels of a split, and what reads the picture at one position. Raises DataError."""
    path = entry.folder / f"{split}.pictures"
    with naming(entry.folder, DataError):
        offsets = np.load(entry.folder / f"{split}.offsets.npy", mmap_mode="r", allow_pickle=False)
        checksums = np.load(entry.folder / f"{split}.checksums.npy", allow_pickle=False)
        labels = np.load(entry.folder / f"{split}.labels.npy", allow_pickle=False)
        content = np.memmap(path, dtype=np.uint8, mode="r")

    def picture(position: int) -> Picture:
        taken = content[offsets[position] : offsets[position + 1]].tobytes()
        if zlib.crc32(taken) != checksums[position]:
            # Without its manifest the entry is built again when it is opened next.
            (entry.folder / MANIFEST).unlink(missing_ok=True)
            raise DamagedEntry(
                f"{path}: picture {position} holds other bytes than were written, so the cache entry is damaged; give "
                "the same command again: the entry is built again from the Parquet shards, and the training goes on"
            )
        return Picture(f"{split} row {position} of the Parquet shards", taken)

    return labels, picture
