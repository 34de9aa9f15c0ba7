"""Check that every picture can be decoded, before anything is trained, for sets that are decoded while they are used.

A picture that is found to be damaged after hours of training would end it, and the repaired set would be another one
than the checkpoints were trained on. Decoding all of them once costs a quarter of what an epoch's decoding and cropping
does (docs/results/data-pipeline.md). What was found is kept in the cache, so it is found out again only when a
picture's size or time has changed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from engine.data.cache import cache_root, plain_folder, read_note, write_note
from engine.data.images import EncodedImages, Images
from engine.data.parts import Picture, Progress
from engine.data.pictures.decoding import check
from engine.data.pictures.findings import Findings
from engine.data.pictures.picture_limits import pixel_limit
from engine.data.threads import groups, in_order, num_threads
from engine.errors import DataError
from engine.reading import naming

_FOLDER = "checked"
_PICTURES_AT_ONCE = 32


def check_pictures(
    images: Mapping[str, Images], chosen: Mapping[str, np.ndarray], fingerprint: str, progress: Progress
) -> None:
    """Decode every picture once that will be used, unless that was done before; say how many are transparent.

    Args:
        images: the images of each split; those that are decoded already are left alone.
        chosen: by split, the positions that are used, int64 [n].
        fingerprint: of the content, the split and what is labelled.
        progress: told how many pictures are done.

    Raises:
        DataError: pictures cannot be used; all of them are named.
    """
    encoded = {split: found for split, found in images.items() if isinstance(found, EncodedImages) and split in chosen}
    if not encoded:
        return
    state = _state(encoded, chosen, fingerprint)
    folder, known = None, None
    try:
        folder = cache_root() / _FOLDER
        known = (read_note(folder / f"{state}.json") or {}).get("transparent")
    except DataError as error:
        progress(f"all pictures will be checked again next time ({error})", None)
    findings = Findings()
    if isinstance(known, int):
        findings.transparent = known
    else:
        total, seen = sum(len(chosen[split]) for split in encoded), 0
        with ThreadPoolExecutor(num_threads()) as pool:
            for found in in_order(_check_group, groups(_pictures(encoded, chosen), _PICTURES_AT_ONCE), pool):
                findings.add(found)
                seen += _PICTURES_AT_ONCE
                progress("checking that all pictures can be decoded", min(1.0, seen / total))
        findings.refuse(total)
        if folder is None:
            return findings.tell(progress)
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            plain_folder(folder)
            write_note(folder / f"{state}.json", {"transparent": findings.transparent})
        except (OSError, DataError) as error:
            progress(
                f"all pictures will be checked again next time, because {folder} cannot be written ({error})", None
            )
    findings.tell(progress)


def _pictures(
    encoded: dict[str, EncodedImages], chosen: Mapping[str, np.ndarray]
) -> Iterator[tuple[EncodedImages, int]]:
    for split, images in encoded.items():
        for position in chosen[split].tolist():
            yield images, position


def _check_group(pictures: list[tuple[EncodedImages, int]]) -> Findings:
    found = Findings()
    for images, position in pictures:
        picture = images.picture(position)
        with found.noting(picture):
            found.transparent += check(picture)
    return found


def _state(encoded: dict[str, EncodedImages], chosen: Mapping[str, np.ndarray], fingerprint: str) -> str:
    digest = hashlib.sha256(f"{pixel_limit()}".encode())
    for split, images in encoded.items():
        positions = chosen[split].tolist()
        if images.picture(positions[0]).content is None:
            for position in positions:
                digest.update(_file_state(images.picture(position)))
        else:
            # The pictures of shards lie in a cache entry, which is named by its content.
            digest.update(f"{fingerprint}\x1f{split}".encode())
    return digest.hexdigest()


def _file_state(picture: Picture) -> bytes:
    with naming(picture.where, DataError):
        state = os.stat(picture.where)
    return f"{picture.where}\x1f{state.st_size}\x1f{state.st_mtime_ns}\x1e".encode(errors="surrogateescape")
