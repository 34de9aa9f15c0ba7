"""Does a damaged or hostile file end with one error that names it, at once and in little memory?"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import TypeAdapter
from typing_extensions import TypedDict

from engine.errors import RunError
from engine.reading import checked, naming, parse_json, read_bytes, read_json


def test_what_is_whole_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b'\xef\xbb\xbf{"a": [1, "\xc3\xa9"]}\r\n')
    assert read_json(path, RunError) == {"a": [1, "é"]}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "damaged"),
        (b"{", "damaged"),
        (b'{"a": 1, "a": 2}', "the field 'a' twice"),
        (b"[" * 100_000 + b"]" * 100_000, "damaged"),
        (b"[" * 65 + b"]" * 65, "nested more than 64 deep"),
        (b'{"a": "\\ud800"}', "half of a character"),
        (b'{"\\u0000": 1}', "NUL"),
        (b"1" * 5000, "damaged"),
        (b'"\xff"', "damaged"),
    ],
)
def test_what_is_damaged_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(RunError, match=words) as caught:
        read_json(path, RunError)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_names_of_files_that_are_no_text_pass() -> None:
    assert parse_json('"a\\udcff"', "here", RunError) == "a\udcff"


def test_pipes_links_folders_and_giants_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "sparse").touch()
    os.truncate(tmp_path / "sparse", 20 * 2**30)
    (tmp_path / "whole").write_bytes(b"x")
    (tmp_path / "link").symlink_to("whole")
    for name, words in {
        "pipe": "no regular file",
        "sparse": "21,474,836,480 bytes",
        ".": "no regular file",
        "gone": "no such file",
    }.items():
        with pytest.raises(RunError, match=words):
            read_bytes(tmp_path / name, RunError, 1000)
    assert read_bytes(tmp_path / "link", RunError, 1000) == b"x"
    with pytest.raises(RunError, match="link"):
        read_bytes(tmp_path / "link", RunError, 1000, follow_links=False)


def test_errors_of_the_system_and_of_decoders_name_the_file() -> None:
    for cause in (
        OSError(5, "Input/output error"),
        ValueError("odd\nlines"),
        UnicodeDecodeError("utf-8", b"", 0, 1, ""),
    ):
        with pytest.raises(RunError, match="^x: "), naming("x", RunError):
            raise cause


def test_shapes_are_checked_by_field() -> None:
    class Shape(TypedDict):
        step: int

    adapter = TypeAdapter(Shape)
    assert checked({"step": 1}, adapter, "x", RunError) == {"step": 1}
    with pytest.raises(RunError, match=r"x: is not what was expected: step: .*integer"):
        checked({"step": "many"}, adapter, "x", RunError)
    with pytest.raises(RunError, match="x: is not what was expected: the whole"):
        checked([], adapter, "x", RunError)
