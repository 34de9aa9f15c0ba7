"""Images of several sizes, one behind the other in one array on the disk, beside their heights and widths."""

from __future__ import annotations

from pathlib import Path

import numpy as np


class VariedImages:
    """Images or label maps that are read by their positions as from an array of images of one size.

    Args:
        content: uint8 [n], the bytes of all images one after the other.
        sizes: int64 [N, 2], heights and widths.
        axes: in front of height and width: ``(3,)`` for images, ``()`` for label maps.
    """

    def __init__(self, content: np.ndarray, sizes: np.ndarray, axes: tuple[int, ...]) -> None:
        self._content = content
        self._sizes = sizes
        self._axes = axes
        lengths = sizes.prod(axis=1) * int(np.prod(axes, dtype=np.int64))
        self._starts = np.concatenate([[0], np.cumsum(lengths)])

    def __len__(self) -> int:
        return len(self._sizes)

    def __getitem__(self, position: int | np.ndarray) -> np.ndarray:
        """Return one image, or copies of several of one size, with an axis for them in front."""
        if isinstance(position, np.ndarray):
            return np.stack([self[each] for each in position.tolist()])
        start, stop = self._starts[position : position + 2].tolist()
        return self._content[start:stop].reshape(*self._axes, *self._sizes[position].tolist())


def of_one_size(positions: np.ndarray, sizes: np.ndarray | None) -> list[np.ndarray]:
    """Return positions of images, int64 [B], cut wherever the size of the images changes.

    Args:
        positions: of images in the order in which they are evaluated.
        sizes: int64 [N, 2], heights and widths by position; None where all have one size.
    """
    if sizes is None:
        return [positions]
    own = sizes[positions]
    return np.split(positions, 1 + np.flatnonzero((own[1:] != own[:-1]).any(axis=1)))


def write_header(path: Path, shape: tuple[int, ...]) -> None:
    """Give a .npy file of bytes another shape with as many elements, in place."""
    with path.open("r+b") as file:
        np.lib.format.read_magic(file)
        np.lib.format.read_array_header_1_0(file)
        length = file.tell()
        file.seek(0)
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        assert file.tell() == length, "the headers of arrays of bytes have one length"
