"""The parts that a format hands over: its files, its labels, and pictures as pixels or as encoded bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from engine.data.inventory import AS_PUBLISHED, Survey

Progress = Callable[[str, float | None], None]
"""Called with what is being done and the fraction that is done; with None for a remark about the set, to be kept."""

WITH_ITS_ROW = "replace it, or remove it with its row"
"""What can be done about a damaged picture that a table names."""


@dataclass(frozen=True)
class Picture:
    """One encoded picture (PNG, JPEG, ...)."""

    where: str
    """Its path, or its shard and row, for messages."""

    content: bytes | None = None
    """The encoded bytes; None when they are the content of the file `where`."""

    remedy: str = "replace or remove it"
    """What can be done where it is damaged, in words: what belongs to it may have to go with it."""


@dataclass(frozen=True)
class MapFiles:
    """The label maps of one split."""

    paths: tuple[str, ...]
    """Of the N pictures, in order."""

    read: Callable[[str], np.ndarray]
    """Gives the classes of one, uint8 [H, W], 255 where a pixel has none. Raises PictureError."""


@dataclass(frozen=True)
class EncodedPart:
    """One split whose pictures have to be decoded."""

    labels: np.ndarray
    """int64 [N]."""

    pictures: Callable[[], Iterable[Picture]]
    """Starts a stream of all N pictures, in order."""

    picture: Callable[[int], Picture] | None = None
    """Reads the picture at one position; None when the files can only be streamed."""

    shape: tuple[int, int, int] | None = None
    """Channels, height and width that every picture must have; None when the format does not say."""

    maps: MapFiles | None = None
    """The label maps; None where each picture has one class. The labels are then 0."""

    labels_listed: bool = False
    """Whether a list says which label a picture has, which can change without any picture's place or size."""


@dataclass(frozen=True)
class PixelPart:
    """One split that holds its pixels as they are."""

    labels: np.ndarray
    """int64 [N]."""

    blocks: Callable[[], Iterable[np.ndarray]]
    """Starts a stream of uint8 [n, C, H, W] arrays, in order, N images in all."""


@dataclass(frozen=True)
class Loaded:
    """A data set whose labels have been read and checked."""

    class_names: tuple[str, ...]
    parts: dict[str, EncodedPart | PixelPart]
    """By split: train, test, and validation where the data set brings its own."""


@dataclass(frozen=True)
class Found:
    """A data set as it lies on the disk; nothing is read yet."""

    root: str
    """Folder that the names of the files are relative to."""

    files: tuple[str, ...]
    """Every file whose bytes decide the images or the labels."""

    load: Callable[[], Loaded]
    """Reads and checks the labels. Raises DataError."""

    num_pictures: int | None = None
    """Number of pictures when they may be large and many; None for the sets of small, fixed size."""

    label_maps: bool = False
    """Whether every picture comes with a label map."""

    survey: Survey = AS_PUBLISHED
    """What the reader saw, used or not."""

    reading: dict[str, Any] = field(default_factory=dict)
    """What else decides how these files are read, where they leave a choice: plain JSON values; part of the key under
    which decoded images are kept."""
