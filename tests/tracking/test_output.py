"""Does what is told about a training go on when its stream is closed, full, gone, or cannot say a character?"""

from __future__ import annotations

import errno
import io
import sys
from typing import TextIO, cast

import pytest

from engine.tasks import ACCURACY
from engine.tracking import Preparation, Record, open_console
from engine.tracking.live import LiveConsole
from engine.tracking.output import Output
from engine.tracking.plain import PlainConsole


class Lost(io.StringIO):
    """A terminal, a pipe or a disk that takes nothing any more."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def write(self, text: str) -> int:
        raise self.error

    def flush(self) -> None:
        raise self.error


LOSSES = [
    OSError(errno.EIO, "Input/output error"),
    OSError(errno.ENOSPC, "No space left on device"),
    BrokenPipeError(),
    ValueError("I/O operation on closed file"),
]
RECORDS = [Record(0.0, 1, 1, "segment0", "train", "loss/total", 1.0)]


@pytest.mark.parametrize("error", LOSSES, ids=str)
@pytest.mark.parametrize("kind", [PlainConsole, LiveConsole])
def test_a_console_outlives_its_stream(kind: type[PlainConsole] | type[LiveConsole], error: Exception) -> None:
    with kind(Lost(error)) as console:
        console.message("before")
        console.start("title — ±", ["segment0"], 2, 0, ACCURACY)
        console.update(1, 1, RECORDS)
        console.message("between")
        console.finish(["finished"])


def test_a_process_without_standard_error_has_a_console() -> None:
    console = open_console(None, quiet=False)
    console.start("title", ["segment0"], 2, 0, ACCURACY)
    console.update(2, 1, RECORDS)
    assert isinstance(console, PlainConsole)


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_terminal_is_written_to_where_the_other_stream_is_missing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, name, None)
    terminal = io.StringIO()
    with LiveConsole(terminal) as console:
        console.start("title", ["segment0"], 2, 0, ACCURACY)
        console.update(1, 1, RECORDS)
    assert "segment0" in terminal.getvalue()


def test_a_closed_stream_is_no_terminal() -> None:
    stream = io.StringIO()
    stream.close()
    assert not Output(stream).isatty()
    open_console(stream, quiet=False).message("nobody reads this")


def test_characters_that_the_encoding_lacks_are_escapes() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii", errors="strict")
    PlainConsole(stream).message("caf\u00e9 \udce9 done")
    assert raw.getvalue() == b"caf\\xe9 \\udce9 done\n"


def test_what_can_be_written_is_written() -> None:
    stream = io.StringIO()
    output = Output(cast(TextIO, stream))
    assert output.write("abc") == 3
    output.flush()
    assert stream.getvalue() == "abc"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_reading_images_is_told_every_few_seconds_and_a_share_once() -> None:
    said: list[str] = []
    clock = Clock()
    told = Preparation(said.append, clock)
    # A thousand reports a second for 100 seconds, of which the first 40 % go by in 10 and the rest is slow.
    for call in range(100_000):
        clock.now = call / 1000
        told("decoding the train images", min(0.4, call / 25_000))
    assert said[:2] == ["decoding the train images 20%", "decoding the train images 40%"]
    # The same once more after a minute, to show that it lives.
    assert said[2:] == ["decoding the train images 40%"]


def test_what_takes_no_time_is_not_mentioned() -> None:
    said: list[str] = []
    told = Preparation(said.append, Clock())
    for share in range(101):
        told("decoding the train images", share / 100)
    assert said == []
