"""A process that imports once what every learner needs: the workers of a private Ray are forked off it.

A worker that starts as Ray does it imports Ray twice and torch once, seconds of a processor, and holds all of that
alone. A forked one has it at once, and shares its memory with the others until it writes to it.

This file is run, not imported, by `head.py`, with the path of a socket as its word. Whoever wants a worker
(`worker_start.py`) connects, waits for one byte, and sends one line of JSON with its three standard streams; the answer
is the number of the worker's process. Nothing depends on this process: without it, workers start as Ray does it.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import runpy
import select
import signal
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

_STDIN = 0
_READY = b"+"
_LONGEST_REQUEST = 1 << 20
_STREAMS = 3
# Of one who does not go on, and of the others who wait for it.
_SECONDS = 1.0
# What raylet sets for the workers that it starts: the kernel shall end them first when memory is short.
_OUT_OF_MEMORY_SCORE = "1000"
# A lock that another thread holds would stay locked in a fork for ever. NumPy and Arrow start threads when they are
# imported, unless told not to; a learner does its arithmetic with torch, and its threads start when they have work.
_WITHOUT_THREADS = {"OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
# Torch counts its threads when it is imported; Ray gives a worker one for each CPU, which comes too late then.
_ONE_THREAD = {"OMP_NUM_THREADS": "1"}


def main() -> int:
    """Serve until the process that started this one is gone; in a worker, return when it has done its work."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(sys.argv[1])
    # Workers that are wanted before the imports are done wait for them.
    server.listen(1024)
    os.environ.update({**_ONE_THREAD, **os.environ, **_WITHOUT_THREADS})
    # Not Ray, which remembers its environment as it was when it was imported: among it a worker's job and raylet.
    import engine.runtimes  # noqa: F401

    if len(os.listdir("/proc/self/task")) > 1:
        sys.exit("a library has started threads, so workers are not forked")
    # The kernel waits for the children.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    gc.collect()
    # Collecting garbage would write to all these objects, and so give each worker a copy of its own.
    gc.freeze()
    worker = _serve(server)
    if worker is not None:
        _become(worker)
    return 0


def _serve(server: socket.socket) -> dict[str, Any] | None:
    """Fork a worker for everybody who asks; returns in the worker, with what was asked for, and None at the end."""
    watched = select.poll()
    watched.register(_STDIN, select.POLLIN)
    watched.register(server, select.POLLIN)
    while all(number != _STDIN for number, _ in watched.poll()):
        try:
            client, _ = server.accept()
        except OSError as error:
            sys.exit(f"{error.strerror}, so workers are not forked any more")
        with client, contextlib.suppress(OSError, ValueError):
            client.settimeout(_SECONDS)
            # Who has given up meanwhile does not answer.
            client.sendall(_READY)
            with _received(client) as wanted:
                if wanted is None:
                    continue
                worker = os.fork()
                if worker == 0:
                    server.close()
                    _take_streams(wanted["streams"])
                    return wanted
            client.sendall(b"%d\n" % worker)
    return None


@contextlib.contextmanager
def _received(client: socket.socket) -> Iterator[dict[str, Any] | None]:
    """What is asked for, and None where that is not complete; its streams are closed behind the block."""
    text, streams = b"", list[int]()
    try:
        while not text.endswith(b"\n") and len(text) < _LONGEST_REQUEST:
            piece, received, _, _ = socket.recv_fds(client, 1 << 16, _STREAMS)
            streams += received
            if not piece:
                break
            text += piece
        is_complete = text.endswith(b"\n") and len(streams) == _STREAMS
        yield {**json.loads(text), "streams": streams} if is_complete else None
    finally:
        for stream in streams:
            os.close(stream)


def _take_streams(streams: Sequence[int]) -> None:
    for number, stream in enumerate(streams):
        os.dup2(stream, number)


def _become(wanted: Mapping[str, Any]) -> None:
    """Go on as the worker that was asked for, as if it had been started by itself."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    # Raylet ends a worker's group, and so what it has started.
    os.setpgid(0, 0)
    os.chdir(wanted["folder"])
    os.environ.clear()
    os.environ.update(wanted["environment"])
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_OUT_OF_MEMORY_SCORE)
    import numpy

    # Otherwise all workers would draw the same; Python's own module looks after itself.
    numpy.random.seed()
    sys.argv = wanted["words"]
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    sys.exit(main())
