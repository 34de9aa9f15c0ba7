"""Are damaged pictures, cache entries and packed sets refused or mended, whatever bytes are changed?"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from PIL import Image

from engine.data import Source, cache_root, open_source
from engine.data.parts import Picture
from engine.data.pictures.confined_decoding import CONFINED_FORMATS, confined_formats
from engine.data.pictures.decoding import check, decoded
from engine.data.pictures.fitting import Fitting, fit
from engine.errors import DataError
from engine.recipes.data import Data

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),
]

INTERESTING = [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\1\0", b"\0\1\0\0"]


def changed(data: Any, content: bytes) -> bytes:
    """Draw a damaged copy: bits flipped, numbers replaced, bytes inserted, removed or cut off."""
    result = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        # What decides is mostly in the first bytes.
        places = st.one_of(st.integers(0, 64), st.integers(0, max(0, len(result) - 1)))
        place = min(data.draw(places), len(result))
        kind = data.draw(st.sampled_from(["flip", "number", "insert", "remove", "cut"]))
        if kind == "flip" and place < len(result):
            result[place] ^= 1 << data.draw(st.integers(0, 7))
        elif kind == "number":
            result[place : place + 4] = data.draw(st.sampled_from(INTERESTING))
        elif kind == "insert":
            result[place:place] = data.draw(st.binary(min_size=1, max_size=20))
        elif kind == "remove":
            del result[place : place + data.draw(st.integers(1, 20))]
        elif kind == "cut":
            del result[place:]
    return bytes(result)


def pictures() -> list[bytes]:
    noise = np.random.default_rng(0).integers(0, 256, (20, 24, 4), dtype=np.uint8)
    made = []
    for kind, mode, options in (
        ("PNG", "RGB", {}),
        ("PNG", "P", {"transparency": 3}),
        ("JPEG", "RGB", {}),
        ("JPEG", "CMYK", {"progressive": True}),
        ("GIF", "P", {}),
        ("BMP", "RGB", {}),
        ("WEBP", "RGBA", {"lossless": True}),
        ("WEBP", "RGB", {}),
        ("TIFF", "RGB", {"compression": "tiff_lzw"}),
        ("TIFF", "RGB", {"compression": "jpeg"}),
        ("TIFF", "L", {}),
        ("PPM", "RGB", {}),
        ("SGI", "RGB", {}),
        ("JPEG2000", "RGB", {}),
        ("JPEG2000", "LA", {"no_jp2": True}),
        ("AVIF", "RGBA", {}),
    ):
        if kind in CONFINED_FORMATS and kind not in confined_formats():
            continue
        content = io.BytesIO()
        Image.fromarray(noise).convert(mode).save(content, kind, **options)
        made.append(content.getvalue())
    return made


WHOLE = pictures()


@seed(0)
@settings(max_examples=700, database=None)
@given(st.data())
def test_damaged_pictures_are_refused_or_read(data: Any) -> None:
    content = changed(data, data.draw(st.sampled_from(WHOLE)))
    with contextlib.suppress(DataError):
        check(Picture("x.png", content))
    with contextlib.suppress(DataError), decoded(Picture("x.png", content)) as (found, _):
        assert found.mode == "RGB"
        assert fit(found, Fitting(16, 16, 18)).size == (16, 16)


def small_set(folder: Path, kind: str) -> Data:
    noise = np.random.default_rng(1).integers(0, 256, (2, 6, 8, 8, 3), dtype=np.uint8)
    for split in ("train", "val"):
        for label, name in enumerate(("a", "b")):
            (folder / split / name).mkdir(parents=True)
            for number in range(3):
                Image.fromarray(noise[label, number]).save(folder / split / name / f"{number}.png")
    if kind == "folder":
        return Data(name="folder", root=str(folder), batch_size=2, image_size=8)
    import pyarrow
    import pyarrow.parquet

    for split in ("train", "val"):
        paths = sorted((folder / split).rglob("*.png"))
        columns = {
            "image": [path.read_bytes() for path in paths],
            "label": [int(path.parent.name == "b") for path in paths],
        }
        pyarrow.parquet.write_table(pyarrow.table(columns), folder / f"{split}.parquet")
    return Data(name="parquet", root=str(folder), batch_size=2, image_size=8)


def everything(source: Source) -> list[np.ndarray]:
    with contextlib.closing(source):
        batches = [batch for split in ("train", "test") for batch in source.evaluation_batches(split)]
    return [values for batch in batches for values in (batch.images, batch.labels)]


@pytest.mark.parametrize("kind", ["folder", "parquet"])
def test_damaged_entries_give_the_images_that_were_written_or_one_error_whose_remedy_works(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A set of folders is kept decoded, one of Parquet shards is packed."""
    recipe, limit = small_set(tmp_path / "set", kind), 1 << 30 if kind == "folder" else 10
    first = everything(open_source(recipe, 0, stored_limit_bytes=limit))
    whole = tmp_path / "whole"
    shutil.copytree(cache_root(), whole)
    files = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file())
    assert len(files) >= 6
    outside = tmp_path / "outside"
    outside.mkdir()

    @seed(0)
    @settings(max_examples=70, database=None)
    @given(st.data())
    def damage(data: Any) -> None:
        shutil.rmtree(cache_root())
        shutil.copytree(whole, cache_root())
        path = cache_root() / data.draw(st.sampled_from(files))
        how = data.draw(st.sampled_from(["bytes", "bytes", "bytes", "missing", "link", "folder", "pipe"]))
        content = path.read_bytes()
        path.unlink()
        if how == "bytes":
            path.write_bytes(changed(data, content))
        elif how == "link":
            (outside / "file").write_bytes(content)
            path.symlink_to(outside / "file")
        elif how == "folder":
            path.mkdir()
        elif how == "pipe":
            os.mkfifo(path)
        try:
            found = everything(open_source(recipe, 0, stored_limit_bytes=limit))
        except DataError:
            # The remedy of each of them is to give the same command again.
            found = everything(open_source(recipe, 0, stored_limit_bytes=limit))
        for one, other in zip(first, found, strict=True):
            np.testing.assert_array_equal(one, other)
        if how == "link":
            assert (outside / "file").read_bytes() == content
        assert sorted(path.name for path in outside.iterdir()) in ([], ["file"])

    damage()
