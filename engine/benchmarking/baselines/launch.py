"""The processes that measure cases: started, asked, and ended with certainty."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import selectors
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import psutil

from engine.benchmarking.baselines.job import Job
from engine.runtimes.child import ending, python_command, tell, wait_or_kill

_CODE = "from engine.benchmarking.baselines.worker import main; sys.exit(main())"
# How long the others may take when one has failed, or when all are told to end.
_GRACE_SECONDS = 10.0
_SHOWN_LINES = 3


class CaseFailed(Exception):
    """A way of training could not be measured; says why, in one line.

    Attributes:
        is_over: whether its processes are gone, so that no other case of them can be measured either.
    """

    def __init__(self, reason: str, is_over: bool) -> None:
        super().__init__(reason)
        self.is_over = is_over


class Processes:
    """The processes of one job: started at once, each with its rank, and ended on `close` whatever they are doing.

    Args:
        job: what they do.
        devices: where each computes; as many as there are workers.
        environment: variables of theirs beside this process's own.
    """

    def __init__(self, job: Job, devices: Sequence[str], environment: Mapping[str, str]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="local_learning_measure_")
        self._selector = selectors.DefaultSelector()
        self._children: list[subprocess.Popen[bytes]] = []
        self._unread: dict[int, bytes] = {}
        self._gone: set[int] = set()
        self._logs: list[IO[bytes]] = []
        try:
            for rank, device in enumerate(devices):
                store = str(Path(self._folder.name) / "store")
                self._start(dataclasses.replace(job, rank=rank, device=device, store=store), environment)
        except BaseException:
            self.close()
            raise

    def _start(self, job: Job, environment: Mapping[str, str]) -> None:
        log = (Path(self._folder.name) / f"log{job.rank}.txt").open("w+b")
        self._logs.append(log)
        child = subprocess.Popen(
            python_command(_CODE),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            # No session of its own: Linux divides processors among sessions first, and cases with more of them would
            # get more of a machine that is not quiet.
            env={**os.environ, **environment},
        )
        self._children.append(child)
        assert child.stdout is not None
        os.set_blocking(child.stdout.fileno(), False)
        self._selector.register(child.stdout, selectors.EVENT_READ, len(self._children) - 1)
        tell(child, job.to_json())

    @property
    def ids(self) -> list[int]:
        """Process ids, by rank."""
        return [child.pid for child in self._children]

    def ask(self, request: Mapping[str, Any] | None, timeout: float) -> list[dict[str, Any]]:
        """Let all processes do something, and return their answers by rank.

        Args:
            request: what to do; None waits for the answer to the job itself.
            timeout: seconds that the slowest may take.

        Raises:
            CaseFailed: one failed, ended, or did not answer in time; unless all only failed, they are all ended.
        """
        if request is not None:
            for child in self._children:
                tell(child, request)
        answers: dict[int, dict[str, Any]] = {}
        deadline = time.monotonic() + timeout
        failed = False
        while len(answers) < len(self._children):
            left = deadline - time.monotonic()
            ready = self._selector.select(max(0.0, left))
            for key, _ in ready:
                answer = self._read(key.data)
                if answer is not None:
                    # What it said before it ended explains more than its end.
                    answers.setdefault(key.data, answer)
            if not failed and any("error" in answer for answer in answers.values()):
                # The others may wait for it.
                failed, deadline = True, min(deadline, time.monotonic() + _GRACE_SECONDS)
            if left <= 0:
                break
        errors = [answers[rank]["error"] for rank in sorted(answers) if "error" in answers[rank]]
        if errors:
            is_over = len(errors) < len(self._children) or bool(self._gone) or request is None
            # What one process met, others tell as its absence.
            reason = min(errors, key=lambda text: "gloo" in text or "Connection" in text)
            if is_over:
                self.close()
            raise CaseFailed(_one_line(reason), is_over)
        if len(answers) < len(self._children):
            self.close()
            raise CaseFailed(f"no answer within {timeout:.0f} seconds", True)
        return [answers[rank] for rank in range(len(self._children))]

    def _read(self, rank: int) -> dict[str, Any] | None:
        """Return the answer of a process if it is whole; an error if the process has ended."""
        child = self._children[rank]
        assert child.stdout is not None
        piece = child.stdout.read()
        if piece is None:
            return None
        if not piece:
            self._selector.unregister(child.stdout)
            self._gone.add(rank)
            return {"error": self._ending(rank)}
        text = self._unread.get(rank, b"") + piece
        line, newline, rest = text.partition(b"\n")
        self._unread[rank] = rest if newline else text
        return json.loads(line) if newline else None

    def _ending(self, rank: int) -> str:
        child, log = self._children[rank], self._logs[rank]
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_GRACE_SECONDS)
        code = child.returncode
        log.seek(0)
        said = [line.strip() for line in log.read().decode(errors="replace").splitlines() if line.strip()]
        how = f"ended with {ending(code)}" if code is not None else "closed its answers"
        return f"process {rank + 1} of {len(self._children)} {how}: {'; '.join(said[-_SHOWN_LINES:])}"

    def close(self) -> None:
        """End all processes and what they started: asked first, by force if they do not listen. May be called twice."""
        below = self._descendants()
        for child in self._children:
            for pipe in (child.stdin, child.stdout):
                with contextlib.suppress(OSError):
                    if pipe is not None:
                        pipe.close()
        for child in self._children:
            if child.poll() is None:
                child.terminate()
        wait_or_kill(self._children, _GRACE_SECONDS)
        # A private Ray ends by itself with the process that used it, and then leaves nothing behind.
        _, left = psutil.wait_procs(below, timeout=_GRACE_SECONDS)
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        for log in self._logs:
            log.close()
        self._selector.close()
        self._children.clear()
        self._folder.cleanup()

    def _descendants(self) -> list[psutil.Process]:
        found = []
        for child in self._children:
            with contextlib.suppress(psutil.Error):
                found += psutil.Process(child.pid).children(recursive=True)
        return found


def _one_line(text: str) -> str:
    return "; ".join(line.strip() for line in text.splitlines() if line.strip())[:300]
