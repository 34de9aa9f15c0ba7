"""Are lists of names read in every encoding, and names compared as text?"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.data.class_names import look_alike, printable, readable
from engine.data.readers.text_lines import text_lines
from engine.errors import DataError


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_lines_in_every_encoding(tmp_path: Path, encoding: str, line_end: str) -> None:
    path = tmp_path / "names.txt"
    path.write_bytes(line_end.join(["café", "", "über"]).encode(encoding))
    assert [readable(line) for line in text_lines(path)] == ["café", "", "über"]


def test_utf16_without_its_second_half(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_bytes(b"\xff\xfea\x00b")
    with pytest.raises(DataError, match="names.txt: is damaged"):
        text_lines(path)


def test_files_that_are_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="pipe: is no regular file"):
        text_lines(tmp_path / "pipe")
    with pytest.raises(DataError, match="nothing: there is no such file"):
        text_lines(tmp_path / "nothing")
    (tmp_path / "long").write_bytes(b"x" * 11)
    with pytest.raises(DataError, match="has 11 bytes; expected at most 10"):
        text_lines(tmp_path / "long", 10)


def test_names_as_text() -> None:
    assert readable("e\u0301") == "\u00e9"
    assert readable(os.fsdecode(b"caf\xe9")) == "caf\u00e9"
    assert readable(os.fsdecode("caf\u00e9".encode())) == "caf\u00e9"
    with pytest.raises(UnicodeEncodeError):
        readable("\ud800")
    assert look_alike(["a", "\u00c4", "A\u0308", "b"]) == ("\u00c4", "A\u0308")
    assert look_alike(["cat", "dog", "Cat "]) == ("cat", "Cat ")
    assert look_alike(["cat", "dog"]) is None


def test_names_in_one_line() -> None:
    assert printable("a\nb\x1b[31m\u00e9\udce9") == "a\\nb\\x1b[31m\u00e9\\udce9"
    assert printable("x" * 61) == "x" * 57 + "..."
    assert printable("x" * 61, None) == "x" * 61
