"""Are JPEG 2000 and AVIF read like other pictures, by processes that no lie about a size fills or ends for long?"""

from __future__ import annotations

import io
import os
import signal
import struct
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.data import open_source
from engine.data.parts import Picture
from engine.data.pictures import confined_decoding, decoding, picture_files
from engine.data.pictures.confined_decoding import CONFINED_FORMATS, confined_format, confined_formats
from engine.data.pictures.decoding import check, decoded, num_pixels
from engine.data.pictures.picture_limits import PIXELS_VARIABLE, PictureError
from engine.data.readers.folder import find_folder
from engine.recipes.data import Data


def having(kind: str) -> Any:
    return pytest.param(kind, marks=pytest.mark.skipif(kind not in confined_formats(), reason=f"Pillow lacks {kind}"))


EACH = pytest.mark.parametrize("kind", [having(kind) for kind in CONFINED_FORMATS])
needs_jpeg_2000 = pytest.mark.skipif("JPEG2000" not in confined_formats(), reason="Pillow lacks JPEG2000")
needs_avif = pytest.mark.skipif("AVIF" not in confined_formats(), reason="Pillow lacks AVIF")


def saved(kind: str, mode: str = "RGB", side: int = 12, **options: Any) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (side, side + 3, 4), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(content, kind, **options)
    return content.getvalue()


def decode(content: bytes) -> np.ndarray:
    with decoded(Picture("x", content)) as (image, _):
        return np.asarray(image)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
@EACH
def test_the_values_are_those_of_the_image_library(kind: str, mode: str) -> None:
    content = saved(kind, mode)
    assert confined_format(content) == kind
    with Image.open(io.BytesIO(content)) as image:
        expected = np.asarray(image.convert("RGBA"))
    with decoded(Picture("x", content)) as (found, composed):
        values = np.asarray(found)
    assert composed == mode.endswith("A") == check(Picture("x", content))
    solid = expected[..., 3] == 255
    np.testing.assert_array_equal(values[solid], expected[solid][:, :3])
    assert (values[expected[..., 3] == 0] == 255).all()
    assert num_pixels(Picture("x", content)) == 12 * 15


@needs_jpeg_2000
def test_a_bare_stream_and_other_modes_are_read() -> None:
    content = saved("JPEG2000", no_jp2=True)
    with Image.open(io.BytesIO(content)) as image:
        np.testing.assert_array_equal(decode(content), np.asarray(image))
    sixteen = io.BytesIO()
    Image.fromarray(np.arange(144, dtype=np.uint16).reshape(12, 12) * 400).save(sixteen, "JPEG2000")
    with pytest.raises(PictureError, match=r"has more than 8 bits per channel \(mode I;16\), expected 8; convert it"):
        decode(sixteen.getvalue())


@EACH
def test_they_are_found_by_their_ending_and_by_their_content(kind: str, writers: Any, tmp_path: Path) -> None:
    root = tmp_path / "set"
    for split in ("train", "val"):
        writers.folder(root, split, {name: writers.images(2, 8) for name in ("a", "b")})
    for ending in picture_files.ENDINGS[kind]:
        (root / "train" / "a" / f"x{ending.upper()}").write_bytes(saved(kind))
    (root / "train" / "b" / "without_ending").write_bytes(saved(kind))
    (root / "train" / "b" / "heic.picture").write_bytes(b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(99))
    (root / "train" / "b" / "container").write_bytes(
        saved(kind).replace(b"ftypavif\0\0\0\0avif", b"ftypmif1\0\0\0\0avif")
    )
    source = open_source(Data(name="folder", root=str(root), batch_size=2, image_size=8), seed=0)
    assert source.facts.sizes["train"] == 6 + len(picture_files.ENDINGS[kind])
    assert [left.number for left in find_folder(root).survey.left_out] == [1]


@EACH
def test_without_its_codec_a_format_is_named_and_counted(
    kind: str, writers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "set"
    for split in ("train", "val"):
        writers.folder(root, split, {name: writers.images(2, 8) for name in ("a", "b")})
    for name in (f"x{picture_files.ENDINGS[kind][0]}", "without_ending"):
        (root / "train" / "a" / name).write_bytes(saved(kind))
    others = confined_formats() - {kind}
    for module in (picture_files, decoding):
        monkeypatch.setattr(module, "confined_formats", lambda: others)
    (left,) = find_folder(root).survey.left_out
    assert (left.number, left.reason) == (
        2,
        f"{kind} pictures, which the image library of this installation cannot read, to be converted to PNG",
    )
    with pytest.raises(PictureError, match=f"x is {kind}, which the image library of this installation cannot read"):
        decode(saved(kind))


@EACH
def test_too_many_pixels_are_refused_before_they_are_decoded(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PIXELS_VARIABLE, "449")
    monkeypatch.setattr(confined_decoding.ConfinedPicture, "load", lambda picture: pytest.fail("decoded"))
    with pytest.raises(PictureError, match=r"12 = 180 pixels, more than the 179 that are decoded, .*PIXELS=450; set"):
        decode(saved(kind))
    monkeypatch.undo()
    monkeypatch.setenv(PIXELS_VARIABLE, "450")
    assert decode(saved(kind)).shape == (12, 15, 3)


def shrunk_avif(side: int) -> bytes:
    """Return an AVIF whose container says that it has 8 x 8 pixels."""
    content = io.BytesIO()
    Image.new("RGB", (side, side)).save(content, "AVIF", speed=10, subsampling="4:4:4")
    sides = struct.pack(">4sIII", b"ispe", 0, side, side)
    assert sides in content.getvalue()
    return content.getvalue().replace(sides, struct.pack(">4sIII", b"ispe", 0, 8, 8))


@needs_avif
def test_a_stream_that_is_larger_than_its_container_says_gets_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    content = shrunk_avif(3000)
    monkeypatch.setattr(confined_decoding, "_OVERHEAD_BYTES", 1 << 24)
    with pytest.raises(PictureError, match=r"^x cannot be decoded \(.*, so it is damaged, or larger than it says; "):
        decode(content)
    # It was the memory, and the next picture is read.
    assert decode(saved("AVIF")).shape == (12, 15, 3)
    monkeypatch.setattr(confined_decoding, "_OVERHEAD_BYTES", 1 << 30)
    assert decode(content).shape == (8, 8, 3)


def jpeg_2000_of(width: int, height: int, components: int = 3) -> bytes:
    """Return a JPEG 2000 whose container says 15 x 12, and whose stream says something else."""
    content = bytearray(saved("JPEG2000"))
    place = content.index(b"\xff\x4f\xff\x51") + 8
    for offset, value in ((0, width), (4, height), (16, width), (20, height)):
        content[place + offset : place + offset + 4] = struct.pack(">I", value)
    content[place + 32 : place + 34] = struct.pack(">H", components)
    return bytes(content)


@needs_jpeg_2000
@pytest.mark.parametrize(
    "content",
    [
        jpeg_2000_of(60_000, 60_000) if "JPEG2000" in confined_formats() else b"",
        jpeg_2000_of(15, 2**32 - 1) if "JPEG2000" in confined_formats() else b"",
        jpeg_2000_of(15, 12, 16_384) if "JPEG2000" in confined_formats() else b"",
        b"\x00\x00\x00\x0cjP  \r\n\x87\n",
        b"\xff\x4f\xff\x51" + bytes(64),
        b"\xff\x4f\xff\x51" + struct.pack(">HHIIIIIIIIH", 47, 0, 5, 5, 9, 9, 5, 5, 0, 0, 1) + bytes(64),
    ],
    ids=["large", "long", "deep", "cut", "zeros", "negative"],
)
def test_contradictory_and_damaged_streams_are_refused(content: bytes) -> None:
    for read in (decode, lambda content: check(Picture("x", content))):
        with pytest.raises(PictureError, match=r"^x cannot be decoded \(.+\), so it is damaged, or larger"):
            read(content)
    assert decode(saved("JPEG2000")).shape == (12, 15, 3)


def reader_of_this_thread() -> int:
    process = confined_decoding._of_this_thread()._process
    assert process is not None
    return process.pid


@EACH
def test_a_reader_that_was_killed_is_replaced(kind: str) -> None:
    content = saved(kind)
    expected = decode(content)
    first = reader_of_this_thread()
    os.kill(first, signal.SIGKILL)
    np.testing.assert_array_equal(decode(content), expected)
    assert reader_of_this_thread() != first


@EACH
def test_what_kills_its_reader_is_refused_by_name(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = saved(kind)

    def die(decoder: Any, *parts: bytes, ask: Any = confined_decoding._Decoder.ask) -> Any:
        # Pixels are asked for by one part.
        if len(parts) == 1:
            os.kill(reader_of_this_thread(), signal.SIGSEGV)
        return ask(decoder, *parts)

    monkeypatch.setattr(confined_decoding._Decoder, "ask", die)
    with pytest.raises(PictureError, match=r"x cannot be decoded \(its reader ended by signal SIGSEGV\), so it is dam"):
        decode(content)


@EACH
def test_a_reader_that_somebody_else_ends_is_asked_again(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = saved(kind)

    def die(picture: Any, load: Any = confined_decoding.ConfinedPicture.load) -> Image.Image:
        os.kill(reader_of_this_thread(), signal.SIGKILL)
        return load(picture)  # type: ignore[no-any-return]

    expected = decode(content)
    monkeypatch.setattr(confined_decoding.ConfinedPicture, "load", die)
    assert (decode(content) == expected).all()


@EACH
def test_an_interrupted_question_is_never_answered_later(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:

        def interrupted(text: bytes) -> None:
            raise KeyboardInterrupt

        patched.setattr(confined_decoding.json, "loads", interrupted)
        with pytest.raises(KeyboardInterrupt):
            decode(saved(kind, side=30))
    assert decode(saved(kind)).shape == (12, 15, 3)


@EACH
def test_a_reader_ends_with_its_thread(kind: str) -> None:
    seen: list[int] = []

    def work() -> None:
        decode(saved(kind))
        seen.append(reader_of_this_thread())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen[0] != os.getpid()
    with pytest.raises(ProcessLookupError):
        os.kill(seen[0], 0)
