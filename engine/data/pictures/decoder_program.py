"""The program of a process that decodes pictures of formats whose files state their size twice.

It is started by its path, and imports the image library and nothing of the engine, so that it starts in a tenth of a
second and takes little memory. A request is the length of a file (8 bytes, big-endian) and its bytes; the answer is a
line of JSON with ``size``, ``mode`` and EXIF ``orientation``, or an ``error``. Then come two more numbers of 8 bytes:
the bytes of memory and the seconds of computing that may be taken; no memory means that the pixels are not wanted. The
answer is a line of JSON with ``mode`` and ``length``, or an ``error``, and the pixels.
"""

from __future__ import annotations

import io
import json
import os
import resource
import struct
import sys
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

_OPENING_SECONDS = 20
_OPENING_BYTES = 1 << 26
_ORIENTATION = 0x0112
_PLAIN_MODES = ("L", "LA", "RGB", "RGBA", "CMYK")


def answer_requests(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer until the requests end."""
    while head := requests.read(8):
        content = requests.read(int.from_bytes(head, "big"))
        image: ImageFile | None = None
        try:
            _confine(_OPENING_BYTES + 4 * len(content), _OPENING_SECONDS)
            image = _opened(content)
            said: dict[str, Any] = {"size": image.size, "mode": image.mode, "orientation": _orientation(image)}
        except Exception as error:
            said = _failure(error)
        _tell(answers, said)
        if image is None:
            continue
        limits = requests.read(16)
        if len(limits) < 16:
            return
        most_bytes, seconds = struct.unpack(">QQ", limits)
        if not most_bytes:
            continue
        pixels = b""
        try:
            _confine(most_bytes, seconds)
            mode, pixels = _pixels(image)
            said = {"mode": mode, "length": len(pixels)}
        except Exception as error:
            said = _failure(error)
        _tell(answers, said, pixels)


def _opened(content: bytes) -> ImageFile:
    # Not by Image.open, which would try readers of other formats.
    if content[4:8] == b"ftyp":
        from PIL import AvifImagePlugin

        # Each thread would need memory of its own.
        AvifImagePlugin.DEFAULT_MAX_THREADS = 1
        return AvifImagePlugin.AvifImageFile(io.BytesIO(content))
    from PIL import Jpeg2KImagePlugin

    return Jpeg2KImagePlugin.Jpeg2KImageFile(io.BytesIO(content))


def _orientation(image: ImageFile) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:
        # Damaged, like a picture that says nothing of it.
        return 1


def _pixels(image: ImageFile) -> tuple[str, bytes]:
    image.load()
    if image.mode in _PLAIN_MODES:
        return image.mode, image.tobytes()
    mode = "RGBA" if image.has_transparency_data else "RGB"
    return mode, image.convert(mode).tobytes()


def _confine(most_bytes: int, seconds: int) -> None:
    """Let this process take so much memory, and compute for so long, from now on; more ends it or raises."""
    with open("/proc/self/statm", "rb") as file:
        taken = int(file.read().split()[0]) * resource.getpagesize()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    computed = int(usage.ru_utime + usage.ru_stime)
    for kind, most in ((resource.RLIMIT_AS, taken + most_bytes), (resource.RLIMIT_CPU, computed + seconds)):
        _, highest = resource.getrlimit(kind)
        resource.setrlimit(kind, (most if highest == resource.RLIM_INFINITY else min(most, highest), highest))


def _failure(error: Exception) -> dict[str, Any]:
    _, highest = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (highest, highest))
    return {"error": f"{type(error).__name__}: {str(error)[:200]}"}


def _tell(answers: IO[bytes], said: dict[str, Any], pixels: bytes = b"") -> None:
    answers.write(json.dumps(said).encode() + b"\n")
    answers.write(pixels)
    answers.flush()


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.path.append(sys.argv[1])
    own_answers = os.fdopen(os.dup(1), "wb")
    # What a reader prints must not be taken for an answer.
    os.dup2(2, 1)
    answer_requests(sys.stdin.buffer, own_answers)
