"""The process that holds a private Ray (`head.py`), as its driver sees it: how it is started, and what it says."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from engine.errors import GOES_ON_IF_ANY, PlanError
from engine.last_words import forms
from engine.runtimes.child import python_command, tell
from engine.runtimes.ray.private.folder import PrivateFolder
from engine.runtimes.ray.private.surroundings import environment_of_head

REMEDY = "`local-learning doctor` tries it alone; --on process does without Ray"
GONE = f"the private Ray is gone: {{}} ({GOES_ON_IF_ANY})"
_RUN = "import runpy; runpy.run_path(sys.argv.pop(1), run_name='__main__')"
# Workers find the engine through PYTHONPATH alone, whether they are forked or not.
_RUN_FORK_SERVER = f"sys.path.pop(); {_RUN}"
_HERE = Path(__file__).parent
# A slow disk and a busy machine included; Ray itself gives up after 30 s.
_START_SECONDS = 120.0
_PAUSE_SECONDS = 0.25


class Holder:
    """The process that starts Ray and ends it.

    Args:
        folder: of this Ray.
        wanted: what Ray shall be like; see `head.py`.

    Attributes:
        process: the process itself.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(self, folder: PrivateFolder, wanted: Mapping[str, Any]) -> None:
        self._folder = folder
        self._unread = b""
        self.process = self._start({**wanted, "folder": str(folder.path), "ray_folder": str(folder.ray)})

    def _start(self, wanted: Mapping[str, Any]) -> subprocess.Popen[bytes]:
        with self._folder.log.open("ab") as log, _last_words(log) as words:
            wanted = {
                **wanted,
                "fork_server": python_command(
                    _RUN_FORK_SERVER, [str(_HERE / "fork_server.py"), str(self._folder.fork_server)]
                ),
                "worker_start": str(_HERE / "worker_start.py"),
                "last_words": words,
            }
            process = subprocess.Popen(
                python_command(_RUN, [str(_HERE / "head.py")]),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=self._folder.path,
                env=environment_of_head(self._folder),
                start_new_session=True,
                pass_fds=[descriptor for descriptor, _ in words],
            )
        tell(process, wanted)
        return process

    def place(self) -> dict[str, Any]:
        """Wait until Ray has started, and return where: its address, its node, and its processes' numbers by name.

        Raises:
            PlanError: it does not start; says why.
        """
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            answer = self.read(_PAUSE_SECONDS)
            if answer is not None and "address" in answer:
                return answer
            if answer is not None:
                raise PlanError(f"a private Ray does not start: {answer.get('error', answer)}; {REMEDY}")
        raise PlanError(f"a private Ray did not start within {_START_SECONDS:g} s; {REMEDY}")

    def read(self, seconds: float) -> dict[str, Any] | None:
        """Return the next line of the process that holds Ray, or its end as an error; None if neither comes in time."""
        assert self.process.stdout is not None
        # Not select.select, which takes no descriptors from 1,024 on.
        poll = select.poll()
        poll.register(self.process.stdout, select.POLLIN)
        while b"\n" not in self._unread:
            if not poll.poll(seconds * 1000):
                return None
            piece = os.read(self.process.stdout.fileno(), 1 << 16)
            if not piece:
                said = self._folder.said().strip().splitlines()
                return {"error": f"its first process ended{': ' + said[-1].strip() if said else ''}"}
            self._unread += piece
        line, _, self._unread = self._unread.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextlib.contextmanager
def _last_words(log: IO[bytes]) -> Iterator[list[tuple[int, str]]]:
    """Give what a driver says that Ray ends, and descriptors for it that a child can take over.

    They are those of this process, or of a file where one is closed.
    """
    with contextlib.ExitStack() as held:
        words = []
        for stream, form in forms(GONE):
            try:
                descriptor = os.dup(stream)
            except OSError:
                descriptor = os.dup(log.fileno())
            held.callback(os.close, descriptor)
            words.append((descriptor, form))
        yield words
