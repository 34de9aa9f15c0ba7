"""Decodes JPEG 2000 and AVIF in processes that get the memory which a picture's stated size needs, and no more.

Files of these formats state their size twice, in the container and in the compressed stream, and their readers take
memory for the one that is not told to who opens them. A file that lies is refused by the operating system, in a
process that may die. Each thread that decodes has one such process, which ends with it.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import struct
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

import PIL
from PIL import ExifTags, Image, features

CONFINED_FORMATS = ("JPEG2000", "AVIF")
"""Formats that are read here, by the image library's names."""

COST = Fraction(5, 2)
"""Memory for each pixel as a share of what is taken for one of other formats."""

_FEATURES = {"JPEG2000": "jpg_2000", "AVIF": "avif"}
_JPEG_2000 = (b"\x00\x00\x00\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")
_BRANDS, _CONTAINER_BRANDS = (b"avif", b"avis"), (b"mif1", b"msf1")
_MOST_BRANDS_BYTES = 64
_PROGRAM = Path(__file__).with_name("decoder_program.py")
_BYTES_OF_A_PIXEL = 40
_OVERHEAD_BYTES = 1 << 26
_OVERHEAD_SECONDS, _PIXELS_A_SECOND = 20, 200_000
_NOT_WANTED = bytes(16)
_ENDING_SECONDS = 5.0


class ConfinedError(Exception):
    """A picture cannot be decoded; the message says why."""


class _Ended(ConfinedError):
    """The process ended before it answered."""


class ConfinedPicture:
    """A picture whose header was read, and whose pixels a process can be asked for once.

    Attributes:
        size: width and height that it states.
        mode: the image library's mode.
    """

    def __init__(self, decoder: _Decoder, said: dict[str, Any], content: bytes) -> None:
        self.size: tuple[int, int] = (int(said["size"][0]), int(said["size"][1]))
        if min(self.size) < 1:
            decoder.tell(_NOT_WANTED)
            raise ConfinedError(f"it says that it has {self.size[0]} x {self.size[1]} pixels")
        self.mode: str = said["mode"]
        self._orientation: int = said["orientation"]
        self._decoder: _Decoder | None = decoder
        self._content = content

    def load(self) -> Image.Image:
        """Return the decoded picture in a mode of 8 bits, with its EXIF orientation. Raises ConfinedError."""
        assert self._decoder is not None
        decoder, self._decoder = self._decoder, None
        pixels = self.size[0] * self.size[1]
        most_bytes = _OVERHEAD_BYTES + 2 * len(self._content) + _BYTES_OF_A_PIXEL * pixels
        request = struct.pack(">QQ", most_bytes, _OVERHEAD_SECONDS + pixels // _PIXELS_A_SECOND)
        try:
            said, values = decoder.ask(request)
        except _Ended:
            # Perhaps by somebody else, as when the machine's memory runs out.
            decoder.ask(*_header_request(self._content))
            said, values = decoder.ask(request)
        try:
            image = Image.frombytes(said["mode"], self.size, values)
        except ValueError as error:
            raise ConfinedError(f"it gives another number of pixels than {self.size[0]} x {self.size[1]}") from error
        image.getexif()[ExifTags.Base.Orientation] = self._orientation
        return image

    def close(self) -> None:
        """Say that the pixels are not wanted, if they were not asked for."""
        if self._decoder is not None:
            self._decoder.tell(_NOT_WANTED)
            self._decoder = None


def confined_format(content: bytes) -> str | None:
    """Return which of `CONFINED_FORMATS` a file's first bytes (64, or all) are of; None for any other."""
    if content.startswith(_JPEG_2000):
        return "JPEG2000"
    if content[4:8] != b"ftyp":
        return None
    # A container of pictures may hold other codecs; the brands that follow say which.
    end = min(int.from_bytes(content[:4], "big"), _MOST_BRANDS_BYTES)
    compatible = [content[place : place + 4] for place in range(16, end, 4)]
    avif = content[8:12] in _BRANDS or (content[8:12] in _CONTAINER_BRANDS and set(_BRANDS) & set(compatible))
    return "AVIF" if avif else None


@functools.cache
def confined_formats() -> frozenset[str]:
    """Return those of `CONFINED_FORMATS` that can be read: the image library has the codec, the system the limits."""
    if not os.path.exists("/proc/self/statm"):
        return frozenset()
    supported = features.get_supported()
    return frozenset(name for name, feature in _FEATURES.items() if feature in supported)


@contextmanager
def opened_confined(content: bytes) -> Iterator[ConfinedPicture]:
    """Give a picture of one of `confined_formats`, not decoded yet. Raises ConfinedError."""
    decoder = _of_this_thread()
    try:
        said, _ = decoder.ask(*_header_request(content))
    except _Ended:
        # Whatever ended it may have done so before this picture came.
        said, _ = decoder.ask(*_header_request(content))
    picture = ConfinedPicture(decoder, said, content)
    try:
        yield picture
    finally:
        picture.close()


def _header_request(content: bytes) -> tuple[bytes, bytes]:
    return len(content).to_bytes(8, "big"), content


class _Decoder:
    """A process that decodes one picture after another."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, *parts: bytes) -> tuple[dict[str, Any], bytes]:
        """Return an answer and the bytes that belong to it."""
        try:
            requests, answers = self._pipes()
            for part in parts:
                requests.write(part)
            requests.flush()
            said = json.loads(answers.readline())
            values = answers.read(said.get("length", 0))
            if len(values) < said.get("length", 0):
                raise ValueError("the answer ends early")
        except (OSError, ValueError) as error:
            raise _Ended(f"its reader ended by {self.end()}") from error
        except BaseException:
            # Interrupted, so what comes next from there would be the answer to this.
            self.end()
            raise
        if "error" in said:
            raise ConfinedError(said["error"])
        return said, values

    def tell(self, part: bytes) -> None:
        """Write what has no answer; a process that is gone is noticed by who asks next."""
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.write(part)

    def end(self) -> str:
        """End the process by force and return how it ended; the next question starts another one."""
        process, self._process = self._process, None
        if process is None:
            return "itself"
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.5)
        code = process.poll()
        _end(process)
        return "force" if code is None else f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        if self._process is None:
            # A session of its own: Ctrl-C is for the training, which ends this by closing the pipe.
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_PROGRAM), str(Path(PIL.__file__).parents[1])],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "MALLOC_ARENA_MAX": "1", "OPJ_NUM_THREADS": "1"},
                start_new_session=True,
            )
            weakref.finalize(self, _end, self._process)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        return self._process.stdin, self._process.stdout


def _end(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    try:
        process.wait(_ENDING_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


_threads = threading.local()


def _of_this_thread() -> _Decoder:
    decoder = getattr(_threads, "decoder", None)
    # After a fork, the process of the parent's thread is not ours to talk to.
    if not isinstance(decoder, _Decoder) or decoder.owner != os.getpid():
        decoder = _threads.decoder = _Decoder()
    return decoder
