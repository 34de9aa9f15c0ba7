"""Starts a worker of a private Ray: forked off the process that has all imports, or else as Ray does it.

Ray's raylet runs this file in place of Ray's own `setup_worker.py`, with the same words. It imports next to nothing.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import socket
import struct
import sys
import time
from pathlib import Path

VARIABLE = "LOCAL_LEARNING_FORK_SERVER"
"""Names the socket of `fork_server.py`; without it workers start as Ray does it."""
_READY = b"+"
# In all: a worker that is not there after 60 s is given up by raylet, and Ray needs some for its own way.
_SECONDS = 15.0
_PAUSE_SECONDS = 0.5
_STREAMS = (0, 1, 2)
_CONTEXT, _LANGUAGE = "--serialized-runtime-env-context=", "--language="


def main() -> int:
    """Start the worker whose words follow; returns the exit code, unless this process becomes the worker."""
    words = sys.argv[1:]
    if _is_plain(words) and _is_forked([word for word in words if not word.startswith((_CONTEXT, _LANGUAGE))]):
        return 0
    found = importlib.util.find_spec("ray")
    assert found is not None
    assert found.origin is not None
    setup = Path(found.origin).parent / "_private" / "workers" / "setup_worker.py"
    os.execv(sys.executable, [sys.executable, str(setup), *words])


def _is_plain(words: list[str]) -> bool:
    """Return whether nothing is asked for but a worker of Python in the environment of this process."""
    options = {
        name: word.removeprefix(name) for word in words for name in (_CONTEXT, _LANGUAGE) if word.startswith(name)
    }
    if VARIABLE not in os.environ or not words or words[0].startswith("-") or options.get(_LANGUAGE) != "PYTHON":
        return False
    context = json.loads(options.get(_CONTEXT) or "{}")
    executable = context.pop("py_executable", sys.executable)
    return executable == sys.executable and not any(context.values())


def _is_forked(words: list[str]) -> bool:
    wanted = {"words": words, "folder": os.getcwd(), "environment": dict(os.environ)}
    deadline = time.monotonic() + _SECONDS
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as server:
        server.settimeout(_PAUSE_SECONDS)
        server.connect(os.environ[VARIABLE])
        if _answer(server, deadline) != _READY:
            return False
        text = json.dumps(wanted).encode() + b"\n"
        sent = socket.send_fds(server, [text], _STREAMS)
        server.sendall(text[sent:])
        return _answer(server, deadline) != b""
    return False


def _answer(server: socket.socket, deadline: float) -> bytes:
    """Return the next byte; none of a server that is gone or stopped, or takes too long for its imports."""
    while time.monotonic() < deadline:
        try:
            return server.recv(1)
        except TimeoutError:
            process, _, _ = struct.unpack("3i", server.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
            if state == "T":
                return b""
    return b""


if __name__ == "__main__":
    sys.exit(main())
