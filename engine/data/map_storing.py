"""Writes the label maps of a split beside its images: NAME.labels.npy, uint8 [N, H, W], or [n] of several sizes."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from engine.data.cache import check_room
from engine.data.parts import EncodedPart, Picture
from engine.data.pictures.findings import Findings
from engine.data.pictures.fitting import Fitting
from engine.data.pictures.label_maps import check_fit, encoded_map, fit_map
from engine.data.threads import groups, in_order, num_threads

_AT_ONCE = 8


def store_maps(
    part: EncodedPart,
    fitting: Fitting | None,
    shape: tuple[int, ...],
    place: Path,
    pool: ThreadPoolExecutor,
    findings: Findings,
    digest: Any,
    report: Callable[[float], None],
) -> list[int]:
    """Write the label maps of a split, and return how many pixels hold each value, 256 numbers.

    Args:
        part: the split.
        fitting: what the pictures were brought to; None for their own size.
        shape: of the stored maps, [N, H, W]; [n], one after the other, where they have several sizes.
        place: the file.
        pool: threads.
        findings: takes the maps that cannot be used.
        digest: of the split's content, to which the maps are added.
        report: told the share that is done.
    """
    assert part.maps is not None
    number = len(part.maps.paths)
    check_room(place.parent, math.prod(shape))
    counts = np.zeros(256, dtype=np.int64)
    pairs = groups(zip(part.pictures(), part.maps.paths, strict=True), _AT_ONCE)
    done = 0

    def read(group: list[tuple[Picture, str]]) -> tuple[list[np.ndarray], Findings]:
        return _read(group, part, fitting)

    blocks: Iterator[tuple[list[np.ndarray], Findings]] = in_order(read, pairs, pool)
    with place.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|u1", "fortran_order": False, "shape": tuple(map(int, shape))}
        )
        for maps, found in blocks:
            findings.add(found)
            done += len(maps) + len(found.faults)
            report(min(1.0, done / number))
            for label_map in maps if not findings.faults else ():
                content = np.ascontiguousarray(label_map)
                file.write(content.data)
                digest.update(content.data)
                counts += np.bincount(content.ravel(), minlength=256)
    return [int(count) for count in counts]


def look_for_faults(part: EncodedPart, findings: Findings) -> None:
    """Note the label maps of a split that cannot be used, where nothing is stored because others cannot be."""
    assert part.maps is not None
    known = frozenset(fault.where for fault in findings.faults)
    pairs = groups(zip(part.pictures(), part.maps.paths, strict=True), _AT_ONCE)
    with ThreadPoolExecutor(num_threads()) as pool:
        for _, found in in_order(lambda group: _read(group, part, None, known), pairs, pool):
            findings.add(found)


def _read(
    group: list[tuple[Picture, str]], part: EncodedPart, fitting: Fitting | None, known: Collection[str] = ()
) -> tuple[list[np.ndarray], Findings]:
    """Return the label maps of a group, and what is wrong with others; `known` pictures are not looked at again."""
    assert part.maps is not None
    maps, found = [], Findings()
    for picture, path in group:
        with found.noting(encoded_map(path)):
            label_map = part.maps.read(path)
            if picture.where not in known:
                check_fit(picture, path, label_map)
            maps.append(fit_map(label_map, fitting))
    return maps, found
