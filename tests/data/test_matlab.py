"""Are MATLAB's files read as scipy reads them, and damaged ones refused without dying or taking memory?"""

from __future__ import annotations

import contextlib
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from scipy import io

from engine.data.parts import PixelPart
from engine.data.readers.matlab import MatlabError, read_arrays
from engine.data.readers.svhn import find_svhn
from engine.errors import DataError

LIMITS = {"X": 1 << 20, "y": 1 << 16}


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("labels", [np.uint8, np.float64, np.int32, np.uint16])
def test_arrays_are_those_that_scipy_reads(tmp_path: Path, writers: Any, compressed: bool, labels: Any) -> None:
    images = np.ascontiguousarray(writers.images(7).transpose(2, 3, 1, 0))
    content = {"X": images, "other": np.arange(5000.0), "text": "abc", "y": np.arange(1, 8, dtype=labels)[:, None]}
    io.savemat(tmp_path / "a.mat", content, do_compression=compressed)
    found, expected = read_arrays(tmp_path / "a.mat", LIMITS), io.loadmat(tmp_path / "a.mat")
    assert sorted(found) == ["X", "y"]
    for name, values in found.items():
        assert values.dtype == expected[name].dtype
        np.testing.assert_array_equal(values, expected[name])


def matrix(name: bytes, dimensions: tuple[int, ...], values: bytes, order: str = "<", kind: int = 2) -> bytes:
    """Return an array as an element, with what the arguments say whether it fits together or not."""

    def element(number: int, content: bytes) -> bytes:
        return struct.pack(f"{order}II", number, len(content)) + content + b"\0" * (-len(content) % 8)

    inside = element(6, struct.pack(f"{order}II", 9, 0))
    inside += element(5, struct.pack(f"{order}{len(dimensions)}i", *dimensions))
    inside += element(1, name) + element(kind, values)
    return struct.pack(f"{order}II", 14, len(inside)) + inside


def mat(*elements: bytes, order: str = "<") -> bytes:
    mark = b"IM" if order == "<" else b"MI"
    return b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack(f"{order}H", 0x0100) + mark + b"".join(elements)


def packed(element: bytes, order: str = "<") -> bytes:
    content = zlib.compress(element)
    return struct.pack(f"{order}II", 15, len(content)) + content


def test_big_endian_and_short_elements(tmp_path: Path) -> None:
    (tmp_path / "a.mat").write_bytes(
        mat(
            packed(matrix(b"X", (2, 3), bytes(range(6)), ">"), ">"),
            matrix(b"y", (1, 2), b"\0\1\0\2", ">", 4),
            order=">",
        )
    )
    found = read_arrays(tmp_path / "a.mat", LIMITS)
    np.testing.assert_array_equal(found["X"], [[0, 2, 4], [1, 3, 5]])
    np.testing.assert_array_equal(found["y"], [[1, 2]])
    io.savemat(tmp_path / "b.mat", {"X": np.array([[1, 2]], dtype=np.uint8)})  # scipy puts these inside the tag
    np.testing.assert_array_equal(read_arrays(tmp_path / "b.mat", LIMITS)["X"], [[1, 2]])


WRONG = {
    "values for other dimensions": (mat(matrix(b"X", (2, 4), bytes(6))), "6 bytes of uint8 for the dimensions"),
    "negative dimensions": (mat(matrix(b"X", (-2, -3), bytes(6))), "no array of real numbers"),
    "more than is allowed": (mat(matrix(b"y", (70000, 1), bytes(70000))), "70,000 bytes, expected at most 65,536"),
    "a bomb": (mat(packed(matrix(b"X", (1 << 29, 1), b""))), "0 bytes of uint8 for the dimensions"),
    "too long a name": (mat(matrix(b"X" * 65, (1, 1), b"1")), "has 65 bytes, expected at most 64"),
    "an unknown type": (mat(matrix(b"X", (2, 3), bytes(6), kind=11)), "unknown type 11"),
    "two arrays of one name": (mat(matrix(b"X", (1, 1), b"1") * 2), "two arrays called X"),
    "no array": (mat(struct.pack("<II", 2, 8) + bytes(8)), "element of type 2, expected arrays"),
    "many arrays": (mat(matrix(b"z", (1, 1), b"1") * 65), "more than 64 arrays"),
    "a size beyond the end": (mat(matrix(b"X", (2, 3), bytes(6)))[:-1], "ends 1 bytes too early"),
    "7.3": (b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM", "MATLAB 7.3 in another format"),
    "text": (b"x" * 500, "does not begin as a MATLAB file"),
    "nothing": (b"", "shorter than a header"),
    "values behind the array": (mat(packed(matrix(b"X", (1, 1), b"1") + bytes(8))), "shorter than its element"),
    "no checksum": (
        mat(struct.pack("<II", 15, 40) + zlib.compress(matrix(b"X", (9, 9), bytes(81)))[:-4].ljust(40, b"\0")[:40]),
        "damaged|checksum|longer",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_is_refused(tmp_path: Path, name: str) -> None:
    content, said = WRONG[name]
    (tmp_path / "a.mat").write_bytes(content)
    with pytest.raises(MatlabError, match=said):
        read_arrays(tmp_path / "a.mat", LIMITS)


def test_any_flipped_byte_of_compressed_pixels_is_found(tmp_path: Path, writers: Any) -> None:
    whole = bytearray(mat(packed(matrix(b"X", (32, 32, 3), writers.images(1).tobytes()))))
    for place in range(200, len(whole), 97):
        damaged = bytearray(whole)
        damaged[place] ^= 4
        (tmp_path / "a.mat").write_bytes(damaged)
        with pytest.raises(MatlabError):
            read_arrays(tmp_path / "a.mat", LIMITS)


@pytest.mark.slow
@seed(0)
@settings(max_examples=400, database=None)
@given(st.data())
def test_damaged_files_of_svhn_are_refused_or_read(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    root = tmp_path_factory.getbasetemp() / "fuzzed_svhn"
    root.mkdir(exist_ok=True)
    images = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 10), dtype=np.uint8)
    for split in ("train", "test"):
        compressed = data.draw(st.booleans())
        io.savemat(
            root / f"{split}_32x32.mat",
            {"X": images, "y": np.arange(1, 11, dtype=np.uint8)[:, None]},
            do_compression=compressed,
        )
    path = root / "train_32x32.mat"
    content = bytearray(path.read_bytes())
    # Most of a file is pixels; what decides is in its first bytes and behind the pixels.
    places = st.one_of(st.integers(0, 300), st.integers(max(0, len(content) - 200), len(content) - 1))
    for _ in range(data.draw(st.integers(1, 4))):
        place = min(data.draw(places), len(content) - 1)
        kind = data.draw(st.sampled_from(["flip", "cut", "insert", "number"]))
        if kind == "flip":
            content[place] ^= 1 << data.draw(st.integers(0, 7))
        elif kind == "cut" and place:
            del content[place:]
        elif kind == "insert":
            content[place:place] = data.draw(st.binary(min_size=1, max_size=9))
        elif kind == "number":
            content[place : place + 4] = struct.pack(
                "<I", data.draw(st.sampled_from([0, 1, 2**31 - 1, 2**31, 2**32 - 1]))
            )
    path.write_bytes(content)
    found = find_svhn(root, strict=False)
    assert found is not None
    with contextlib.suppress(DataError):
        loaded = found.load()
        part = loaded.parts["train"]
        assert isinstance(part, PixelPart)
        assert sum(map(len, part.blocks())) == len(part.labels)
