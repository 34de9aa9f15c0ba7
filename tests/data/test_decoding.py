"""Are pictures decoded as ever, in bounded memory, by no reader that starts programs, on white where they are clear?"""

from __future__ import annotations

import io
import pickle
import struct
import subprocess
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.data import open_source
from engine.data.parts import Picture
from engine.data.pictures import decoding, fitting
from engine.data.pictures.decoding import PICTURE_FORMATS, check, decoded
from engine.data.pictures.fitting import Fitting, fit
from engine.data.pictures.picture_limits import PictureError
from engine.errors import DataError
from engine.recipes.data import Data


def decode(picture: Picture) -> Image.Image:
    with decoded(picture) as (image, _):
        return image


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def noise(width: int, height: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def png_of_zeros(width: int, height: int, bits: int = 8, kind: int = 2) -> bytes:
    """Return a PNG of a few bytes, however large it is."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    row = 1 + (width * bits * {0: 1, 2: 3}[kind] + 7) // 8
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(row)) for _ in range(height)) + packer.flush()
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", [name for name in PICTURE_FORMATS if name not in ("QOI", "SUN")])
def test_every_format_is_read_whatever_its_name(kind: str, tmp_path: Path) -> None:
    image = Image.fromarray(noise(9, 7))
    path = tmp_path / "picture.png"
    path.write_bytes(saved(image, kind))
    with Image.open(path) as expected:
        np.testing.assert_array_equal(np.asarray(decode(Picture(str(path)))), np.asarray(expected.convert("RGB")))


@pytest.mark.parametrize(
    "content",
    [
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(x) print\n%%EOF\n",
        b"\xc5\xd0\xd3\xc6" + bytes(100),
        b"%PDF-1.4\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"\xd7\xcd\xc6\x9a" + bytes(100),
        b"",
    ],
    ids=["eps", "binary eps", "pdf", "svg", "wmf", "empty"],
)
def test_no_program_is_started_for_what_is_no_picture(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(*arguments: Any, **options: Any) -> None:
        pytest.fail(f"started {arguments}")

    for name in ("Popen", "call", "check_call", "run"):
        monkeypatch.setattr(subprocess, name, start)
    path = tmp_path / "picture.png"
    path.write_bytes(content)
    with pytest.raises(PictureError, match=r"picture.png cannot be decoded: it does not begin as any of PNG, JPEG, "):
        decode(Picture(str(path)))


def webp(kind: bytes, body: bytes) -> bytes:
    chunk = kind + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


LARGE = {
    "a PNG": (lambda: png_of_zeros(50_000_001, 1, 1, 0), "50,000,001 x 1 = 50,000,001 pixels"),
    "beyond the library's limit": (lambda: png_of_zeros(14_000, 14_000, 1, 0), "196,000,000 pixels"),
    "a WebP with an extended header": (
        lambda: webp(b"VP8X", bytes(4) + (16382).to_bytes(3, "little") * 2),
        "16,383 x 16,383 = 268,402,689 pixels",
    ),
    "a lossless WebP": (
        lambda: webp(b"VP8L", b"\x2f" + ((16382 << 14) | 16382).to_bytes(4, "little") + bytes(5)),
        "16,383 x 16,383",
    ),
    "a lossy WebP": (lambda: webp(b"VP8 ", bytes(3) + b"\x9d\x01\x2a" + struct.pack("<HH", 16383, 16383)), "16,383 x"),
    "a BMP": (lambda: b"BM" + struct.pack("<IIIIiiHHIIIIII", 99, 0, 54, 40, 9999, 9999, 1, 24, *[0] * 6), "9,999 x"),
}


@pytest.mark.parametrize("name", LARGE)
def test_pictures_of_too_many_pixels_are_refused_before_they_are_decoded(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, said = LARGE[name]
    content = make()
    monkeypatch.setattr(Image.Image, "load", lambda image: pytest.fail("decoded"))
    with pytest.raises(PictureError) as refused:
        decode(Picture("x.png", content))
    text = str(refused.value)
    assert text.startswith(f"x.png has {said}")
    allowed = "33,333,333" if "WebP" in name else "50,000,000"
    assert f"more than the {allowed} that are decoded, and takes LOCAL_LEARNING_PICTURE_PIXELS=" in text
    assert text.endswith("; set this environment variable so high, or make the picture smaller")


def test_tiles_that_are_larger_than_their_picture_are_refused() -> None:
    def entry(tag: int, value: int) -> bytes:
        return struct.pack("<HHII", tag, 4, 1, value)

    tags = {256: 8, 257: 8, 258: 8, 259: 1, 262: 1, 277: 1, 322: 30_000, 323: 30_000, 324: 8, 325: 64}
    content = b"II*\0" + struct.pack("<IH", 8, len(tags)) + b"".join(entry(*pair) for pair in tags.items()) + bytes(100)
    with pytest.raises(PictureError, match="30,000 x 30,000 = 900,000,000 pixels"):
        decode(Picture("x.tif", content))


def test_the_remedy_for_too_many_pixels_works(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = Picture("x.png", png_of_zeros(20, 20))
    monkeypatch.setenv("LOCAL_LEARNING_PICTURE_PIXELS", "399")
    with pytest.raises(PictureError, match="20 x 20 = 400 pixels, more than the 399"):
        decode(picture)
    monkeypatch.setenv("LOCAL_LEARNING_PICTURE_PIXELS", "400")
    assert decode(picture).size == (20, 20)
    monkeypatch.setenv("LOCAL_LEARNING_PICTURE_PIXELS", "200000000")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 89_478_485)
    bilevel = Picture("y.png", png_of_zeros(14_000, 14_000, 1, 0))
    with decoding._opened_in_turn(bilevel) as image:
        assert image.size == (14_000, 14_000)


@pytest.mark.parametrize("value", ["many", "0", "-5", "1e9", "9" * 5000, "²"])
def test_a_limit_that_is_no_number_is_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_LEARNING_PICTURE_PIXELS", value)
    with pytest.raises(DataError, match=r"^LOCAL_LEARNING_PICTURE_PIXELS=.*: expected a number of pixels"):
        decode(Picture("x.png", png_of_zeros(2, 2)))


@pytest.mark.parametrize("size", [(1, 200_000), (200_000, 1)])
def test_a_long_picture_is_cropped_before_it_is_resized(
    size: tuple[int, int], writers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    ordinary = Image.Image.resize

    def watched(image: Image.Image, wanted: tuple[int, int], *rest: Any, **options: Any) -> Image.Image:
        made.append(wanted[0] * wanted[1])
        return ordinary(image, wanted, *rest, **options)

    monkeypatch.setattr(Image.Image, "resize", watched)
    for split in ("train", "val"):
        writers.folder(tmp_path / "set", split, {name: writers.images(4, 8) for name in ("a", "b")})
    (tmp_path / "set" / "train" / "a" / "a_0.png").write_bytes(png_of_zeros(*size))
    data = Data(name="folder", root=str(tmp_path / "set"), batch_size=4, image_size=224)
    assert open_source(data, 0).facts.image_shape == (3, 224, 224)
    assert max(made) == 224 * 224


def test_cropping_first_gives_what_cropping_last_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    for size, image_size, resize_size in (((30, 17), 16, 20), ((17, 30), 8, 8), ((5, 90), 32, 37), ((64, 64), 8, 9)):
        image = Image.fromarray(noise(*size))
        last = np.asarray(fit(image, Fitting(image_size, image_size, resize_size))).astype(int)
        monkeypatch.setattr(fitting, "_RESIZED_PIXELS", 0)
        first = np.asarray(fit(image, Fitting(image_size, image_size, resize_size))).astype(int)
        monkeypatch.undo()
        assert first.shape == last.shape == (image_size, image_size, 3)
        # Coordinates are rounded otherwise, and so are the values between the two directions.
        assert np.abs(first - last).max() <= 2
        assert (first == last).mean() > 0.5


def test_ordinary_pictures_are_resized_as_a_whole_as_ever() -> None:
    for size in ((500, 375), (375, 500), (224, 224), (30, 900)):
        image = Image.fromarray(noise(*size))
        width, height = (side * 256 // min(size) for side in size)
        whole = image.resize((width, height), Image.Resampling.BILINEAR)
        left, upper = round((width - 224) / 2), round((height - 224) / 2)
        expected = np.asarray(whole.crop((left, upper, left + 224, upper + 224)))
        np.testing.assert_array_equal(np.asarray(fit(image, Fitting(224, 224, 256))), expected)


def test_what_is_transparent_is_white() -> None:
    layered = noise(6, 4, 4)
    layered[..., 3] = [0, 255, 128, 0, 255, 1]
    with decoded(Picture("x", saved(Image.fromarray(layered), "PNG"))) as (image, composed):
        found = np.asarray(image).astype(int)
    assert composed
    assert (found[:, [0, 3]] == 255).all()
    np.testing.assert_array_equal(found[:, [1, 4]], layered[:, [1, 4], :3])
    half = layered[:, 2, :3] * (128 / 255) + 255 * (127 / 255)
    assert np.abs(found[:, 2] - half).max() <= 1
    # Noise that cannot be seen is not trained on.
    layered[..., 3] = 0
    assert (np.asarray(decode(Picture("x", saved(Image.fromarray(layered), "WEBP", lossless=True)))) == 255).all()


def test_transparent_palettes_greys_and_key_colours_are_white() -> None:
    palette = Image.fromarray(np.array([[0, 1, 2, 0]], dtype=np.uint8), "P")
    palette.putpalette([9, 9, 9, 20, 30, 40, 50, 60, 70])
    seen = [[255] * 3, [20, 30, 40], [50, 60, 70], [255] * 3]
    for kind, options in (("PNG", {"transparency": 0}), ("GIF", {"transparency": 0}), ("PNG", {"transparency": b"\0"})):
        with decoded(Picture("x", saved(palette, kind, **options))) as (image, composed):
            assert composed
            np.testing.assert_array_equal(np.asarray(image)[0], seen)
    grey = Image.fromarray(np.array([[[10, 255], [20, 0]]], dtype=np.uint8), "LA")
    np.testing.assert_array_equal(np.asarray(decode(Picture("x", saved(grey, "PNG"))))[0], [[10] * 3, [255] * 3])
    colours = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], dtype=np.uint8))
    keyed = saved(colours, "PNG", transparency=(4, 5, 6))
    np.testing.assert_array_equal(np.asarray(decode(Picture("x", keyed)))[0], [[1, 2, 3], [255] * 3])


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "LA", "RGBA"])
def test_pictures_that_are_not_transparent_are_converted_as_ever(mode: str) -> None:
    image = Image.fromarray(noise(9, 7)).convert(mode)
    content = saved(image, "TIFF" if mode == "CMYK" else "PNG")
    with Image.open(io.BytesIO(content)) as expected, decoded(Picture("x", content)) as (found, composed):
        np.testing.assert_array_equal(np.asarray(found), np.asarray(expected.convert("RGB")))
    assert not composed


def transparent_folder(writers: Any, root: Path) -> Path:
    for split in ("train", "val"):
        writers.folder(root, split, {name: writers.images(4, 8) for name in ("a", "b")})
    for number in (0, 2):
        (root / "train" / "b" / f"b_{number}.png").write_bytes(saved(Image.new("RGBA", (8, 8), (1, 2, 3, 0)), "PNG"))
    return root


@pytest.mark.parametrize("limit", [1 << 30, 10], ids=["stored", "decoded ahead"])
def test_transparent_pictures_are_counted_whenever_a_set_is_opened(writers: Any, tmp_path: Path, limit: int) -> None:
    root = transparent_folder(writers, tmp_path / "set")
    data = Data(name="folder", root=str(root), batch_size=4, image_size=8)
    for _ in range(2):
        source = open_source(data, 0, stored_limit_bytes=limit)
        assert "2 pictures are transparent; white is put behind them" in source.inventory.to_json()["notes"]
        images = np.concatenate([batch.images for batch in source.evaluation_batches("train")])
        assert [(image == 255).all() for image in images] == [False] * 4 + [True, False, True, False]
        source.close()


def test_more_than_8_bits_and_missing_files_are_named() -> None:
    deep = saved(Image.fromarray(np.zeros((4, 4), dtype=np.uint16)), "PNG")
    with pytest.raises(
        PictureError, match=r"^x has more than 8 bits per channel \(mode I;16\), expected 8; convert it"
    ):
        decode(Picture("x", deep))
    with pytest.raises(DataError, match="nowhere.png: there is no such file"):
        decode(Picture("/nowhere.png"))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"])
def test_what_passes_the_check_can_be_decoded_and_the_other_way_round(kind: str) -> None:
    whole = saved(Image.fromarray(noise(40, 30)), kind, **({"progressive": True} if kind == "JPEG" else {}))

    def passes(work: Any, content: bytes) -> bool:
        try:
            work(Picture("x", content))
        except PictureError:
            return False
        return True

    lengths = range(1, len(whole) + 1, max(1, len(whole) // 60))
    results = [(passes(check, whole[:length]), passes(decode, whole[:length])) for length in (*lengths, len(whole))]
    assert all(first == second for first, second in results)
    assert results[-1] == (True, True)
    assert (False, False) in results


def test_an_error_of_a_picture_survives_another_process() -> None:
    error = pickle.loads(pickle.dumps(PictureError("x.png", "is blue", "paint it")))
    assert (str(error), error.where, error.cause) == ("x.png is blue; paint it", "x.png", "is blue")
