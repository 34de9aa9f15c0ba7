"""Is the memory that Parquet shards take bounded, however little of them says how much there is?"""

from __future__ import annotations

import contextlib
import os
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

import engine.data.readers.parquet
import engine.data.storing
from engine.data import open_source
from engine.data.readers import parquet_files, parquet_footer
from engine.data.readers.identity_table import find_identities
from engine.data.readers.parquet import find_parquet, source_files, stream_pictures
from engine.data.readers.parquet_files import all_different, open_shard, read_values
from engine.data.readers.parquet_footer import check_footer
from engine.errors import DataError
from engine.recipes.data import Data

MEBIBYTE = 2**20
BYTES = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])


@contextlib.contextmanager
def at_most(mebibytes: int) -> Iterator[None]:
    """Hold that pyarrow takes no more memory in the block at any time."""
    before = pyarrow.default_memory_pool()
    pool = pyarrow.proxy_memory_pool(before)
    pyarrow.set_memory_pool(pool)
    try:
        yield
    finally:
        pyarrow.set_memory_pool(before)
    assert pool.max_memory() <= mebibytes * MEBIBYTE


def write(path: Path, columns: dict[str, Any], rows: int = 10**6) -> Path:
    """Write a shard in which a value of any length stands once in its row group."""
    pyarrow.parquet.write_table(
        pyarrow.table(columns), path, row_group_size=rows, compression="zstd", dictionary_pagesize_limit=1 << 30
    )
    return path


def repeated(number: int, value: object, kind: pyarrow.DataType) -> pyarrow.Array:
    return pyarrow.array([value], kind).take(pyarrow.array(np.zeros(number, dtype=np.int64)))


@pytest.mark.parametrize("kind", ["struct", "binary"])
def test_a_picture_that_stands_in_every_row_is_in_memory_once(kind: str, tmp_path: Path) -> None:
    content = bytes(4 * MEBIBYTE)
    value, column = ({"bytes": content, "path": None}, BYTES) if kind == "struct" else (content, pyarrow.binary())
    shard = write(tmp_path / "train.parquet", {"image": repeated(60, value, column)})
    assert shard.stat().st_size < 10_000
    with at_most(32):
        assert all(picture.content == content for picture in stream_pictures((shard,), "image"))


def test_pictures_with_many_bytes_for_each_pixel_do_not_wait_for_one_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine.data.storing, "_ENCODED_AHEAD", 16 * MEBIBYTE)
    image = repeated(60, {"bytes": bytes(4 * MEBIBYTE), "path": None}, BYTES)
    for split in ("train", "test"):
        write(tmp_path / f"{split}.parquet", {"image": image, "label": np.arange(60) % 2})
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="60 of 120 pictures cannot be used|cannot be decoded"):
            open_source(Data(name="parquet", root=str(tmp_path), batch_size=2, image_size=8), 0)
        assert tracemalloc.get_traced_memory()[1] < 80 * MEBIBYTE
    finally:
        tracemalloc.stop()


def test_a_picture_of_more_bytes_than_its_pixels_can_have_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = write(tmp_path / "train.parquet", {"image": repeated(2, bytes(2 * MEBIBYTE + 1), pyarrow.binary())})
    monkeypatch.setenv("LOCAL_LEARNING_PICTURE_PIXELS", "1000")
    with pytest.raises(
        DataError,
        match=r"train.parquet row 0 holds a picture of 2,097,153 bytes, more than the 1,052,576 that are read, and "
        r"takes LOCAL_LEARNING_PICTURE_PIXELS=262145; set this environment variable so high, or replace it",
    ):
        list(stream_pictures((shard,), "image"))
    monkeypatch.setenv("LOCAL_LEARNING_PICTURE_PIXELS", "262145")
    assert len(list(stream_pictures((shard,), "image"))) == 2


@pytest.mark.parametrize("kind", ["text", "category"])
@pytest.mark.parametrize("rows", [4, 10**6])
def test_a_word_that_stands_in_every_row_is_in_memory_once(kind: str, rows: int, tmp_path: Path) -> None:
    words = repeated(80, "w" * MEBIBYTE, pyarrow.string())
    labels = words.dictionary_encode() if kind == "category" else words
    shard = write(tmp_path / "train.parquet", {"label": labels}, rows)
    with at_most(16):
        found = read_values(shard, "label")
    assert found is not None
    assert found[0].tolist() == [0] * 80
    assert found[1] == ["w" * MEBIBYTE]
    with at_most(16):
        assert not all_different((shard,), "label")


def test_row_groups_of_one_row_with_one_long_word_are_compared_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_files, "_COMPARED_BYTES", 4 * MEBIBYTE)
    shard = write(tmp_path / "train.parquet", {"label": repeated(40, "w" * MEBIBYTE, pyarrow.string())}, 1)
    with at_most(24):
        assert not all_different((shard,), "label")
    shard = write(tmp_path / "test.parquet", {"label": [f"{number}{'w' * MEBIBYTE}" for number in range(8)]}, 1)
    assert all_different((shard,), "label")


def test_words_are_those_of_the_rows_in_their_order_and_not_those_of_the_file(tmp_path: Path) -> None:
    """A file's own dictionary may have an order of its own, and words that no row has."""
    held = pyarrow.DictionaryArray.from_arrays([2, 0, 2, 1, 0], ["b", "c", "a", "never"])
    for labels in (held, held.cast(pyarrow.string()), held.cast(pyarrow.large_string())):
        for rows in (2, 5):
            found = read_values(write(tmp_path / "train.parquet", {"label": labels}, rows), "label")
            assert found is not None
            assert (found[0].tolist(), found[1]) == ([0, 1, 0, 2, 1], ["a", "b", "c"])


def test_empty_rows_are_counted_over_all_row_groups(tmp_path: Path) -> None:
    for labels in (["a", None, "b", "c", None], [1, None, 2, 3, None]):
        with pytest.raises(DataError, match=r": 2 rows of column label are empty, expected a label in each"):
            read_values(write(tmp_path / "train.parquet", {"label": labels}, 2), "label")
    with pytest.raises(DataError, match=r": 2 rows of column label are empty, expected a label in each"):
        read_values(write(tmp_path / "train.parquet", {"label": ["a", "", "b", "c", ""]}, 2), "label")
    none = write(tmp_path / "train.parquet", {"label": pyarrow.array([None] * 5, pyarrow.string())}, 2)
    assert read_values(none, "label") is None


def test_a_path_that_stands_in_every_row_is_read_a_few_rows_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine.data.readers.parquet, "_PATH_BYTES_AT_ONCE", 4 * MEBIBYTE)
    value = {"bytes": b"picture", "path": "p" * MEBIBYTE}
    shard = write(tmp_path / "train.parquet", {"image": repeated(80, value, BYTES)})
    with at_most(24):
        assert source_files({"train": (shard,)}, "image") == (str(shard),)


def test_a_footer_of_any_stated_length_takes_no_memory(tmp_path: Path) -> None:
    shard = tmp_path / "train.parquet"
    shard.touch()
    os.truncate(shard, 200 * MEBIBYTE)
    with shard.open("r+b") as file:
        file.write(b"PAR1")
        file.seek(-8, os.SEEK_END)
        file.write((199 * MEBIBYTE).to_bytes(4, "little") + b"PAR1")
    (tmp_path / "test.parquet").write_bytes(b"")
    with (
        at_most(1),
        pytest.raises(
            DataError,
            match=r"train.parquet: its last bytes say that its footer has 208,666,624 bytes, expected at most "
            r"134,217,728: .*fetch it again, or write it with larger row groups",
        ),
    ):
        find_parquet(tmp_path)


def stated(path: Path, footer: bytes) -> Path:
    path.write_bytes(b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1")
    return path


def footer_of(pieces: int, column: bytes) -> bytes:
    """What Thrift's compact protocol has for a file of one column, with row groups of 100,000 pieces of it."""
    group = b"\x19\xfc\xa0\x8d\x06" + column * 100_000 + b"\x16\x00\x16\x00\x00"
    groups = pieces // 100_000
    schema = b"\x19\x2c\x48\x01s\x15\x02\x00\x15\x02\x25\x00\x18\x01c\x00"
    return b"\x15\x02" + schema + b"\x16\x00\x19" + bytes([groups << 4 | 12]) + group * groups + b"\x00"


def test_a_footer_that_asks_for_much_memory_is_refused_before_it_is_taken(tmp_path: Path) -> None:
    """Three bytes of a footer, a piece of a column, become 725 in memory."""
    piece = b"\x26\x00\x00"
    few = stated(tmp_path / "train.parquet", footer_of(100_000, piece))
    assert pyarrow.parquet.read_metadata(few).num_row_groups == 1, "this is how such a footer is written"
    assert check_footer(few, DataError) == few.stat().st_size - 12
    told = r"its footer of [36],\d+,\d+ bytes asks for more than 671,088,640 bytes of memory: .*fetch it again"
    for much in (footer_of(1_000_000, piece), b"\x19\xf5\x80\x9b\xee\x02" + bytes(6_000_000)):
        with pytest.raises(DataError, match=told):
            check_footer(stated(few, much), DataError)
    # Of a million pieces that are stated none is there.
    with pytest.raises(DataError, match=r"Exceeded size limit.*: the copy is incomplete or damaged; fetch it again"):
        open_shard(stated(few, footer_of(100_000, b"").replace(b"\xfc\xa0\x8d\x06", b"\xfc\xbf\x84\x3d")))


def test_a_long_footer_of_a_whole_file_is_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = {"image": repeated(400, {"bytes": b"p" * 3000, "path": "p"}, BYTES), "label": np.arange(400)}
    shard = write(tmp_path / "train.parquet", columns, 1)
    raw = shard.read_bytes()
    length = int.from_bytes(raw[-8:-4], "little")
    counter = parquet_footer._Counter(raw[-8 - length : -8])
    counter.struct(0)
    assert counter._place == length
    asked = parquet_footer.MEMORY_BYTES - counter.left
    assert 3 * 400 * 736 < asked < 3 * 400 * 12_000
    monkeypatch.setattr(parquet_footer, "MEMORY_BYTES", asked)
    assert check_footer(shard, DataError) == length
    parquet_footer._asks_too_much.cache_clear()
    monkeypatch.setattr(parquet_footer, "MEMORY_BYTES", asked - 1)
    with pytest.raises(DataError, match="asks for more than"):
        check_footer(shard, DataError)


def test_a_column_of_any_stated_length_takes_no_memory(tmp_path: Path) -> None:
    """A file may say that a piece of a column has all bytes up to its end, and be sparse."""
    content = os.urandom(60 * MEBIBYTE)
    shard = tmp_path / "train.parquet"
    table = pyarrow.table({"image": [content[start : start + MEBIBYTE] for start in range(0, len(content), MEBIBYTE)]})
    pyarrow.parquet.write_table(table, shard, compression="none", use_dictionary=False, write_batch_size=1)
    with at_most(24):
        assert b"".join(picture.content or b"" for picture in stream_pictures((shard,), "image")) == content


def test_a_set_of_too_many_rows_is_refused(writers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_files, "ROWS", 30)
    for split in ("train", "test"):
        writers.parquet(tmp_path / f"{split}.parquet", writers.images(15, 8), np.arange(15) % 3)
    assert find_parquet(tmp_path).num_pictures == 30
    writers.parquet(tmp_path / "test.parquet", writers.images(16, 8), np.arange(16) % 3)
    told = r": has 31 rows, expected at most 30 in a data set: .*fetch it again, or keep fewer rows"
    with pytest.raises(DataError, match=told):
        find_parquet(tmp_path)
    with pytest.raises(DataError, match=told):
        find_identities(tmp_path)


def test_a_file_that_says_it_has_fewer_rows_than_values_is_damaged(tmp_path: Path) -> None:
    shard = write(tmp_path / "train.parquet", {"label": np.arange(60) % 2})
    content = shard.read_bytes()
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    # 60 rows as Thrift writes them, for the first time as those of the file.
    place = content.index(b"\x16\x78", footer)
    shard.write_bytes(content[:place] + b"\x16\x02" + content[place + 2 :])
    assert pyarrow.parquet.read_metadata(shard).num_rows == 1
    with pytest.raises(DataError, match=r"label has 60 values, but the file says that it has 1 rows: it is damaged"):
        read_values(shard, "label")
